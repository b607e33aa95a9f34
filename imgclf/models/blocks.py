"""Blocks that several families are built of.

Blocks take the builders of their layers, `conv` and `norm`, with the options that all layers of a network share already bound by
`functools.partial`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone
from imgclf.models.heads import average
from imgclf.models.initializers import HE_NORMAL_FAN_OUT, Initializer

ConvBuilder = Callable[..., layers.Conv]  # called with (in_features, features, kernel, stride=, groups=)
NormBuilder = Callable[..., layers.BatchNorm]  # called with (features, zero_scale=)
DepthwiseBuilder = Callable[..., layers.DepthwiseConv]  # called with (features, stride=)
Activation = Callable[[jax.Array], jax.Array]
Shortcut = Literal["project", "pool", "pad"]


class ConvNorm(nnx.Module):
    """A convolution, plain or depthwise, and its batch normalisation: `conv`, `bn`."""

    def __init__(self, conv: layers.Conv | layers.DepthwiseConv, norm: layers.BatchNorm):
        self.conv = conv
        self.bn = norm

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return self.bn(self.conv(x), train=train)


class Stage(nnx.Module):
    """Blocks one after another, named `0`, `1`, …"""

    def __init__(self, blocks: Sequence[nnx.Module]):
        self.blocks = len(blocks)
        for i, block in enumerate(blocks):
            setattr(self, str(i), block)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(self.blocks):
            x = getattr(self, str(i))(x, train=train)
        return x


@dataclasses.dataclass(frozen=True)
class ConvShape:
    """One convolution of a residual block."""

    kernel: int
    features: int
    stride: int = 1
    groups: int = 1


def bottleneck(width: int, features: int, *, strides: tuple[int, int] = (1, 1), groups: int = 1) -> tuple[ConvShape, ...]:
    """Convolutions of 1x1 to `width` channels, 3x3, and 1x1 to `features`; `strides` of the first two."""
    return ConvShape(1, width, strides[0]), ConvShape(3, width, strides[1], groups), ConvShape(1, features)


class SqueezeExcite(nnx.Module):
    """Scales each channel by a gate of two dense layers on the average of all (Hu et al., 2018): `reduce`, `expand`.

    `activation` follows the first of them, of `width` units, `gate` the second.
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        activation: Activation = jax.nn.silu,
        gate: Activation = jax.nn.sigmoid,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.activation, self.gate = activation, gate
        init = HE_NORMAL_FAN_OUT
        self.reduce = layers.Dense(features, width, kernel_init=init, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)
        self.expand = layers.Dense(width, features, kernel_init=init, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.gate(self.expand(self.activation(self.reduce(average(x)))))
        return x * gate[:, None, None].astype(x.dtype)


class ResidualBlock(nnx.Module):
    """Convolutions `conv1`, `conv2`, … with normalisations `bn1`, …, all but the last followed by ReLU; plus the shortcut, then ReLU.

    Where the size or the number of channels changes, the shortcut is, by `shortcut`,

    - "project": a normalised 1x1 convolution, `downsample` (option B of He et al., 2016);
    - "pool": the same at stride 1, after averages of 2x2 pixels (ResNet-D of He et al., 2019, https://arxiv.org/abs/1812.01187, figure 2);
    - "pad": every second pixel with zero channels on both sides, which has no parameters (option A).

    `zero_init_last` starts the scale of the last normalisation at 0. `squeeze_excite` builds such a layer, `se`, before the last
    convolution; it is called with the channels there.
    """

    def __init__(
        self,
        in_features: int,
        convs: Sequence[ConvShape],
        *,
        conv: ConvBuilder,
        norm: NormBuilder,
        zero_init_last: bool = False,
        shortcut: Shortcut = "project",
        squeeze_excite: Callable[[int], SqueezeExcite] | None = None,
    ):
        self.convs = len(convs)
        features, stride = in_features, 1
        for i, shape in enumerate(convs, start=1):
            setattr(self, f"conv{i}", conv(features, shape.features, shape.kernel, stride=shape.stride, groups=shape.groups))
            setattr(self, f"bn{i}", norm(shape.features, zero_scale=zero_init_last and i == len(convs)))
            features, stride = shape.features, stride * shape.stride
        changes = stride > 1 or features != in_features
        self.padded = (stride, features - in_features) if changes and shortcut == "pad" else None
        self.projects, self.pools = changes and shortcut != "pad", shortcut == "pool" and stride > 1
        if self.projects:
            self.downsample = ConvNorm(conv(in_features, features, 1, stride=1 if self.pools else stride), norm(features))
        self.squeezes = squeeze_excite is not None
        if squeeze_excite is not None:
            self.se = squeeze_excite(convs[-2].features)

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        if self.projects:
            return self.downsample(layers.average_pool_2x2(x) if self.pools else x, train=train)
        if self.padded:
            stride, added = self.padded
            fewer = slice(None, None, stride)
            return jnp.pad(layers.part(x, fewer, fewer), ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
        return x

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        shortcut = self._shortcut(x, train)
        for i in range(1, self.convs + 1):
            x = self.se(x) if self.squeezes and i == self.convs else x
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x), train=train)
            if i < self.convs:
                x = jax.nn.relu(x)
        return jax.nn.relu(x + shortcut)


