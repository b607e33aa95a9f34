"""ResNets for photographs: He et al., 2016 (https://arxiv.org/abs/1512.03385), table 1; by default version 1.5, as in torchvision.

Version 1.5 has the stride of a bottleneck in its 3x3 convolution, the paper and Keras in the first 1x1. ResNet-D (He et al., 2019,
https://arxiv.org/abs/1812.01187, section 4.1) has three 3x3 convolutions for the stem's 7x7, and pools in shortcuts.

Parameter paths: `stem/{conv,bn}` (of ResNet-D `stem/0/{conv,bn}` to `stem/2`), `stage1/0/{conv1,bn1,conv2,bn2,conv3,bn3}`,
`stage1/0/downsample/{conv,bn}`; torchvision's `layer1.0.conv1`, `layer1.0.downsample.0` are the same in other words.
"""

import functools
from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvBuilder, ConvNorm, ConvShape, NormBuilder, ResidualBlock, Stage, bottleneck
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.weights.conversion import (
    CAFFE_MEAN,
    CAFFE_STD,
    HALF,
    Rule,
    Weights,
    batch_norm,
    bgr,
    conv,
    keras_batch_norm,
    linear,
    same,
)


class DeepStem(Stage):
    """ResNet-D's stem: 3x3 convolutions of half the width, of which the first has stride 2, and one of the whole."""

    def __init__(self, width: int, *, conv: ConvBuilder, norm: NormBuilder):
        widths = (3, width // 2, width // 2, width)
        shapes = zip(widths, widths[1:], (2, 1, 1), strict=False)
        super().__init__([ConvNorm(conv(inputs, outputs, 3, stride=stride), norm(outputs)) for inputs, outputs, stride in shapes])

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.blocks - 1):
            x = jax.nn.relu(getattr(self, str(i))(x, train=train))
        return getattr(self, str(self.blocks - 1))(x, train=train)


