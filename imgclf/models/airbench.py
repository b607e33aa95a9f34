"""Airbench94: the small network that learns CIFAR-10 to 94 % in a few seconds on a GPU.

Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (https://arxiv.org/abs/2404.00498). What sets it apart from a plain
CNN: a first layer that whitens patches, found from the training images and left as it is; convolutions that begin as the identity on
their first channels (dirac); batch normalisation without a scale and with a short memory; GELU; and logits scaled by 1/9.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.heads import Head, OutputLayer, average, dropout_in_training
from imgclf.models.initializers import Initializer

_PATCH = 2  # pixels a side of what the first layer sees
_WHITENED = 2 * 3 * _PATCH**2  # each principal component of a patch, and its negative
_VARIANCE_FLOOR = 5e-4  # added to variances, so that components of next to no variance are not blown up
_LOGIT_SCALE = 1 / 9


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """torch's default for layers: uniform in ±1 / √fan_in."""
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / math.sqrt(math.prod(shape[:-1]))


def dirac(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """A kernel [k,k,C_in,C_out] that passes its input on as its first C_in outputs; the others are `uniform`.

    With fewer outputs than inputs, it passes on so many of them.
    """
    height, width, inputs, outputs = shape
    passed = min(inputs, outputs)
    identity = jnp.zeros((height, width, inputs, passed), dtype).at[height // 2, width // 2, jnp.arange(passed), jnp.arange(passed)].set(1)
    return jnp.concatenate([identity, uniform(key, shape, dtype)[..., passed:]], -1)


def whitening_kernel(image: np.ndarray, patch: int = _PATCH) -> np.ndarray:
    """Principal components of the patches of images, each divided by its standard deviation, and their negatives.

    Args:
      image: normalised, float [N,H,W,3].
      patch: pixels a side.

    Returns:
      float32 [patch, patch, 3, 2·3·patch²], the component of the largest variance first. A component's sign is chosen so that its largest
      weight is positive, as eigenvectors have none of their own.
    """
    patches = np.lib.stride_tricks.sliding_window_view(np.asarray(image, np.float64), (patch, patch), axis=(1, 2))
    flat = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 3 * patch**2)  # [.., y, x, channel], as a kernel has it
    variances, components = np.linalg.eigh(flat.T @ flat / len(flat))  # columns, ascending
    largest = np.abs(components).argmax(0)
    components = components * np.sign(components[largest, np.arange(len(largest))])
    scaled = (components / np.sqrt(variances + _VARIANCE_FLOOR))[:, ::-1]
    return np.concatenate([scaled, -scaled], 1).reshape(patch, patch, 3, -1).astype(np.float32)


class ConvGroup(nnx.Module):
    """conv → max-pool → norm → GELU → conv → norm → GELU; halves the maps."""

    def __init__(self, inputs: int, outputs: int, *, dtype: Any, rngs: nnx.Rngs):
        def norm() -> layers.BatchNorm:
            return layers.BatchNorm(outputs, use_scale=False, momentum=0.6, epsilon=1e-12, rngs=rngs)

        init: Initializer = dirac
        self.conv1 = layers.Conv(inputs, outputs, 3, kernel_init=init, dtype=dtype, rngs=rngs)
        self.norm1 = norm()
        self.conv2 = layers.Conv(outputs, outputs, 3, kernel_init=init, dtype=dtype, rngs=rngs)
        self.norm2 = norm()

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = layers.max_pool(self.conv1(x), 2, 2)
        x = jax.nn.gelu(self.norm1(x, train=train), approximate=False)
        return jax.nn.gelu(self.norm2(self.conv2(x), train=train), approximate=False)


class Airbench(Backbone):
    """The whitening layer, `whiten`, three groups, `group1` to `group3`, and a max-pool of 3; images of 32 px give maps of 1 x 1."""

    initial_images = 5000  # as the original takes; `initialize_from` is given so many training images, or all of fewer

    def __init__(self, *, widths: tuple[int, int, int] = (64, 256, 256), dtype: Any = jnp.float32, rngs: nnx.Rngs):
        no_padding = ((0, 0), (0, 0))
        self.whiten = layers.Conv(3, _WHITENED, _PATCH, padding=no_padding, use_bias=True, kernel_init=uniform, dtype=dtype, rngs=rngs)
        inputs = _WHITENED
        for i, width in enumerate(widths):
            setattr(self, f"group{i + 1}", ConvGroup(inputs, width, dtype=dtype, rngs=rngs))
            inputs = width
        self.features = inputs

    def initialize_from(self, image: np.ndarray) -> None:
        """Has the first layer whiten the patches of these normalised training images, float32 [N,H,W,3]."""
        self.whiten.kernel[...] = jnp.asarray(whitening_kernel(image))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size; below 1 where they are too small."""

        def size(pixels: int) -> int:
            return (pixels - _PATCH + 1) // 2 // 2 // 2 // 3

        return size(height), size(width)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.gelu(self.whiten(image), approximate=False)
        for i in range(1, 4):
            x = getattr(self, f"group{i}")(x, train=train)
        return layers.max_pool(x, 3, 3)


class ScaledHead(Head):
    """Averaged maps, dropout, an output layer without bias, and its outputs divided by 9. Path: `logits`."""

    def __init__(
        self, map_size: tuple[int, int], features: int, outputs: int, *, dropout: float = 0.0, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        del map_size, dtype  # maps of any size will do; logits are float32
        self.dropout = dropout
        self.logits = OutputLayer(features, outputs, use_bias=False, kernel_init=uniform, rngs=rngs)

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        x = dropout_in_training(average(maps), self.dropout, train, key)
        return self.with_sigmoid(_LOGIT_SCALE * self.logits(x))


def airbench94(**options: Any) -> Airbench:
    return Airbench(**options)


def airbench_tiny(**options: Any) -> Airbench:
    """For tests."""
    return Airbench(widths=(8, 8, 8), **options)


HEAD = ScaledHead

MODELS = {
    "airbench94": Model(airbench94, 2_225_080),
    "airbench_tiny": Model(airbench_tiny),
}
