"""MobileNetV2: Sandler et al., 2018 (https://arxiv.org/abs/1801.04381), table 2, with its width multiplier.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{expand,depthwise,project}/{conv,bn}` to `blocks/16`, `last/{conv,bn}`; block 0 has no
`expand`.
"""

import dataclasses
import functools
from typing import Any

import jax

from imgclf.models.backbone import Model
from imgclf.models.blocks import InvertedResidualNet, InvertedResidualStage
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.weights.conversion import HALF, Rule, Weights, batch_norm, conv, keras_batch_norm, keras_depthwise, linear, same

_STAGES = (
    InvertedResidualStage(1, 16, 1, 1),
    InvertedResidualStage(6, 24, 2, 2),
    InvertedResidualStage(6, 32, 3, 2),
    InvertedResidualStage(6, 64, 4, 2),
    InvertedResidualStage(6, 96, 3, 1),
    InvertedResidualStage(6, 160, 3, 2),
    InvertedResidualStage(6, 320, 1, 1),
)


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, but not below 90 %, as in the authors' code."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v2(
    *, width: float = 1.0, stages: tuple[InvertedResidualStage, ...] = _STAGES, last: int = 1280, **options: Any
) -> InvertedResidualNet:
    """MobileNetV2 with ReLU6 throughout; `width` multiplies all channels, those of the last convolution only above 1."""
    scaled = [dataclasses.replace(stage, features=round_channels(stage.features * width)) for stage in stages]
    return InvertedResidualNet(
        round_channels(32 * width),
        scaled,
        round_channels(last * max(width, 1.0)),
        activation=jax.nn.relu6,
        squeeze_excite=False,
        depthwise_init=HE_NORMAL_FAN_OUT,
        **options,
    )


def mobilenet_v2_tiny(**options: Any) -> InvertedResidualNet:
    """Four blocks, a quarter of the width: for tests."""
    stages = InvertedResidualStage(1, 16, 1, 1), InvertedResidualStage(6, 32, 2, 2), InvertedResidualStage(6, 64, 1, 2)
    return mobilenet_v2(width=0.25, stages=stages, last=64, **options)


MODELS = {
    "mobilenet_v2": Model(mobilenet_v2, 3_504_872),
    "mobilenet_v2_035": Model(functools.partial(mobilenet_v2, width=0.35), 1_677_128),
    "mobilenet_v2_050": Model(functools.partial(mobilenet_v2, width=0.5), 1_968_680),
    "mobilenet_v2_075": Model(functools.partial(mobilenet_v2, width=0.75), 2_636_424),
    "mobilenet_v2_130": Model(functools.partial(mobilenet_v2, width=1.3), 5_386_792),
    "mobilenet_v2_140": Model(functools.partial(mobilenet_v2, width=1.4), 6_108_776),
    "mobilenet_v2_tiny": Model(mobilenet_v2_tiny),
}

# The repository of TF-slim's MobileNet lists these top-1 and multiply-adds; Keras's files are the same weights.
_KERAS = {"padding": "same", "epsilon": 1e-3, "momentum": 0.999, "unbiased": False}
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"


def _keras(model: str, alpha: str, top1: float, gmacs: float) -> Weights:
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224.h5"
    return Weights(
        f"keras/mobilenet_v2_{alpha}_224",
        model,
        "keras",
        mean=HALF,
        std=HALF,
        variant=_KERAS,
        file=file,
        top1=top1,
        gmacs=gmacs,
        source=_KERAS_URL + file,
    )


_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(name: str, model: str, top1: float, gmacs: float) -> Weights:
    repo = f"timm/{name}"
    options: dict[str, Any] = {"interpolation": "bicubic", "soft_labels": True}
    return Weights(repo, model, "timm", **options, repo=repo, top1=top1, gmacs=gmacs, licence="apache-2.0", source=_RESULTS)