class ResNet(Backbone):
    """Stem (7x7/2, max-pool 3x3/2) and stages of residual blocks.

    Args:
      depths: blocks of each stage.
      convs: the convolutions of a block, given its stage, from 0, and its stride.
      width: channels of the stem.
      variant_d: whether it is a ResNet-D.
      zero_init_last: whether the last scale of each block starts at 0, so that blocks begin as identities (Goyal et al., 2017, section
        5.1; the default of flax's ImageNet example and of timm, not of torchvision).
      conv_bias: whether convolutions have biases in spite of the normalisation, as Keras's have.
      norm: options of batch normalisation.
    """

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        depths: tuple[int, ...],
        convs: Callable[[int, int], tuple[ConvShape, ...]],
        *,
        width: int = 64,
        variant_d: bool = False,
        zero_init_last: bool = True,
        conv_bias: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        make_conv = functools.partial(layers.Conv, use_bias=conv_bias, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        make_block = functools.partial(
            ResidualBlock, conv=make_conv, norm=make_norm, zero_init_last=zero_init_last, shortcut="pool" if variant_d else "project"
        )
        self.stem: nnx.Module
        if variant_d:
            self.stem = DeepStem(width, conv=make_conv, norm=make_norm)
        else:
            self.stem = ConvNorm(make_conv(3, width, 7, stride=2), make_norm(width))
        features = width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                shapes = convs(i, 2 if i > 0 and j == 0 else 1)
                blocks.append(make_block(features, shapes))
                features = shapes[-1].features
            setattr(self, f"stage{i + 1}", Stage(blocks))
        self.stages = len(depths)
        self.features = features

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a 32nd, rounded up."""
        return -(-height // 32), -(-width // 32)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = layers.max_pool(jax.nn.relu(self.stem(image, train=train)), 3, 2, padding=1)
        for i in range(1, self.stages + 1):
            x = getattr(self, f"stage{i}")(x, train=train)
        return x


def _basic(*depths: int, **options: Any) -> ResNet:
    """A network of basic blocks: two 3x3 convolutions."""

    def convs(stage: int, stride: int) -> tuple[ConvShape, ...]:
        return ConvShape(3, 64 * 2**stage, stride), ConvShape(3, 64 * 2**stage)

    return ResNet(depths, convs, **options)


def _bottlenecks(*depths: int, width: int = 64, stride_first: bool = False, **options: Any) -> ResNet:
    """A network of bottlenecks; `stride_first` has the stride in the first 1x1 convolution (version 1) instead of the 3x3 one."""

    def convs(stage: int, stride: int) -> tuple[ConvShape, ...]:
        planes = width * 2**stage
        return bottleneck(planes, 4 * planes, strides=(stride, 1) if stride_first else (1, stride))

    return ResNet(depths, convs, width=width, **options)


def resnet18(**options: Any) -> ResNet:
    return _basic(2, 2, 2, 2, **options)


def resnet34(**options: Any) -> ResNet:
    return _basic(3, 4, 6, 3, **options)


def resnet50(**options: Any) -> ResNet:
    return _bottlenecks(3, 4, 6, 3, **options)


def resnet101(**options: Any) -> ResNet:
    return _bottlenecks(3, 4, 23, 3, **options)


def resnet152(**options: Any) -> ResNet:
    return _bottlenecks(3, 8, 36, 3, **options)


def resnet_tiny(**options: Any) -> ResNet:
    """One bottleneck a stage, an eighth of the width: for tests."""
    return _bottlenecks(1, 1, 1, 1, width=8, **options)


MODELS = {
    "resnet18": Model(resnet18, 11_689_512),
    "resnet34": Model(resnet34, 21_797_672),
    "resnet50": Model(resnet50, 25_557_032),
    "resnet101": Model(resnet101, 44_549_160),
    "resnet152": Model(resnet152, 60_192_808),
    "resnet18d": Model(functools.partial(resnet18, variant_d=True), 11_708_744),
    "resnet34d": Model(functools.partial(resnet34, variant_d=True), 21_816_904),
    "resnet50d": Model(functools.partial(resnet50, variant_d=True), 25_576_264),
    "resnet_d_tiny": Model(functools.partial(resnet_tiny, variant_d=True)),
    "resnet_tiny": Model(resnet_tiny),
}

_KERAS = {"stride_first": True, "conv_bias": True, "epsilon": 1.001e-5, "momentum": 0.99, "unbiased": False}
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
_GMACS = {18: 1.82, 34: 3.67, 50: 4.11, 101: 7.83, 152: 11.56}  # timm's benchmark tables, at 224x224
_KERAS_GMACS = {50: 3.8, 101: 7.6, 152: 11.3}  # version 1: He et al., table 1


def _tv(depth: int, top1: float) -> Weights:
    """Torchvision's first weights, by its own recipe of 2017: 90 epochs with crops and flips."""
    name = f"timm/resnet{depth}.tv_in1k"
    return Weights(name, f"resnet{depth}", "timm", repo=name, top1=top1, gmacs=_GMACS[depth], licence="bsd-3-clause", source=_RESULTS)


def _a1(depth: int, top1: float) -> Weights:
    """Recipe A1 of Wightman et al., 2021 (https://arxiv.org/abs/2110.00476): 600 epochs with MixUp, CutMix and a binary loss.

    timm also evaluates these at 288 pixels without a crop, where they are 0.8 to 1.7 points better.
    """
    name, model = f"timm/resnet{depth}.a1_in1k", f"resnet{depth}"
    options: dict[str, Any] = {"crop_fraction": 0.95, "interpolation": "bicubic", "soft_labels": True}
    return Weights(name, model, "timm", **options, repo=name, top1=top1, gmacs=_GMACS[depth], licence="apache-2.0", source=_RESULTS)


def _d(depth: int, recipe: str, top1: float, gmacs: float, **options: Any) -> Weights:
    name, model = f"timm/resnet{depth}d.{recipe}_in1k", f"resnet{depth}d"
    defaults: dict[str, Any] = {"interpolation": "bicubic", "soft_labels": True, "licence": "apache-2.0", "source": _RESULTS}
    return Weights(name, model, "timm_d", repo=name, top1=top1, gmacs=gmacs, **(defaults | options))


def _keras(depth: int, top1: float) -> Weights:
    file = f"resnet{depth}_weights_tf_dim_ordering_tf_kernels.h5"
    return Weights(
        f"keras/resnet{depth}",
        f"resnet{depth}",
        "keras",
        variant=_KERAS,
        mean=CAFFE_MEAN,
        std=CAFFE_STD,
        file=file,
        top1=top1,
        gmacs=_KERAS_GMACS[depth],
        source=_KERAS_URL + file,
    )


# top-1 of the tv weights: torchvision's own; of a1: timm's table; of Keras's: https://keras.io/api/applications/
WEIGHTS: tuple[Weights, ...] = (
    _tv(18, 69.758),
    _a1(18, 71.504),
    _tv(34, 73.314),
    _a1(34, 76.42),
    _tv(50, 76.13),
    _a1(50, 80.38),
    _tv(101, 77.374),
    _a1(101, 81.494),
    _tv(152, 78.312),
    _a1(152, 81.998),
    _d(18, "ra2", 72.296, 2.06),
    _d(18, "ra4_e3600_r224", 74.356, 2.06, crop_fraction=0.9, mean=HALF, std=HALF),
    _d(34, "ra2", 77.108, 3.91),
    _d(50, "ra2", 80.546, 4.35),
    _d(50, "a1", 80.730, 4.35, crop_fraction=0.95),
    _d(50, "ra4_e3600_r224", 80.956, 4.35, crop_fraction=0.95, mean=HALF, std=HALF),
    _keras(50, 74.9),
    _keras(101, 76.4),
    _keras(152, 76.6),
)


def _stem_rules(variant_d: bool) -> list[Rule]:
    if not variant_d:
        return [(r"conv1\.weight", "backbone/stem/conv/kernel", conv), *batch_norm("bn1", "backbone/stem/bn")]
    rules: list[Rule] = []
    for i, norm in enumerate((r"conv1\.1", r"conv1\.4", "bn1")):  # convolutions, normalisations and ReLUs are counted together
        rules += [(rf"conv1\.{3 * i}\.weight", f"backbone/stem/{i}/conv/kernel", conv), *batch_norm(norm, f"backbone/stem/{i}/bn")]
    return rules


def _torch_rules(*, variant_d: bool = False) -> tuple[Rule, ...]:
    """Names of torchvision and timm, which are the same; ResNet-D's are timm's."""
    block, path = r"layer(\d)\.(\d+)\.", r"backbone/stage\1/\2/"
    pools = int(variant_d)  # the pooling, or what stands in its place at stride 1, is counted too
    return (
        *_stem_rules(variant_d),
        (block + r"conv(\d)\.weight", path + r"conv\3/kernel", conv),
        *batch_norm(block + r"bn(\d)", path + r"bn\3"),
        (block + rf"downsample\.{pools}\.weight", path + "downsample/conv/kernel", conv),
        *batch_norm(block + rf"downsample\.{pools + 1}", path + "downsample/bn"),
        (r"fc\.weight", "head/logits/kernel", linear),
        (r"fc\.bias", "head/logits/bias", same),
    )


def _keras_rules() -> tuple[Rule, ...]:
    rules: list[Rule] = [
        ("conv1_conv/kernel", "backbone/stem/conv/kernel", bgr),
        ("conv1_conv/bias", "backbone/stem/conv/bias", same),
        *keras_batch_norm("conv1_bn", "backbone/stem/bn"),
    ]
    for stage in range(1, 5):
        for block in range(1, 37):
            layer, path = f"conv{stage + 1}_block{block}_", f"backbone/stage{stage}/{block - 1}/"
            rules += [
                (layer + "0_conv/(kernel|bias)", path + r"downsample/conv/\1", same),
                *keras_batch_norm(layer + "0_bn", path + "downsample/bn"),
                (layer + r"(\d)_conv/(kernel|bias)", path + r"conv\1/\2", same),
                *keras_batch_norm(layer + r"(\d)_bn", path + r"bn\1"),
            ]
    return (*rules, ("(?:predictions|probs)/(kernel|bias)", r"head/logits/\1", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {
    "timm": _torch_rules(),
    "timm_d": _torch_rules(variant_d=True),
    "torchvision": _torch_rules(),
    "keras": _keras_rules(),
}
