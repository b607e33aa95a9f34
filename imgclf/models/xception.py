"""Xception: Chollet, 2017 (https://arxiv.org/abs/1610.02357), figure 5.

Parameter paths: `conv1`, `bn1`, `conv2`, `bn2`; `block1/{conv1/{depthwise,pointwise},bn1,…}` to `block12`, with `skip/{conv,bn}` where the
shortcut is a convolution; `conv3/{depthwise,pointwise}`, `bn3`, `conv4/…`, `bn4`. Keras counts the first two convolutions as block 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.cpu import depthwise
from imgclf.models.weights.conversion import HALF, Rule, Weights, batch_norm, conv, keras_batch_norm, keras_depthwise, linear, same

_VALID = ((0, 0), (0, 0))


class SeparableConv(nnx.Module):
    """A 3x3 depthwise convolution and a 1x1 convolution: `depthwise`, `pointwise`."""

    def __init__(self, in_features: int, features: int, *, dtype: Any, rngs: nnx.Rngs):
        self.depthwise = depthwise.DepthwiseConv(in_features, 3, dtype=dtype, rngs=rngs)
        self.pointwise = layers.Conv(in_features, features, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.pointwise(self.depthwise(x))


class Skip(nnx.Module):
    """The shortcut of a block that halves the maps: a normalised 1x1/2 convolution."""

    def __init__(self, in_features: int, features: int, *, norm: dict[str, Any], dtype: Any, rngs: nnx.Rngs):
        self.conv = layers.Conv(in_features, features, 1, stride=2, dtype=dtype, rngs=rngs)
        self.bn = layers.BatchNorm(features, **norm, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return self.bn(self.conv(x), train=train)


class Block(nnx.Module):
    """Separable convolutions to the given widths, each after ReLU and before normalisation, then 3x3/2 max-pooling or nothing.

    Args:
      relu_first: whether the input goes through ReLU, which it has behind it in block 1.
      halves: whether the block pools; its shortcut is a convolution then, and the identity else.
      pad_same: whether pooling pads right and bottom at even sizes, as TensorFlow does, instead of left and top.
    """

    def __init__(
        self,
        in_features: int,
        widths: tuple[int, ...],
        *,
        halves: bool,
        relu_first: bool = True,
        pad_same: bool,
        norm: dict[str, Any],
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.convs, self.halves, self.relu_first, self.pad_same = len(widths), halves, relu_first, pad_same
        features = in_features
        for i, width in enumerate(widths, start=1):
            setattr(self, f"conv{i}", SeparableConv(features, width, dtype=dtype, rngs=rngs))
            setattr(self, f"bn{i}", layers.BatchNorm(width, **norm, rngs=rngs))
            features = width
        if halves:
            self.skip = Skip(in_features, features, norm=norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        shortcut = self.skip(x, train=train) if self.halves else x
        for i in range(1, self.convs + 1):
            x = jax.nn.relu(x) if i > 1 or self.relu_first else x
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x), train=train)
        if self.halves:
            x = layers.max_pool(depthwise.pad_same(x, 3, 2, -jnp.inf), 3, 2) if self.pad_same else layers.max_pool(x, 3, 2, padding=1)
        return x + shortcut


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
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        unbiased: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        norm = {"epsilon": epsilon, "momentum": momentum, "unbiased": unbiased}
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}

        def wide(*widths: int) -> tuple[int, ...]:
            return tuple(round(w * width) for w in widths)

        stem, entry, body, last = wide(32, 64), wide(128, 256, 728), wide(728, 1024), wide(1536, 2048)
        self.conv1 = layers.Conv(3, stem[0], 3, stride=2, padding=_VALID, **options)
        self.bn1 = layers.BatchNorm(stem[0], **norm, rngs=rngs)
        self.conv2 = layers.Conv(*stem, 3, padding=_VALID, **options)
        self.bn2 = layers.BatchNorm(stem[1], **norm, rngs=rngs)
        blocks = [((w, w), True) for w in entry] + [((body[0],) * 3, False)] * middle + [(body, True)]
        features = stem[1]
        for i, (widths, halves) in enumerate(blocks, start=1):
            block = Block(features, widths, halves=halves, relu_first=i > 1, pad_same=padding == "same", norm=norm, **options)
            setattr(self, f"block{i}", block)
            features = widths[-1]
        self.conv3 = SeparableConv(features, last[0], **options)
        self.bn3 = layers.BatchNorm(last[0], **norm, rngs=rngs)
        self.conv4 = SeparableConv(*last, **options)
        self.bn4 = layers.BatchNorm(last[1], **norm, rngs=rngs)
        self.blocks, self.features = len(blocks), last[1]

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
_KERAS_FILE = "xception_weights_tf_dim_ordering_tf_kernels.h5"
WEIGHTS: tuple[Weights, ...] = (
    Weights(
        "timm/legacy_xception.tf_in1k",
        "xception",
        "timm",
        (299, 299),
        mean=HALF,
        std=HALF,
        file="xception-43020ad28.safetensors",
        top1=79.058,
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
        source=f"https://storage.googleapis.com/tensorflow/keras-applications/xception/{_KERAS_FILE}",
    ),
)
