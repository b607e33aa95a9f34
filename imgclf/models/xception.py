"""Xception: Chollet, 2017 (https://arxiv.org/abs/1610.02357), figure 5.

Parameter paths: `conv1`, `bn1`, `conv2`, `bn2`; `block1/{conv1/{depthwise,pointwise},bn1,…}` to `block12`, with `skip/{conv,bn}` where the
shortcut is a convolution; `conv3/{depthwise,pointwise}`, `bn3`, `conv4/…`, `bn4`. Keras counts the first two convolutions as block 1.
"""

import functools
from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvBuilder, ConvNorm, NormBuilder
from imgclf.models.weights.conversion import HALF, Rule, Weights, batch_norm, conv, keras_batch_norm, keras_depthwise, linear, same

_VALID = ((0, 0), (0, 0))


class SeparableConv(nnx.Module):
    """A 3x3 depthwise convolution and a 1x1 convolution: `depthwise`, `pointwise`."""

    def __init__(self, in_features: int, features: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        self.depthwise = layers.DepthwiseConv(in_features, 3, dtype=dtype, rngs=rngs)
        self.pointwise = layers.Conv(in_features, features, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.pointwise(self.depthwise(x))


class Block(nnx.Module):
    """Separable convolutions to the given widths, each after ReLU and before normalisation; then pooling, or nothing; plus the shortcut.

    Args:
      conv, separable, norm: build the layers.
      relu_first: whether the input goes through ReLU; that of block 1 has done so before.
      pool: halves the maps, and the shortcut is a convolution then; None = no pooling, and the shortcut is the input itself.
    """

    def __init__(
        self,
        in_features: int,
        widths: tuple[int, ...],
        *,
        conv: ConvBuilder,
        separable: Callable[[int, int], SeparableConv],
        norm: NormBuilder,
        relu_first: bool = True,
        pool: Callable[[jax.Array], jax.Array] | None = None,
    ):
        self.convs, self.relu_first, self.pool = len(widths), relu_first, pool
        features = in_features
        for i, width in enumerate(widths, start=1):
            setattr(self, f"conv{i}", separable(features, width))
            setattr(self, f"bn{i}", norm(width))
            features = width
        if pool is not None:
            self.skip = ConvNorm(conv(in_features, features, 1, stride=2), norm(features))

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        shortcut = x if self.pool is None else self.skip(x, train=train)
        for i in range(1, self.convs + 1):
            x = jax.nn.relu(x) if i > 1 or self.relu_first else x
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x), train=train)
        return (x if self.pool is None else self.pool(x)) + shortcut


def _max_pool(x: jax.Array) -> jax.Array:
    """3x3/2, padded on all sides, as in torch."""
    return layers.max_pool(x, 3, 2, padding=1)


def _max_pool_same(x: jax.Array) -> jax.Array:
    """3x3/2, padded at the right and the bottom of even sizes, as in TensorFlow."""
    return layers.max_pool(layers.pad_same(x, 3, 2, -jnp.inf), 3, 2)


