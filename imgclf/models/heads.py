"""Heads, which turn a backbone's feature maps into logits."""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import forms, layers, placement
from imgclf.models.cpu import convolution
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
    return forms.by_platform(maps.astype(jnp.float32), cpu=convolution.pixel_means, default=lambda maps: maps.mean((1, 2)))


def flatten(maps: jax.Array) -> jax.Array:
    """[B,h,w,D] to [B,h·w·D], over height, width, channels, as in Keras."""
    return maps.reshape(maps.shape[0], -1)


def average_and_largest(maps: jax.Array) -> jax.Array:
    """Global average and maximum pooling side by side: [B,h,w,D] to float32 [B,2D]."""
    return jnp.concatenate([average(maps), _largest(maps.astype(jnp.float32).reshape(maps.shape[0], -1, maps.shape[-1]))], -1)


@jax.custom_vjp
def _largest(values: jax.Array) -> jax.Array:
    """The largest of the second axis: float32 [B,n,D] to [B,D]. Its gradient goes to the first of equals.

    That of `jnp.max` goes to the values that are equal to the largest. XLA may compute the maps a second time for it, rounded otherwise, so
    that none is equal, and the gradient is 0 / 0: so it was without LLVM's optimisation. Here the place is noted on the way forward.
    """
    return values.max(1)


def _largest_and_place(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return values.max(1), jax.nn.one_hot(values.argmax(1), values.shape[1], axis=1, dtype=bool)


def _gradient_at_place(at_place: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(at_place, gradient[:, None], 0),)


_largest.defvjp(_largest_and_place, _gradient_at_place)


def unit_length(features: jax.Array) -> jax.Array:
    """Divides each vector by its Euclidean length: float32 [B,D] to [B,D]; zeros stay zeros."""
    return features * jax.lax.rsqrt(jnp.maximum(jnp.square(features).sum(-1, keepdims=True), 1e-24))


_POOLS = {"average": average, "flatten": flatten, "avgmax": average_and_largest}


class OutputLayer(nnx.Linear):
    """The layer that makes the logits, [..., D] to [..., C]; its classes may be split over devices, see `placement`.

    Its products are of float32 numbers, whatever the network's activations are: unasked, a TPU rounds both operands to bfloat16, and a GPU
    to TF32.
    """

    def __init__(self, features: int, outputs: int, *, use_bias: bool = True, kernel_init: nnx.Initializer = LECUN_NORMAL, rngs: nnx.Rngs):
        exact: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": jnp.float32, "precision": jax.lax.Precision.HIGHEST}
        super().__init__(features, outputs, use_bias=use_bias, kernel_init=kernel_init, **exact, rngs=rngs)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        return placement.by_class(super().__call__(placement.for_classes(inputs), out_sharding))


class Head(nnx.Module):
    """Turns maps [B,h,w,D] into logits, float32 [B,C], by an output layer, `logits`, and whatever a head has before it.

    Called with maps, `train`, and `key`, which dropout in training needs. A head is built from the size and the channels of the maps and
    the number of outputs. One output is a sigmoid unit z: the logits of the two classes are [0, z] then, whose softmax is
    [1 − sigmoid(z), sigmoid(z)].
    """

    logits: OutputLayer

    @property
    def takes_features(self) -> bool:
        """Whether it begins with average pooling, so that pooled maps [B,1,1,D] are as good as the maps themselves."""
        return False

    @property
    def rescales(self) -> bool:
        """Whether pooled maps are not what its first dense layer sees: see `rescaled`."""
        return False

    def rescaled(self, pooled: jax.Array) -> jax.Array:
        """What the first dense layer sees of pooled maps, in evaluation, float32 [B,D] to [B,D]; for heads with `takes_features`."""
        return pooled

    def with_sigmoid(self, logits: jax.Array) -> jax.Array:
        """Returns [0, z] in place of a single output z; several outputs stay as they are."""
        return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1) if self.logits.out_features == 1 else logits

    if TYPE_CHECKING:  # nnx.Module has no signature for calls

        def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array: ...


class DenseHead(Head):
    """Pooling, hidden dense layers (He-initialised; ReLU, batch normalisation if asked for, dropout), the output layer.

    Parameter paths: `dense0`, `bn0`, `dense1`, …, `logits`.

    Args:
      pool: "average", "flatten" or "avgmax" (average and maximum).
      normalize: whether averaged maps are divided by their Euclidean length.
      maps_dropout, features_dropout, dropout: rates before pooling, after pooling, after each hidden layer.
      norm: whether hidden layers have batch normalisation, after ReLU and with Keras's defaults, epsilon 1e-3 and momentum 0.99.
    """

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        pool: str = "average",
        normalize: bool = False,
        maps_dropout: float = 0.0,
        features_dropout: float = 0.0,
        dense: tuple[int, ...] = (),
        norm: bool = False,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.pool, self.normalize, self.norm, self.depth = pool, normalize, norm, len(dense)
        self.maps_dropout, self.features_dropout, self.dropout = maps_dropout, features_dropout, dropout
        width = {"average": features, "flatten": math.prod(map_size) * features, "avgmax": 2 * features}[pool]
        for i, units in enumerate(dense):
            layer = layers.Dense(width, units, kernel_init=HE_NORMAL, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)
            setattr(self, f"dense{i}", layer)
            if norm:
                setattr(self, f"bn{i}", layers.BatchNorm(units, epsilon=1e-3, momentum=0.99, unbiased=False, rngs=rngs))
            width = units
        self.logits = OutputLayer(width, outputs, rngs=rngs)

    @property
    def takes_features(self) -> bool:
        return self.pool == "average"

    @property
    def rescales(self) -> bool:
        return self.normalize

    def rescaled(self, pooled: jax.Array) -> jax.Array:
        return unit_length(pooled) if self.normalize else pooled

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        def drop(x: jax.Array, rate: float, place: int) -> jax.Array:
            return dropout_in_training(x, rate, train, None if key is None else jax.random.fold_in(key, place))

        x = _POOLS[self.pool](drop(maps, self.maps_dropout, 0))
        x = drop(self.rescaled(x) if self.normalize else x, self.features_dropout, 1 + self.depth)
        for i in range(self.depth):
            x = jax.nn.relu(getattr(self, f"dense{i}")(x))
            x = drop(getattr(self, f"bn{i}")(x, train=train) if self.norm else x, self.dropout, 1 + i)
        return self.with_sigmoid(self.logits(x.astype(jnp.float32)))


class NormHead(Head):
    """ConvNeXt's head: average pooling, LayerNorm, dropout, the output layer. It computes in float32. Paths: `norm`, `logits`."""

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
        del map_size, dtype  # maps of any size will do
        self.dropout = dropout
        self.norm = nnx.LayerNorm(features, epsilon=1e-6, use_fast_variance=False, param_dtype=jnp.float32, rngs=rngs)
        self.logits = OutputLayer(features, outputs, kernel_init=kernel_init, rngs=rngs)

    @property
    def takes_features(self) -> bool:
        return True

    @property
    def rescales(self) -> bool:
        return True

    def rescaled(self, pooled: jax.Array) -> jax.Array:
        return self.norm(pooled)

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        return self.with_sigmoid(self.logits(dropout_in_training(self.rescaled(average(maps)), self.dropout, train, key)))