class InvertedResidual(nnx.Module):
    """Expand (1x1), depthwise, squeeze-and-excitation if asked for, project (1x1, no activation); a shortcut where the shape stays.

    Sandler et al., 2018 (https://arxiv.org/abs/1801.04381), and, with squeeze-and-excitation, MBConv of EfficientNet. Parameter paths:
    `{expand,depthwise,project}/{conv,bn}`, `se/{reduce,expand}`; without an expansion there is no `expand`.

    Args:
      expansion: how many times wider than the input the depthwise convolution is.
      stride: of the depthwise convolution.
      conv, depthwise, norm: build the layers.
      activation: after the expansion and the depthwise convolution.
      squeeze_excite: builds that layer, called with the channels and the inner width, a quarter of the input's; None = no such layer.
    """

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        in_features: int,
        features: int,
        *,
        expansion: float,
        stride: int,
        conv: ConvBuilder,
        depthwise: DepthwiseBuilder,
        norm: NormBuilder,
        activation: Activation,
        squeeze_excite: Callable[[int, int], SqueezeExcite] | None = None,
    ):
        width = round(in_features * expansion)
        self.activation = activation
        self.expands, self.squeezes = expansion > 1, squeeze_excite is not None
        if self.expands:
            self.expand = ConvNorm(conv(in_features, width, 1), norm(width))
        self.depthwise = ConvNorm(depthwise(width, stride=stride), norm(width))
        if squeeze_excite is not None:
            self.se = squeeze_excite(width, max(1, in_features // 4))
        self.project = ConvNorm(conv(width, features, 1), norm(features))
        self.residual = stride == 1 and in_features == features

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = self.activation(self.expand(x, train=train)) if self.expands else x
        y = self.activation(self.depthwise(y, train=train))
        y = self.se(y) if self.squeezes else y
        y = self.project(y, train=train)
        return x + y if self.residual else y


@dataclasses.dataclass(frozen=True)
class InvertedResidualStage:
    """Inverted residuals one after another; the first of them may halve the maps."""

    expansion: int
    features: int
    depth: int
    stride: int  # of the first block
    kernel: int = 3  # of the depthwise convolutions
    fused: bool = False  # whether a convolution of that size takes the place of the expansion and the depthwise one


class FusedInvertedResidual(nnx.Module):
    """Fused-MBConv: one larger convolution in place of the expansion and the depthwise one, then project (1x1, no activation).

    Tan and Le, 2021 (https://arxiv.org/abs/2104.00298), figure 2. Parameter paths: `{expand,project}/{conv,bn}`. Without an expansion the
    larger convolution is `project` itself, and the activation follows it. A shortcut where the shape stays.
    """

    def __init__(
        self,
        in_features: int,
        stage: InvertedResidualStage,
        *,
        stride: int,
        conv: ConvBuilder,
        norm: NormBuilder,
        activation: Activation,
    ):
        width, features = in_features * stage.expansion, stage.features
        self.activation, self.expands = activation, stage.expansion > 1
        if self.expands:
            self.expand = ConvNorm(conv(in_features, width, stage.kernel, stride=stride), norm(width))
            self.project = ConvNorm(conv(width, features, 1), norm(features))
        else:
            self.project = ConvNorm(conv(in_features, features, stage.kernel, stride=stride), norm(features))
        self.residual = stride == 1 and in_features == features

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        if self.expands:
            y = self.project(self.activation(self.expand(x, train=train)), train=train)
        else:
            y = self.activation(self.project(x, train=train))
        return x + y if self.residual else y


class InvertedResidualNet(Backbone):
    """Stem (3x3/2), stages of inverted residuals, and a 1x1 convolution: `stem`, `blocks/0`, `blocks/1`, …, `last`.

    Args:
      stem, last: channels of the first and the last convolution.
      stages: what is between them.
      activation: after every convolution but the blocks' last ones.
      squeeze_excite: whether blocks have it; fused ones don't.
      depthwise_init: initialises the depthwise kernels.
      padding: of what has stride 2: "symmetric" as in torch, or "same" as in TensorFlow (right and bottom of even sizes).
      norm: options of batch normalisation.
    """

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        stem: int,
        stages: Sequence[InvertedResidualStage],
        last: int,
        *,
        activation: Activation,
        squeeze_excite: bool,
        depthwise_init: Initializer,
        padding: str = "symmetric",
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        self.activation, self.pads_same = activation, padding == "same"
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        make_conv = functools.partial(layers.Conv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        same: Literal["same"] | None = "same" if self.pads_same else None
        make_depthwise = functools.partial(layers.DepthwiseConv, padding=same, kernel_init=depthwise_init, dtype=dtype, rngs=rngs)
        make_fused = functools.partial(
            FusedInvertedResidual, conv=functools.partial(make_conv, padding=same), norm=make_norm, activation=activation
        )
        make_block = functools.partial(
            InvertedResidual,
            conv=make_conv,
            norm=make_norm,
            activation=activation,
            squeeze_excite=functools.partial(SqueezeExcite, dtype=dtype, rngs=rngs) if squeeze_excite else None,
        )
        unpadded = ((0, 0), (0, 0)) if self.pads_same else None
        self.stem = ConvNorm(make_conv(3, stem, 3, stride=2, padding=unpadded), make_norm(stem))
        features, blocks = stem, list[nnx.Module]()
        for stage in stages:
            depthwise = functools.partial(make_depthwise, kernel=stage.kernel)
            for i in range(stage.depth):
                stride = stage.stride if i == 0 else 1
                if stage.fused:
                    blocks.append(make_fused(features, stage, stride=stride))
                else:
                    blocks.append(make_block(features, stage.features, expansion=stage.expansion, stride=stride, depthwise=depthwise))
                features = stage.features
        self.blocks = Stage(blocks)
        self.last = ConvNorm(make_conv(features, last, 1), make_norm(last))
        self.features = last
        self.halvings = 1 + sum(stage.stride == 2 for stage in stages)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: half of it for each stride of 2, rounded up."""
        return -(-height // 2**self.halvings), -(-width // 2**self.halvings)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = layers.pad_same(image, 3, 2) if self.pads_same else image
        x = self.activation(self.stem(x, train=train))
        x = self.blocks(x, train=train)
        return self.activation(self.last(x, train=train))
