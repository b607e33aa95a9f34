"""ResNets for photographs: He et al., 2016 (https://arxiv.org/abs/1512.03385), table 1; by default version 1.5, as in torchvision.

Version 1.5 has the stride of a bottleneck in its 3x3 convolution, the paper and Keras in the first 1x1.

Parameter paths: `stem/{conv,bn}`, `stage1/0/{conv1,bn1,conv2,bn2,conv3,bn3}`, `stage1/0/downsample/{conv,bn}`; torchvision's
`layer1.0.conv1`, `layer1.0.downsample.0` are the same in other words.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.weights.conversion import CAFFE_MEAN, CAFFE_STD, Rule, Weights, batch_norm, bgr, conv, keras_batch_norm, linear, same


class ConvNorm(nnx.Module):
    """A convolution and its batch normalisation: `conv`, `bn`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int,
        *,
        stride: int = 1,
        conv_bias: bool = False,
        norm: Mapping[str, Any] = MappingProxyType({}),
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options = {"stride": stride, "use_bias": conv_bias, "kernel_init": HE_NORMAL_FAN_OUT, "dtype": dtype, "rngs": rngs}
        self.conv = layers.Conv(in_features, out_features, kernel, **options)
        self.bn = layers.BatchNorm(out_features, **norm, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return self.bn(self.conv(x), train=train)


class Block(nnx.Module):
    """A residual block: convolutions of the given (kernel, width, stride), each normalised, all but the last followed by ReLU.

    Where the size or the width changes, the shortcut is a normalised 1x1 convolution, `downsample` (option B of the paper), or,
    with `pad_shortcut`, every second pixel with zero channels on both sides (option A), which has no parameters.
    """

    def __init__(
        self,
        in_features: int,
        convs: tuple[tuple[int, int, int], ...],
        *,
        zero_init_last: bool = False,
        pad_shortcut: bool = False,
        conv_bias: bool = False,
        norm: Mapping[str, Any] = MappingProxyType({}),
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.convs = len(convs)
        features, stride = in_features, 1
        for i, (kernel, width, conv_stride) in enumerate(convs, start=1):
            options = {"stride": conv_stride, "use_bias": conv_bias, "kernel_init": HE_NORMAL_FAN_OUT, "dtype": dtype, "rngs": rngs}
            setattr(self, f"conv{i}", layers.Conv(features, width, kernel, **options))
            setattr(self, f"bn{i}", layers.BatchNorm(width, **norm, zero_scale=zero_init_last and i == len(convs), rngs=rngs))
            features, stride = width, stride * conv_stride
        changes = stride > 1 or features != in_features
        self.padded = (stride, features - in_features) if changes and pad_shortcut else None
        self.projects = changes and not pad_shortcut
        if self.projects:
            self.downsample = ConvNorm(in_features, features, 1, stride=stride, conv_bias=conv_bias, norm=norm, dtype=dtype, rngs=rngs)

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        if self.projects:
            return self.downsample(x, train=train)
        if self.padded:
            stride, added = self.padded
            return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
        return x

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        shortcut = self._shortcut(x, train)
        for i in range(1, self.convs + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x), train=train)
            if i < self.convs:
                x = jax.nn.relu(x)
        return jax.nn.relu(x + shortcut)


class Stage(nnx.Module):
    """Blocks in a row, named `0`, `1`, …"""

    def __init__(self, blocks: list[nnx.Module]):
        self.blocks = len(blocks)
        for i, block in enumerate(blocks):
            setattr(self, str(i), block)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.blocks):
            x = getattr(self, str(i))(x, train=train)
        return x


