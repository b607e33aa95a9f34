"""A classifier: a backbone, which maps images to feature maps, and a head, which maps those to logits."""

import contextlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.initializers import HE_NORMAL, LECUN_NORMAL, Initializer


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zeroes each value with probability `rate` and scales the others by 1 / (1 − rate)."""
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), 0).astype(x.dtype)


def dropout_in_training(x: jax.Array, rate: float, train: bool, key: jax.Array | None) -> jax.Array:
    """`dropout` where it applies; the identity in evaluation and at rate 0.

    Raises:
      ValueError: where it applies and there is no key.
    """
    if not train or rate == 0:
        return x
    if key is None:
        raise ValueError("dropout in training needs a key")
    return dropout(x, rate, key)


def average(maps: jax.Array) -> jax.Array:
    """Global average pooling: [B,h,w,D] to float32 [B,D]."""
    return maps.astype(jnp.float32).mean((1, 2))


def flatten(maps: jax.Array) -> jax.Array:
    """[B,h,w,D] to [B,h·w·D], over height, width, channels, as in Keras."""
    return maps.reshape(maps.shape[0], -1)


def average_and_largest(maps: jax.Array) -> jax.Array:
    """Global average and maximum pooling side by side: [B,h,w,D] to float32 [B,2D]."""
    return jnp.concatenate([average(maps), maps.astype(jnp.float32).max((1, 2))], -1)


_POOLS = {"average": average, "flatten": flatten, "avgmax": average_and_largest}


class Head(nnx.Module):
    """Maps to logits: pooling, hidden dense layers (He-initialised; ReLU, batch normalisation if asked for, dropout), the output layer.

    Parameter paths: `dense0`, `bn0`, `dense1`, …, `logits`. One output is a sigmoid unit z, and its logits are [0, z], whose softmax
    is [1 − sigmoid(z), sigmoid(z)].

    Args:
      pool: "average", "flatten" or "avgmax" (average and maximum).
      maps_dropout, features_dropout, dropout: rates before pooling, after pooling, after each hidden layer.
      norm: batch normalisation of hidden layers, as Keras has it by default: after ReLU, epsilon 1e-3, momentum 0.99.
    """

    def __init__(
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        pool: str = "average",
        maps_dropout: float = 0.0,
        features_dropout: float = 0.0,
        dense: tuple[int, ...] = (),
        norm: bool = False,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.pool, self.norm, self.hidden = pool, norm, len(dense)
        self.maps_dropout, self.features_dropout, self.dropout = maps_dropout, features_dropout, dropout
        width = {"average": features, "flatten": math.prod(map_size) * features, "avgmax": 2 * features}[pool]
        for i, units in enumerate(dense):
            layer = nnx.Linear(width, units, kernel_init=HE_NORMAL, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)
            setattr(self, f"dense{i}", layer)
            if norm:
                setattr(self, f"bn{i}", layers.BatchNorm(units, epsilon=1e-3, momentum=0.99, unbiased=False, rngs=rngs))
            width = units
        self.logits = nnx.Linear(width, outputs, kernel_init=LECUN_NORMAL, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs)
        self.sigmoid = outputs == 1

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,C], for maps [B,h,w,D]. Dropout in training needs a key."""

        def drop(x: jax.Array, rate: float, place: int) -> jax.Array:
            return dropout_in_training(x, rate, train, None if key is None else jax.random.fold_in(key, place))

        x = _POOLS[self.pool](drop(maps, self.maps_dropout, 0))
        x = drop(x, self.features_dropout, 1 + self.hidden)
        for i in range(self.hidden):
            x = jax.nn.relu(getattr(self, f"dense{i}")(x))
            x = drop(getattr(self, f"bn{i}")(x, train=train) if self.norm else x, self.dropout, 1 + i)
        logits = self.logits(x.astype(jnp.float32))
        return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1) if self.sigmoid else logits


class NormHead(nnx.Module):
    """Average pooling, LayerNorm, dropout, the output layer: ConvNeXt's head. Paths: `norm`, `logits`. Computes in float32.

    One output is a sigmoid unit z, and its logits are [0, z].
    """

    def __init__(
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        dropout: float = 0.0,
        kernel_init: Initializer = LECUN_NORMAL,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del map_size, dtype  # any size
        self.dropout = dropout
        self.norm = nnx.LayerNorm(features, epsilon=1e-6, use_fast_variance=False, param_dtype=jnp.float32, rngs=rngs)
        self.logits = nnx.Linear(features, outputs, kernel_init=kernel_init, param_dtype=jnp.float32, rngs=rngs)
        self.sigmoid = outputs == 1

    def hidden(self, pooled: jax.Array) -> jax.Array:
        """What the output layer sees of pooled maps, in evaluation: [B,D] to [B,D]."""
        return self.norm(pooled)

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,C], for maps [B,h,w,D]. Dropout in training needs a key."""
        logits = self.logits(dropout_in_training(self.hidden(average(maps)), self.dropout, train, key))
        return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1) if self.sigmoid else logits


_PIXELS = 4 * 224 * 224  # of the images that go through a backbone together on the CPU


def _in_small_batches(backbone: nnx.Module, image: jax.Array) -> jax.Array:
    """backbone(image), a few images at a time: their maps stay in the cache, in memory that is at hand instead of new from the system.

    For evaluation only: XLA:CPU is many times slower at a convolution's gradient inside a loop (jax-ml/jax#12868).
    """
    batch, height, width, _ = image.shape
    most = max(1, _PIXELS // (height * width))
    size = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
    if size == batch:
        return backbone(image)
    backbone = nnx.clone(backbone)
    for _, conv in nnx.iter_modules(backbone):
        if isinstance(conv, layers.Conv) and conv.bf16_products:
            conv.kernel = nnx.Param(conv.kernel[...].astype(jnp.bfloat16))  # rounded once, not for every part
    graphdef, state = nnx.split(backbone)
    parts = image.reshape(batch // size, size, *image.shape[1:])
    maps = jax.lax.map(lambda part: nnx.merge(graphdef, state)(part), parts)
    return maps.reshape(batch, *maps.shape[2:])


class Classifier(nnx.Module):
    """A backbone and a head. Holds `nnx.Param` and `nnx.BatchStat` only: dropout's key comes with the call."""

    def __init__(self, backbone: nnx.Module, head: nnx.Module, *, dtype: Any = jnp.float32):
        self.backbone = backbone
        self.head = head
        self.dtype = dtype

    def __call__(self, image: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,C], for normalised images, float32 [B,H,W,3]."""
        with self._exact_products():
            return self.head(self._maps(image, train), train=train, key=key)

    def features(self, image: jax.Array) -> jax.Array:
        """Returns the pooled maps, float32 [B,D], in evaluation mode."""
        with self._exact_products():
            return average(self._maps(image, False))

    def _maps(self, image: jax.Array, train: bool) -> jax.Array:
        image = image.astype(self.dtype)
        if train or jax.default_backend() != "cpu" or jax.device_count() > 1:
            return self.backbone(image, train=train)
        return _in_small_batches(self.backbone, image)

    def _exact_products(self) -> contextlib.AbstractContextManager:
        """Float32 products in float32: by default a GPU computes them in TF32, a TPU in bfloat16."""
        return jax.default_matmul_precision("highest") if self.dtype == jnp.float32 else contextlib.nullcontext()
