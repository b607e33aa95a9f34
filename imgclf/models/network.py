"""The whole network: a backbone, which maps images to feature maps, and a head, which maps those to logits."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import forms, layers
from imgclf.models.backbone import Backbone
from imgclf.models.cpu import chosen
from imgclf.models.heads import Head, average

_PIXELS = 4 * 224 * 224  # on the CPU, at most this many pixels go through a backbone at once


def _in_small_batches(backbone: Backbone, image: jax.Array) -> jax.Array:
    """Returns backbone(image), computed for a few images at a time.

    The maps of a few images stay in the processor's cache, and their memory is used again instead of being asked from the system. This is
    for evaluation only: XLA:CPU is many times slower at a convolution's gradient inside a loop (jax-ml/jax#12868).
    """
    batch, height, width, _ = image.shape
    most = max(1, _PIXELS // (height * width))
    size = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
    if size == batch:
        return backbone(image)
    backbone = nnx.clone(backbone)
    for _, layer in nnx.iter_modules(backbone):
        if isinstance(layer, layers.Conv | layers.Linear) and layer.bf16_products:
            layer.kernel = nnx.Param(layer.kernel[...].astype(jnp.bfloat16))  # rounded once instead of once for every part
    graphdef, state = nnx.split(backbone)
    parts = image.reshape(batch // size, size, *image.shape[1:])
    maps = jax.lax.map(lambda part: nnx.merge(graphdef, state)(part), parts)
    return maps.reshape(batch, *maps.shape[2:])


class Network(nnx.Module):
    """A backbone and a head. It holds `nnx.Param` and `nnx.BatchStat` only: the key of dropout comes with each call."""

    forms: chosen.Table | None = None  # of convolutions in training, a static attribute; a training whose forms were measured sets it

    def __init__(self, backbone: Backbone, head: Head, *, dtype: Any = jnp.float32):
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

    def logits_of_features(self, features: jax.Array) -> jax.Array:
        """Returns what the head makes of pooled maps, float32 [B,D] to [B,C], in evaluation; for heads with `takes_features`."""
        with self._exact_products():
            return self.head(features[:, None, None])

    def features_and_logits(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the pooled maps, float32 [B,D], and the logits, float32 [B,C], of one pass in evaluation mode."""
        with self._exact_products():
            maps = self._maps(image, False)
            return average(maps), self.head(maps)

    def places(self, image: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """The last values that have a place in the image, [B,h,w,D], and the function that makes logits, float32 [B,C], of them.

        In evaluation mode; see `Backbone.places`. A backbone of the user's own may have no such method: then they are its maps.
        """
        split = getattr(self.backbone, "places", functools.partial(Backbone.places, self.backbone))
        with self._exact_products():
            places, maps_of = split(image.astype(self.dtype))

        def logits_of(places: jax.Array) -> jax.Array:
            with self._exact_products():
                return self.head(maps_of(places))

        return places, logits_of

    def _maps(self, image: jax.Array, train: bool) -> jax.Array:
        image = image.astype(self.dtype)
        if train:
            with chosen.using(self.forms):
                return self.backbone(image, train=True)
        if not forms.on_one_cpu():
            return self.backbone(image, train=False)
        return _in_small_batches(self.backbone, image)

    def _exact_products(self) -> contextlib.AbstractContextManager:
        """Has products of float32 operands computed in float32; by default, a GPU rounds the operands to TF32 and a TPU to bfloat16."""
        return jax.default_matmul_precision("highest") if self.dtype == jnp.float32 else contextlib.nullcontext()
