"""A classifier: a backbone, which maps images to feature maps, and a head, which maps those to logits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zeroes each value with probability `rate` and scales the others by 1 / (1 − rate)."""
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), 0).astype(x.dtype)


class Head(nnx.Module):
    """Maps to logits: dropout, flatten or average, hidden dense layers (ReLU, dropout), and the output layer.

    Flattening runs over height, width, channels, as in Keras. One output is a sigmoid unit z, and its logits are [0, z], whose
    softmax is [1 − sigmoid(z), sigmoid(z)].
    """

    def __init__(
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        flatten: bool = False,
        maps_dropout: float = 0.0,
        dense: tuple[int, ...] = (),
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.flatten, self.maps_dropout, self.dropout = flatten, maps_dropout, dropout
        self.hidden = len(dense)
        width = math.prod(map_size) * features if flatten else features
        for i, units in enumerate(dense):
            layer = nnx.Linear(width, units, kernel_init=nnx.initializers.he_normal(), dtype=dtype, param_dtype=jnp.float32, rngs=rngs)
            setattr(self, f"dense{i}", layer)
            width = units
        self.logits = nnx.Linear(width, outputs, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs)
        self.sigmoid = outputs == 1

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,C], for maps [B,h,w,D]. Dropout in training needs a key."""

        def drop(x: jax.Array, rate: float, place: int) -> jax.Array:
            if not train or rate == 0:
                return x
            if key is None:
                raise ValueError("dropout in training needs a key")
            return dropout(x, rate, jax.random.fold_in(key, place))

        x = drop(maps, self.maps_dropout, 0)
        x = x.reshape(x.shape[0], -1) if self.flatten else average(x)
        for i in range(self.hidden):
            x = drop(jax.nn.relu(getattr(self, f"dense{i}")(x)), self.dropout, 1 + i)
        logits = self.logits(x.astype(jnp.float32))
        return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1) if self.sigmoid else logits


def average(maps: jax.Array) -> jax.Array:
    """Global average pooling: [B,h,w,D] to float32 [B,D]."""
    return maps.astype(jnp.float32).mean((1, 2))


class Classifier(nnx.Module):
    """A backbone and a head. Holds `nnx.Param` and `nnx.BatchStat` only: dropout's key comes with the call."""

    def __init__(self, backbone: nnx.Module, head: Head, *, dtype: Any = jnp.float32):
        self.backbone = backbone
        self.head = head
        self.dtype = dtype

    def __call__(self, image: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,C], for normalised images, float32 [B,H,W,3]."""
        return self.head(self.backbone(image.astype(self.dtype), train=train), train=train, key=key)

    def features(self, image: jax.Array) -> jax.Array:
        """Returns the pooled maps, float32 [B,D], in evaluation mode."""
        return average(self.backbone(image.astype(self.dtype)))