class Xception(Backbone):
    """Entry flow (two convolutions, three blocks that halve), middle flow (`middle` blocks), exit flow.

    `padding` of max-pooling is "symmetric" as in torch, or "same" as in TensorFlow (right and bottom of even sizes). Widths are
    multiplied by `width`.
    """

    def __init__(
        self,
        *,
        middle: int = 8,
        width: float = 1.0,
        padding: str = "symmetric",
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        conv = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        separable = functools.partial(SeparableConv, dtype=dtype, rngs=rngs)
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        pool = _max_pool_same if padding == "same" else _max_pool

        def wide(channels: int) -> int:
            return round(channels * width)

        self.conv1 = conv(3, wide(32), 3, stride=2, padding=_VALID)
        self.bn1 = make_norm(wide(32))
        self.conv2 = conv(wide(32), wide(64), 3, padding=_VALID)
        self.bn2 = make_norm(wide(64))
        block = functools.partial(Block, conv=conv, separable=separable, norm=make_norm)
        body = wide(728)
        blocks = [((w, w), True) for w in (wide(128), wide(256), body)] + [((body,) * 3, False)] * middle + [((body, wide(1024)), True)]
        features = wide(64)
        for i, (widths, halves) in enumerate(blocks, start=1):
            setattr(self, f"block{i}", block(features, widths, relu_first=i > 1, pool=pool if halves else None))
            features = widths[-1]
        self.conv3 = separable(features, wide(1536))
        self.bn3 = make_norm(wide(1536))
        self.conv4 = separable(wide(1536), wide(2048))
        self.bn4 = make_norm(wide(2048))
        self.blocks, self.features = len(blocks), wide(2048)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: the first two convolutions cut the edges off, pooling rounds up."""

        def size(pixels: int) -> int:
            return -(-((pixels - 3) // 2 - 1) // 16)

        return size(height), size(width)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.relu(self.bn1(self.conv1(image), train=train))
        x = jax.nn.relu(self.bn2(self.conv2(x), train=train))
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"block{i}")(x, train=train)
        x = jax.nn.relu(self.bn3(self.conv3(x), train=train))
        return jax.nn.relu(self.bn4(self.conv4(x), train=train))


def xception(**options: Any) -> Xception:
    return Xception(**options)


def xception_tiny(**options: Any) -> Xception:
    """One block in the middle, an eighth of the width: for tests."""
    return Xception(middle=1, width=1 / 8, **options)


MODELS = {
    "xception": Model(xception, 22_855_952),
    "xception_tiny": Model(xception_tiny),
}


def _separable(layer: str, path: str) -> tuple[Rule, ...]:
    return (
        (rf"{layer}\.conv1\.weight", f"{path}/depthwise/kernel", conv),
        (rf"{layer}\.pointwise\.weight", f"{path}/pointwise/kernel", conv),
    )


def _timm_rules() -> tuple[Rule, ...]:
    rules: list[Rule] = [
        (r"conv([12])\.weight", r"backbone/conv\1/kernel", conv),
        *batch_norm(r"bn(\d)", r"backbone/bn\1"),
        *_separable(r"conv([34])", r"backbone/conv\1"),
        (r"block(\d+)\.skip\.weight", r"backbone/block\1/skip/conv/kernel", conv),
        *batch_norm(r"block(\d+)\.skipbn", r"backbone/block\1/skip/bn"),
    ]
    for i in range(1, 4):  # rep is ReLU, convolution, normalisation, …; block 1 lacks the first ReLU
        for block, number, place in (("1", "1", 3 * i - 3), (r"(\d+)", r"\1", 3 * i - 2)):
            path = f"backbone/block{number}"
            rules += _separable(rf"block{block}\.rep\.{place}", f"{path}/conv{i}")
            rules += batch_norm(rf"block{block}\.rep\.{place + 1}", f"{path}/bn{i}")
    return (*rules, (r"fc\.weight", "head/logits/kernel", linear), (r"fc\.bias", "head/logits/bias", same))


def _keras_separable(layer: str, path: str) -> tuple[Rule, ...]:
    return (
        (f"{layer}/depthwise_kernel", f"{path}/depthwise/kernel", keras_depthwise),
        (f"{layer}/pointwise_kernel", f"{path}/pointwise/kernel", same),
        *keras_batch_norm(f"{layer}_bn", path.replace("/conv", "/bn")),
    )


def _keras_rules() -> tuple[Rule, ...]:
    rules: list[Rule] = [
        (r"block1_conv([12])/kernel", r"backbone/conv\1/kernel", same),
        *keras_batch_norm(r"block1_conv([12])_bn", r"backbone/bn\1"),
        *_keras_separable("block14_sepconv1", "backbone/conv3"),
        *_keras_separable("block14_sepconv2", "backbone/conv4"),
    ]
    for block in range(1, 13):
        rules += _keras_separable(rf"block{block + 1}_sepconv(\d)", rf"backbone/block{block}/conv\1")
    for i, block in enumerate((1, 2, 3, 12)):  # the shortcuts have no names of their own
        suffix = f"_{i}" if i else ""
        rules.append((f"conv2d{suffix}/kernel", f"backbone/block{block}/skip/conv/kernel", same))
        rules += keras_batch_norm(f"batch_normalization{suffix}", f"backbone/block{block}/skip/bn")
    return (*rules, (r"predictions/(kernel|bias)", r"head/logits/\1", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _timm_rules(), "keras": _keras_rules()}

_TIMM_URL = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth"
_GMACS = 8.4  # timm's benchmark tables
_KERAS_FILE = "xception_weights_tf_dim_ordering_tf_kernels.h5"
WEIGHTS: tuple[Weights, ...] = (
    Weights(
        "timm/legacy_xception.tf_in1k",
        "xception",
        "timm",
        (299, 299),
        crop_fraction=0.8975,
        interpolation="bicubic",
        mean=HALF,
        std=HALF,
        file="xception-43020ad28.safetensors",
        top1=79.058,
        gmacs=_GMACS,
        licence="apache-2.0",
        source=_TIMM_URL,
    ),
    Weights(
        "keras/xception",
        "xception",
        "keras",
        (299, 299),
        mean=HALF,
        std=HALF,
        variant={"padding": "same", "epsilon": 1e-3, "momentum": 0.99, "unbiased": False},
        file=_KERAS_FILE,
        top1=79.0,  # https://keras.io/api/applications/
        gmacs=_GMACS,
        source=f"https://storage.googleapis.com/tensorflow/keras-applications/xception/{_KERAS_FILE}",
    ),
)
