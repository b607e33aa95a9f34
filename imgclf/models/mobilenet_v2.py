"""MobileNetV2: Sandler et al., 2018 (https://arxiv.org/abs/1801.04381), table 2, with its width multiplier.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{expand,depthwise,project}/{conv,bn}` to `blocks/16`, `last/{conv,bn}`; block 0 has no
`expand`.
"""

import functools
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvNorm, InvertedResidual, Stage
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.weights.conversion import HALF, Rule, Weights, batch_norm, conv, keras_batch_norm, keras_depthwise, linear, same

# expansion, channels, blocks, stride of the first one
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, but not below 90 %, as in the authors' code."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class MobileNetV2(Backbone):
    """Stem (3x3/2), 17 inverted residuals, and a 1x1 convolution; ReLU6 throughout.

    `width` multiplies all channels; those of the last convolution only above 1. `padding` at stride 2 is "symmetric" as in torch, or
    "same" as in TensorFlow (right and bottom of even sizes).
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        stages: tuple[tuple[int, int, int, int], ...] = _STAGES,
        last: int = 1280,
        padding: str = "symmetric",
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        self.pads_same = padding == "same"
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        make_conv = functools.partial(layers.Conv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        depthwise = functools.partial(
            layers.DepthwiseConv,
            kernel=3,
            padding="same" if self.pads_same else None,
            kernel_init=HE_NORMAL_FAN_OUT,
            dtype=dtype,
            rngs=rngs,
        )
        block = functools.partial(InvertedResidual, conv=make_conv, depthwise=depthwise, norm=make_norm, activation=jax.nn.relu6)
        features = round_channels(32 * width)
        unpadded = ((0, 0), (0, 0)) if self.pads_same else None
        self.stem = ConvNorm(make_conv(3, features, 3, stride=2, padding=unpadded), make_norm(features))
        blocks = []
        for expansion, channels, depth, first_stride in stages:
            for i in range(depth):
                out = round_channels(channels * width)
                blocks.append(block(features, out, expansion=expansion, stride=first_stride if i == 0 else 1))
                features = out
        self.blocks = Stage(blocks)
        self.features = round_channels(last * max(width, 1.0))
        self.last = ConvNorm(make_conv(features, self.features, 1), make_norm(self.features))
        self.halvings = 1 + sum(stride == 2 for *_, stride in stages)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a 32nd, rounded up."""
        return -(-height // 2**self.halvings), -(-width // 2**self.halvings)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = layers.pad_same(image, 3, 2) if self.pads_same else image
        x = jax.nn.relu6(self.stem(x, train=train))
        x = self.blocks(x, train=train)
        return jax.nn.relu6(self.last(x, train=train))


def mobilenet_v2(**options: Any) -> MobileNetV2:
    return MobileNetV2(**options)


def mobilenet_v2_035(**options: Any) -> MobileNetV2:
    return MobileNetV2(width=0.35, **options)


def mobilenet_v2_050(**options: Any) -> MobileNetV2:
    return MobileNetV2(width=0.5, **options)


def mobilenet_v2_075(**options: Any) -> MobileNetV2:
    return MobileNetV2(width=0.75, **options)


def mobilenet_v2_130(**options: Any) -> MobileNetV2:
    return MobileNetV2(width=1.3, **options)


def mobilenet_v2_140(**options: Any) -> MobileNetV2:
    return MobileNetV2(width=1.4, **options)


def mobilenet_v2_tiny(**options: Any) -> MobileNetV2:
    """Four blocks, a quarter of the width: for tests."""
    return MobileNetV2(width=0.25, stages=((1, 16, 1, 1), (6, 32, 2, 2), (6, 64, 1, 2)), last=64, **options)


MODELS = {
    "mobilenet_v2": Model(mobilenet_v2, 3_504_872),
    "mobilenet_v2_035": Model(mobilenet_v2_035, 1_677_128),
    "mobilenet_v2_050": Model(mobilenet_v2_050, 1_968_680),
    "mobilenet_v2_075": Model(mobilenet_v2_075, 2_636_424),
    "mobilenet_v2_130": Model(mobilenet_v2_130, 5_386_792),
    "mobilenet_v2_140": Model(mobilenet_v2_140, 6_108_776),
    "mobilenet_v2_tiny": Model(mobilenet_v2_tiny),
}

# The repository of TF-slim's MobileNet lists these top-1; Keras's files are the same weights.
_KERAS = {"padding": "same", "epsilon": 1e-3, "momentum": 0.999, "unbiased": False}
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"


def _keras(model: str, alpha: str, top1: float) -> Weights:
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
        source=_KERAS_URL + file,
    )


WEIGHTS: tuple[Weights, ...] = (
    Weights(
        "timm/mobilenetv2_100.ra_in1k",
        "mobilenet_v2",
        "timm",
        repo="timm/mobilenetv2_100.ra_in1k",
        top1=72.91,
        licence="apache-2.0",
    ),
    Weights("timm/mobilenetv2_050.lamb_in1k", "mobilenet_v2_050", "timm", repo="timm/mobilenetv2_050.lamb_in1k", licence="apache-2.0"),
    Weights("timm/mobilenetv2_140.ra_in1k", "mobilenet_v2_140", "timm", repo="timm/mobilenetv2_140.ra_in1k", licence="apache-2.0"),
    Weights(
        "torchvision/mobilenet_v2.v1",
        "mobilenet_v2",
        "torchvision",
        file="mobilenet_v2-b0353104.safetensors",
        top1=71.878,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    ),
    _keras("mobilenet_v2_035", "0.35", 60.3),
    _keras("mobilenet_v2_050", "0.5", 65.4),
    _keras("mobilenet_v2_075", "0.75", 69.8),
    _keras("mobilenet_v2", "1.0", 71.8),
    _keras("mobilenet_v2_130", "1.3", 74.4),
    _keras("mobilenet_v2_140", "1.4", 75.0),
)


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _timm() -> tuple[Rule, ...]:
    # blocks.0.0 has no expansion, so that its layers count from the depthwise one
    rules = [
        *_torch("conv_stem", "bn1", "backbone/stem"),
        *_torch(r"blocks\.0\.0\.conv_dw", r"blocks\.0\.0\.bn1", "backbone/blocks/0/depthwise"),
        *_torch(r"blocks\.0\.0\.conv_pw", r"blocks\.0\.0\.bn2", "backbone/blocks/0/project"),
    ]
    n = 1
    for stage, (_, _, depth, _) in enumerate(_STAGES[1:], start=1):
        for i in range(depth):
            layer, path = rf"blocks\.{stage}\.{i}\.", f"backbone/blocks/{n}"
            rules += _torch(layer + "conv_pw", layer + "bn1", f"{path}/expand")
            rules += _torch(layer + "conv_dw", layer + "bn2", f"{path}/depthwise")
            rules += _torch(layer + "conv_pwl", layer + "bn3", f"{path}/project")
            n += 1
    rules += _torch("conv_head", "bn2", "backbone/last")
    return (*rules, (r"classifier\.weight", "head/logits/kernel", linear), (r"classifier\.bias", "head/logits/bias", same))


def _torchvision() -> tuple[Rule, ...]:
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
    "timm": _timm(),
    "torchvision": _torchvision(),
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
