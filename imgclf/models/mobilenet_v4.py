"""MobileNetV4 of convolutions alone, small and medium: Qin et al., 2024 (https://arxiv.org/abs/2404.10518), section 3.1, tables 11 and 12.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{conv,bn}` (a convolution), `blocks/4/{start,expand,depthwise,project}/{conv,bn}` (a universal
inverted bottleneck, of which `start` and `depthwise` are optional), …, `last/{conv,bn}`. The published head is `head/{hidden,bn,logits}`.

As in MobileNetV3 (see there), the layer of 1,280 units after the average over the maps is part of the head, and features are the 960
averaged channels of the last convolution.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvBuilder, ConvNorm, DepthwiseBuilder, NormBuilder, Stage
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.mobilenet_v3 import MobileNetHead
from imgclf.models.weights.conversion import HALF, Rule, Weights, batch_norm, conv, linear, pointwise, same


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution and its normalisation; ReLU unless it ends a fused inverted bottleneck."""

    kernel: int
    features: int
    stride: int = 1
    activates: bool = True


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """A universal inverted bottleneck; `start` and `middle` are the kernels of its depthwise convolutions, 0 = there is none.

    With both, the paper calls it ExtraDW; with `middle` alone, inverted bottleneck; with `start` alone, ConvNeXt; with neither, FFN.
    """

    start: int
    middle: int
    expansion: int
    features: int
    stride: int = 1  # of the depthwise convolution in the middle


# Stages by the size of their maps, from a quarter of the image on: timm's files are numbered by them.
_SMALL: tuple[tuple[Conv | Bottleneck, ...], ...] = (
    (Conv(3, 32, 2), Conv(1, 32)),
    (Conv(3, 96, 2), Conv(1, 64)),
    (Bottleneck(5, 5, 3, 96, 2), *[Bottleneck(0, 3, 2, 96)] * 4, Bottleneck(3, 0, 4, 96)),
    (
        Bottleneck(3, 3, 6, 128, 2),
        Bottleneck(5, 5, 4, 128),
        Bottleneck(0, 5, 4, 128),
        Bottleneck(0, 5, 3, 128),
        *[Bottleneck(0, 3, 4, 128)] * 2,
    ),
)
_MEDIUM: tuple[tuple[Conv | Bottleneck, ...], ...] = (
    (Conv(3, 128, 2), Conv(1, 48, activates=False)),  # a fused inverted bottleneck
    (Bottleneck(3, 5, 4, 80, 2), Bottleneck(3, 3, 2, 80)),
    (
        Bottleneck(3, 5, 6, 160, 2),
        *[Bottleneck(3, 3, 4, 160)] * 2,
        Bottleneck(3, 5, 4, 160),
        Bottleneck(3, 3, 4, 160),
        Bottleneck(3, 0, 4, 160),
        Bottleneck(0, 0, 2, 160),
        Bottleneck(3, 0, 4, 160),
    ),
    (
        Bottleneck(5, 5, 6, 256, 2),
        Bottleneck(5, 5, 4, 256),
        *[Bottleneck(3, 5, 4, 256)] * 2,
        Bottleneck(0, 0, 4, 256),
        Bottleneck(3, 0, 4, 256),
        Bottleneck(3, 5, 2, 256),
        Bottleneck(5, 5, 4, 256),
        *[Bottleneck(0, 0, 4, 256)] * 2,
        Bottleneck(5, 0, 2, 256),
    ),
)
_LAST = 960


class ConvBlock(ConvNorm):
    """A convolution, its normalisation, and ReLU if it `activates`."""

    def __init__(self, conv: layers.Conv, norm: layers.BatchNorm, *, activates: bool):
        super().__init__(conv, norm)
        self.activates = activates

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = super().__call__(x, train=train)
        return jax.nn.relu(y) if self.activates else y


class UniversalInvertedBottleneck(nnx.Module):
    """Depthwise (no activation), expand (1x1), depthwise, project (1x1, no activation); a shortcut where the shape stays."""

    def __init__(self, in_features: int, shape: Bottleneck, *, conv: ConvBuilder, depthwise: DepthwiseBuilder, norm: NormBuilder):
        width = in_features * shape.expansion
        self.starts, self.spreads = shape.start > 0, shape.middle > 0
        if self.starts:
            stride = 1 if self.spreads else shape.stride
            self.start = ConvNorm(depthwise(in_features, kernel=shape.start, stride=stride), norm(in_features))
        self.expand = ConvNorm(conv(in_features, width, 1), norm(width))
        if self.spreads:
            self.depthwise = ConvNorm(depthwise(width, kernel=shape.middle, stride=shape.stride), norm(width))
        self.project = ConvNorm(conv(width, shape.features, 1), norm(shape.features))
        self.residual = shape.stride == 1 and in_features == shape.features

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = self.start(x, train=train) if self.starts else x
        y = jax.nn.relu(self.expand(y, train=train))
        y = jax.nn.relu(self.depthwise(y, train=train)) if self.spreads else y
        y = self.project(y, train=train)
        return x + y if self.residual else y


