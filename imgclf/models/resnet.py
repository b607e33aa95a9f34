"""ResNets for photographs, version 1.5: the stride of a bottleneck stands in its 3x3 convolution, as in torchvision.

He et al., 2016 (https://arxiv.org/abs/1512.03385), table 1. Parameter paths: `stem/{conv,bn}`, `stage1/0/{conv1,bn1,conv2,bn2,
conv3,bn3}`, `stage1/0/downsample/{conv,bn}`; torchvision's `layer1.0.conv1`, `layer1.0.downsample.0` are the same in other words.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.initializers import HE_NORMAL_FAN_OUT


class ConvNorm(nnx.Module):
    """A convolution and its batch normalisation: `conv`, `bn`."""

    def __init__(self, in_features: int, out_features: int, kernel: int, *, stride: int = 1, dtype: Any, rngs: nnx.Rngs):
        self.conv = layers.Conv(in_features, out_features, kernel, stride=stride, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        self.bn = layers.BatchNorm(out_features, rngs=rngs)

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
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.convs = len(convs)
        features, stride = in_features, 1
        for i, (kernel, width, conv_stride) in enumerate(convs, start=1):
            conv = layers.Conv(features, width, kernel, stride=conv_stride, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", layers.BatchNorm(width, zero_scale=zero_init_last and i == len(convs), rngs=rngs))
            features, stride = width, stride * conv_stride
        changes = stride > 1 or features != in_features
        self.padded = (stride, features - in_features) if changes and pad_shortcut else None
        self.projects = changes and not pad_shortcut
        if self.projects:
            self.downsample = ConvNorm(in_features, features, 1, stride=stride, dtype=dtype, rngs=rngs)

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


class ResNet(nnx.Module):
    """Stem (7x7/2, max-pool 3x3/2) and four stages of basic or bottleneck blocks.

    `zero_init_last` starts the last scale of each block at 0, so that blocks begin as identities (Goyal et al., 2017, section 5.1;
    the default of flax's ImageNet example and of timm, not of torchvision).
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        *,
        bottleneck: bool,
        width: int = 64,
        zero_init_last: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(3, width, 7, stride=2, dtype=dtype, rngs=rngs)
        features = width
        for i, depth in enumerate(depths):
            planes, blocks = width * 2**i, []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                convs = ((1, planes, 1), (3, planes, stride), (1, 4 * planes, 1)) if bottleneck else ((3, planes, stride), (3, planes, 1))
                blocks.append(Block(features, convs, zero_init_last=zero_init_last, dtype=dtype, rngs=rngs))
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