WEIGHTS: tuple[Weights, ...] = (
    _timm("mobilenetv2_100.ra_in1k", "mobilenet_v2", 72.91, 0.31),
    _timm("mobilenetv2_050.lamb_in1k", "mobilenet_v2_050", 65.928, 0.1),
    _timm("mobilenetv2_140.ra_in1k", "mobilenet_v2_140", 76.528, 0.6),
    Weights(
        "torchvision/mobilenet_v2.v1",
        "mobilenet_v2",
        "torchvision",
        file="mobilenet_v2-b0353104.safetensors",
        top1=71.878,
        gmacs=0.301,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    ),
    _keras("mobilenet_v2_035", "0.35", 60.3, 0.059),
    _keras("mobilenet_v2_050", "0.5", 65.4, 0.097),
    _keras("mobilenet_v2_075", "0.75", 69.8, 0.209),
    _keras("mobilenet_v2", "1.0", 71.8, 0.300),
    _keras("mobilenet_v2_130", "1.3", 74.4, 0.509),
    _keras("mobilenet_v2_140", "1.4", 75.0, 0.582),
)


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _timm_rules() -> tuple[Rule, ...]:
    # blocks.0.0 has no expansion, so that its layers count from the depthwise one
    rules = [
        *_torch("conv_stem", "bn1", "backbone/stem"),
        *_torch(r"blocks\.0\.0\.conv_dw", r"blocks\.0\.0\.bn1", "backbone/blocks/0/depthwise"),
        *_torch(r"blocks\.0\.0\.conv_pw", r"blocks\.0\.0\.bn2", "backbone/blocks/0/project"),
    ]
    n = 1
    for stage, shape in enumerate(_STAGES[1:], start=1):
        for i in range(shape.depth):
            layer, path = rf"blocks\.{stage}\.{i}\.", f"backbone/blocks/{n}"
            rules += _torch(layer + "conv_pw", layer + "bn1", f"{path}/expand")
            rules += _torch(layer + "conv_dw", layer + "bn2", f"{path}/depthwise")
            rules += _torch(layer + "conv_pwl", layer + "bn3", f"{path}/project")
            n += 1
    rules += _torch("conv_head", "bn2", "backbone/last")
    return (*rules, (r"classifier\.weight", "head/logits/kernel", linear), (r"classifier\.bias", "head/logits/bias", same))


def _torchvision_rules() -> tuple[Rule, ...]:
    rules = [
        *_torch(r"features\.0\.0", r"features\.0\.1", "backbone/stem"),
        *_torch(r"features\.1\.conv\.0\.0", r"features\.1\.conv\.0\.1", "backbone/blocks/0/depthwise"),
        *_torch(r"features\.1\.conv\.1", r"features\.1\.conv\.2", "backbone/blocks/0/project"),
    ]
    for n in range(1, 17):
        layer, path = rf"features\.{n + 1}\.conv\.", f"backbone/blocks/{n}"
        rules += _torch(layer + r"0\.0", layer + r"0\.1", f"{path}/expand")
        rules += _torch(layer + r"1\.0", layer + r"1\.1", f"{path}/depthwise")
        rules += _torch(layer + "2", layer + "3", f"{path}/project")
    rules += _torch(r"features\.18\.0", r"features\.18\.1", "backbone/last")
    return (*rules, (r"classifier\.1\.weight", "head/logits/kernel", linear), (r"classifier\.1\.bias", "head/logits/bias", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {
    "timm": _timm_rules(),
    "torchvision": _torchvision_rules(),
    "keras": (
        ("Conv1/kernel", "backbone/stem/conv/kernel", same),
        *keras_batch_norm("bn_Conv1", "backbone/stem/bn"),
        ("expanded_conv_depthwise/depthwise_kernel", "backbone/blocks/0/depthwise/conv/kernel", keras_depthwise),
        *keras_batch_norm("expanded_conv_depthwise_BN", "backbone/blocks/0/depthwise/bn"),
        ("expanded_conv_project/kernel", "backbone/blocks/0/project/conv/kernel", same),
        *keras_batch_norm("expanded_conv_project_BN", "backbone/blocks/0/project/bn"),
        (r"block_(\d+)_depthwise/depthwise_kernel", r"backbone/blocks/\1/depthwise/conv/kernel", keras_depthwise),
        (r"block_(\d+)_(expand|project)/kernel", r"backbone/blocks/\1/\2/conv/kernel", same),
        *keras_batch_norm(r"block_(\d+)_(expand|depthwise|project)_BN", r"backbone/blocks/\1/\2/bn"),
        ("Conv_1/kernel", "backbone/last/conv/kernel", same),
        *keras_batch_norm("Conv_1_bn", "backbone/last/bn"),
        ("(predictions|Logits)/kernel", "head/logits/kernel", same),
        ("(predictions|Logits)/bias", "head/logits/bias", same),
    ),
}