class MobileNetV4(Backbone):
    """Stem (3x3/2), stages of blocks, and a 1x1 convolution to `last` channels; ReLU throughout; `norm` are options of normalisation."""

    def __init__(
        self,
        stages: Sequence[Sequence[Conv | Bottleneck]],
        *,
        stem: int = 32,
        last: int = _LAST,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        make_conv = functools.partial(layers.Conv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        make_depthwise = functools.partial(layers.DepthwiseConv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)

        def make(in_features: int, shape: Conv | Bottleneck) -> nnx.Module:
            if isinstance(shape, Bottleneck):
                return UniversalInvertedBottleneck(in_features, shape, conv=make_conv, depthwise=make_depthwise, norm=make_norm)
            convolution = make_conv(in_features, shape.features, shape.kernel, stride=shape.stride)
            return ConvBlock(convolution, make_norm(shape.features), activates=shape.activates)

        shapes = [shape for stage in stages for shape in stage]
        widths = [stem, *(shape.features for shape in shapes)]
        self.stem = ConvNorm(make_conv(3, stem, 3, stride=2), make_norm(stem))
        self.blocks = Stage([make(width, shape) for width, shape in zip(widths, shapes, strict=False)])
        self.last = ConvNorm(make_conv(widths[-1], last, 1), make_norm(last))
        self.features = last
        self.halvings = 1 + sum(shape.stride == 2 for shape in shapes)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: half of it for each stride of 2, rounded up."""
        return -(-height // 2**self.halvings), -(-width // 2**self.halvings)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.relu(self.stem(image, train=train))
        x = self.blocks(x, train=train)
        return jax.nn.relu(self.last(x, train=train))


HEAD = functools.partial(MobileNetHead, activation=jax.nn.relu, norm=True)


def mobilenet_v4_conv_small(**options: Any) -> MobileNetV4:
    return MobileNetV4(_SMALL, **options)


def mobilenet_v4_conv_medium(**options: Any) -> MobileNetV4:
    return MobileNetV4(_MEDIUM, **options)


def mobilenet_v4_tiny(**options: Any) -> MobileNetV4:
    """A convolution and the four kinds of bottleneck, of few channels: for tests."""
    bottlenecks = Bottleneck(3, 5, 2, 16, 2), Bottleneck(0, 3, 2, 16), Bottleneck(3, 0, 2, 16), Bottleneck(0, 0, 2, 16)
    return MobileNetV4(((Conv(3, 16, 2), Conv(1, 8, activates=False)), bottlenecks), stem=8, last=48, **options)


MODELS = {
    "mobilenet_v4_conv_small": Model(mobilenet_v4_conv_small, 3_774_024),
    "mobilenet_v4_conv_medium": Model(mobilenet_v4_conv_medium, 9_715_512),
    "mobilenet_v4_tiny": Model(mobilenet_v4_tiny),
}

_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(size: str, recipe: str, side: int, crop_fraction: float, *figures: float, **options: Any) -> Weights:
    """`figures` are top-1 and the multiply-adds of timm's benchmark tables."""
    name, (top1, gmacs) = f"timm/mobilenetv4_conv_{size}.{recipe}", figures
    return Weights(
        name,
        f"mobilenet_v4_conv_{size}",
        f"timm_{size}",
        (side, side),
        crop_fraction=crop_fraction,
        interpolation="bicubic",
        **options,
        repo=name,
        top1=top1,
        gmacs=gmacs,
        soft_labels=True,
        licence="apache-2.0",
        source=_RESULTS,
    )


WEIGHTS: tuple[Weights, ...] = (
    _timm("small", "e2400_r224_in1k", 224, 0.875, 73.756, 0.19),
    _timm("small", "e1200_r224_in1k", 224, 0.875, 73.450, 0.19),
    _timm("small", "e3600_r256_in1k", 256, 0.95, 74.534, 0.25, mean=HALF, std=HALF),
    _timm("medium", "e500_r224_in1k", 224, 0.95, 79.092, 0.84),
    _timm("medium", "e500_r256_in1k", 256, 0.95, 79.916, 1.1),
    _timm("medium", "e250_r384_in12k_ft_in1k", 384, 0.95, 82.776, 2.46),
)


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _block_rules(stage: int, i: int, shape: Conv | Bottleneck, path: str) -> tuple[Rule, ...]:
    layer = rf"blocks\.{stage}\.{i}\."
    if isinstance(shape, Conv):
        return _torch(layer + "conv", layer + "bn1", path)
    names = {"dw_start": "start", "pw_exp": "expand", "dw_mid": "depthwise", "pw_proj": "project"}
    return tuple(rule for name, part in names.items() for rule in _torch(rf"{layer}{name}\.conv", rf"{layer}{name}\.bn", f"{path}/{part}"))


def _timm_rules(stages: Sequence[Sequence[Conv | Bottleneck]]) -> tuple[Rule, ...]:
    rules, n = [*_torch("conv_stem", "bn1", "backbone/stem")], 0
    for stage, shapes in enumerate(stages):
        fused = any(isinstance(shape, Conv) and not shape.activates for shape in shapes)
        for i, shape in enumerate(shapes):
            if fused:  # the two convolutions of a fused inverted bottleneck are one block
                layer = rf"blocks\.{stage}\.0\."
                rules += _torch(layer + ("conv_exp", "conv_pwl")[i], f"{layer}bn{i + 1}", f"backbone/blocks/{n}")
            else:
                rules += _block_rules(stage, i, shape, f"backbone/blocks/{n}")
            n += 1
    last = rf"blocks\.{len(stages)}\.0\."
    rules += _torch(last + "conv", last + "bn1", "backbone/last")
    rules += [(r"conv_head\.weight", "head/hidden/kernel", pointwise), *batch_norm("norm_head", "head/bn")]
    return (*rules, (r"classifier\.weight", "head/logits/kernel", linear), (r"classifier\.bias", "head/logits/bias", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm_small": _timm_rules(_SMALL), "timm_medium": _timm_rules(_MEDIUM)}