class ResNet(Backbone):
    """Stem (7x7/2, max-pool 3x3/2) and four stages of basic or bottleneck blocks.

    `zero_init_last` starts the last scale of each block at 0, so that blocks begin as identities (Goyal et al., 2017, section 5.1;
    the default of flax's ImageNet example and of timm, not of torchvision). Keras's variant has `stride_first` (version 1),
    `conv_bias` (in spite of the norms) and another `epsilon`; `momentum` and `unbiased` are those of layers.BatchNorm.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        *,
        bottleneck: bool,
        width: int = 64,
        zero_init_last: bool = True,
        stride_first: bool = False,
        conv_bias: bool = False,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        unbiased: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        norm = {"epsilon": epsilon, "momentum": momentum, "unbiased": unbiased}
        options = {"conv_bias": conv_bias, "norm": norm, "dtype": dtype, "rngs": rngs}
        self.stem = ConvNorm(3, width, 7, stride=2, **options)
        features = width
        for i, depth in enumerate(depths):
            planes, blocks = width * 2**i, []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                first, second = (stride, 1) if stride_first or not bottleneck else (1, stride)
                convs = (
                    ((1, planes, first), (3, planes, second), (1, 4 * planes, 1)) if bottleneck else ((3, planes, first), (3, planes, 1))
                )
                blocks.append(Block(features, convs, zero_init_last=zero_init_last, **options))
                features = convs[-1][1]
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


def resnet18(**options: Any) -> ResNet:
    return ResNet((2, 2, 2, 2), bottleneck=False, **options)


def resnet34(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), bottleneck=False, **options)


def resnet50(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), bottleneck=True, **options)


def resnet101(**options: Any) -> ResNet:
    return ResNet((3, 4, 23, 3), bottleneck=True, **options)


def resnet152(**options: Any) -> ResNet:
    return ResNet((3, 8, 36, 3), bottleneck=True, **options)


def resnet_tiny(**options: Any) -> ResNet:
    """One bottleneck a stage, an eighth of the width: for tests."""
    return ResNet((1, 1, 1, 1), bottleneck=True, width=8, **options)


MODELS = {
    "resnet18": Model(resnet18, 11_689_512),
    "resnet34": Model(resnet34, 21_797_672),
    "resnet50": Model(resnet50, 25_557_032),
    "resnet101": Model(resnet101, 44_549_160),
    "resnet152": Model(resnet152, 60_192_808),
    "resnet_tiny": Model(resnet_tiny),
}

_KERAS = {"stride_first": True, "conv_bias": True, "epsilon": 1.001e-5, "momentum": 0.99, "unbiased": False}
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


def _timm(depth: int, recipe: str, licence: str, top1: float | None = None) -> Weights:
    name = f"timm/resnet{depth}.{recipe}_in1k"
    return Weights(name, f"resnet{depth}", "timm", repo=name, top1=top1, licence=licence)


def _keras(depth: int, top1: float) -> Weights:
    file = f"resnet{depth}_weights_tf_dim_ordering_tf_kernels.h5"
    options = {"variant": _KERAS, "mean": CAFFE_MEAN, "std": CAFFE_STD}
    return Weights(f"keras/resnet{depth}", f"resnet{depth}", "keras", **options, file=file, top1=top1, source=_KERAS_URL + file)


# top-1 of the tv weights: torchvision's; of a1: timm's results table; of Keras's: https://keras.io/api/applications/
WEIGHTS: tuple[Weights, ...] = (
    _timm(18, "tv", "bsd-3-clause", 69.758),
    _timm(18, "a1", "apache-2.0"),
    _timm(34, "tv", "bsd-3-clause", 73.314),
    _timm(34, "a1", "apache-2.0"),
    _timm(50, "tv", "bsd-3-clause", 76.13),
    _timm(50, "a1", "apache-2.0", 80.38),
    _timm(101, "tv", "bsd-3-clause", 77.374),
    _timm(101, "a1", "apache-2.0"),
    _timm(152, "tv", "bsd-3-clause", 78.312),
    _timm(152, "a1", "apache-2.0"),
    _keras(50, 74.9),
    _keras(101, 76.4),
    _keras(152, 76.6),
)


def _torch_rules() -> tuple[Rule, ...]:
    """Names of torchvision and timm, which are the same."""
    block, path = r"layer(\d)\.(\d+)\.", r"backbone/stage\1/\2/"
    return (
        (r"conv1\.weight", "backbone/stem/conv/kernel", conv),
        *batch_norm("bn1", "backbone/stem/bn"),
        (block + r"conv(\d)\.weight", path + r"conv\3/kernel", conv),
        *batch_norm(block + r"bn(\d)", path + r"bn\3"),
        (block + r"downsample\.0\.weight", path + "downsample/conv/kernel", conv),
        *batch_norm(block + r"downsample\.1", path + "downsample/bn"),
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


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _torch_rules(), "torchvision": _torch_rules(), "keras": _keras_rules()}
