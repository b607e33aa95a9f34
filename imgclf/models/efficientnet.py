"""EfficientNet-B0: Tan and Le, 2019 (https://arxiv.org/abs/1905.11946), table 1.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{expand,depthwise,project}/{conv,bn}` and `blocks/0/se/{reduce,expand}` to `blocks/15`,
`last/{conv,bn}`; block 0 has no `expand`.
"""

from typing import Any

import jax
import numpy as np

from imgclf.models.backbone import Model
from imgclf.models.blocks import InvertedResidualNet, InvertedResidualStage
from imgclf.models.initializers import HE_NORMAL
from imgclf.models.weights.conversion import Rule, Weights, batch_norm, conv, keras_batch_norm, keras_depthwise, linear, same

_STAGES = (
    InvertedResidualStage(1, 16, 1, 1),
    InvertedResidualStage(6, 24, 2, 2),
    InvertedResidualStage(6, 40, 2, 2, 5),
    InvertedResidualStage(6, 80, 3, 2),
    InvertedResidualStage(6, 112, 3, 1, 5),
    InvertedResidualStage(6, 192, 4, 2, 5),
    InvertedResidualStage(6, 320, 1, 1),
)
# The fan of a depthwise kernel is its own, kernel².
_SHARED: dict[str, Any] = {"activation": jax.nn.silu, "squeeze_excite": True, "depthwise_init": HE_NORMAL}


def efficientnet_b0(**options: Any) -> InvertedResidualNet:
    """EfficientNet-B0 with SiLU throughout; without stochastic depth in training."""
    return InvertedResidualNet(32, _STAGES, 1280, **_SHARED, **options)


def efficientnet_tiny(**options: Any) -> InvertedResidualNet:
    """Four blocks of few channels: for tests."""
    stages = InvertedResidualStage(1, 8, 1, 1), InvertedResidualStage(6, 16, 2, 2, 5), InvertedResidualStage(6, 24, 1, 2)
    return InvertedResidualNet(8, stages, 64, **_SHARED, **options)


MODELS = {
    "efficientnet_b0": Model(efficientnet_b0, 5_288_548),
    "efficientnet_tiny": Model(efficientnet_tiny),
}

_TF = {"padding": "same", "epsilon": 1e-3}  # of TensorFlow's networks; the momentum is timm's
_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(name: str, top1: float, variant: dict[str, Any]) -> Weights:
    return Weights(
        f"timm/{name}",
        "efficientnet_b0",
        "timm",
        variant=variant,
        repo=f"timm/{name}",
        top1=top1,
        licence="apache-2.0",
        source=_RESULTS,
    )


WEIGHTS: tuple[Weights, ...] = (
    _timm("efficientnet_b0.ra_in1k", 77.698, {}),
    _timm("tf_efficientnet_b0.in1k", 76.542, _TF),
    _timm("tf_efficientnet_b0.ns_jft_in1k", 78.680, _TF),
    Weights(
        "torchvision/efficientnet_b0.v1",
        "efficientnet_b0",
        "torchvision",
        file="efficientnet_b0_rwightman-7f5810bc.safetensors",
        top1=77.692,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth",
    ),
    # Keras rescales and normalises within the model, by layers that amount to mean and std.
    Weights(
        "keras/efficientnetb0",
        "efficientnet_b0",
        "keras",
        variant={**_TF, "momentum": 0.99, "unbiased": False},
        file="efficientnetb0.h5",
        top1=77.1,
        source="https://storage.googleapis.com/keras-applications/efficientnetb0.h5",
    ),
)


def _blocks() -> list[tuple[int, int, int]]:
    """(stage, block in it, block in all), from 0."""
    places = [(stage, i) for stage, shape in enumerate(_STAGES) for i in range(shape.depth)]
    return [(stage, i, n) for n, (stage, i) in enumerate(places)]


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _dense(layer: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{layer}\.weight", f"{path}/kernel", linear), (rf"{layer}\.bias", f"{path}/bias", same))


def _timm_rules() -> tuple[Rule, ...]:
    rules = [*_torch("conv_stem", "bn1", "backbone/stem")]
    for stage, i, n in _blocks():
        layer, path = rf"blocks\.{stage}\.{i}\.", f"backbone/blocks/{n}"
        # without an expansion, layers count from the depthwise one
        names = [("expand", "conv_pw")] * (n > 0) + [("depthwise", "conv_dw"), ("project", "conv_pwl" if n > 0 else "conv_pw")]
        for place, (part, name) in enumerate(names, start=1):
            rules += _torch(layer + name, f"{layer}bn{place}", f"{path}/{part}")
        rules += _dense(rf"{layer}se\.conv_(reduce|expand)", rf"{path}/se/\1")
    rules += _torch("conv_head", "bn2", "backbone/last")
    return (*rules, *_dense("classifier", "head/logits"))


def _torchvision_rules() -> tuple[Rule, ...]:
    rules = [*_torch(r"features\.0\.0", r"features\.0\.1", "backbone/stem")]
    for stage, i, n in _blocks():
        layer, path, parts = rf"features\.{stage + 1}\.{i}\.block\.", f"backbone/blocks/{n}", ["depthwise", "se", "project"]
        for place, part in enumerate(["expand"] * (n > 0) + parts):
            if part == "se":
                rules += _dense(rf"{layer}{place}\.fc1", f"{path}/se/reduce") + _dense(rf"{layer}{place}\.fc2", f"{path}/se/expand")
            else:
                rules += _torch(rf"{layer}{place}\.0", rf"{layer}{place}\.1", f"{path}/{part}")
    rules += _torch(r"features\.8\.0", r"features\.8\.1", "backbone/last")
    return (*rules, *_dense(r"classifier\.1", "head/logits"))


def _keras_dense(kernel: np.ndarray) -> np.ndarray:
    """Keras 1x1 convolution [1,1,in,out] to a dense layer [in,out]."""
    return kernel.reshape(kernel.shape[2:])


def _keras_rules() -> tuple[Rule, ...]:
    rules = [
        (r"normalization(_\d+)?/(mean|variance|count)", None, same),  # the weights' mean and std do the same
        ("stem_conv/kernel", "backbone/stem/conv/kernel", same),
        *keras_batch_norm("stem_bn", "backbone/stem/bn"),
    ]
    for stage, i, n in _blocks():
        layer, path = f"block{stage + 1}{chr(ord('a') + i)}_", f"backbone/blocks/{n}"
        rules += [
            (f"{layer}(expand|project)_conv/kernel", rf"{path}/\1/conv/kernel", same),
            *keras_batch_norm(f"{layer}(expand|project)_bn", rf"{path}/\1/bn"),
            (f"{layer}dwconv/(depthwise_)?kernel", f"{path}/depthwise/conv/kernel", keras_depthwise),
            *keras_batch_norm(f"{layer}bn", f"{path}/depthwise/bn"),
            (f"{layer}se_(reduce|expand)/kernel", rf"{path}/se/\1/kernel", _keras_dense),
            (f"{layer}se_(reduce|expand)/bias", rf"{path}/se/\1/bias", same),
        ]
    return (
        *rules,
        ("top_conv/kernel", "backbone/last/conv/kernel", same),
        *keras_batch_norm("top_bn", "backbone/last/bn"),
        ("predictions/kernel", "head/logits/kernel", same),
        ("predictions/bias", "head/logits/bias", same),
    )


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _timm_rules(), "torchvision": _torchvision_rules(), "keras": _keras_rules()}
