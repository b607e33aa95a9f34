"""Blocks of Vision Transformers: Dosovitskiy et al., 2021 (https://arxiv.org/abs/2010.11929), section 3.1, and what came after.

Tokens are [B,N,D]. The first few, the class token and the registers, belong to no place of the image; one for each patch follows.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import forms, layers
from imgclf.models.cpu import linear
from imgclf.models.initializers import normal
from imgclf.models.pixelwise import LayerScale, gelu


def small_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """Draws from a normal distribution of standard deviation 0.02, as BERT, ViT and their successors are initialised."""
    del out_sharding
    return (normal(key, shape) * np.float32(0.02)).astype(dtype)


class Rotation(NamedTuple):
    """Rotary positions of all tokens (Su et al., 2021, https://arxiv.org/abs/2104.09864): float32 [N,d/2] for heads of d channels.

    Channels i and i + d/2 are a point of the plane, which is turned by an angle.
    """

    sine: np.ndarray
    cosine: np.ndarray

    def __call__(self, x: jax.Array) -> jax.Array:
        """Turns queries or keys, [B,N,heads,d] or those of the first tokens; products of the two depend on the tokens' distance then."""
        first, second = jnp.split(x.astype(jnp.float32), 2, -1)
        sine, cosine = (part[: x.shape[1], None] for part in self)
        return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1).astype(x.dtype)


@functools.cache
def axial_rotation(height: int, width: int, channels: int, others: int) -> Rotation:
    """DINOv3's rotary positions (Siméoni et al., 2025, https://arxiv.org/abs/2508.10104, section 3.2) of height x width patches.

    A patch's centre is given by two coordinates from −1 to 1, whatever the size of the image. A quarter of the channels turns with the
    first, a quarter with the second, at `channels` / 4 periods from 1 to nearly 100; the other half are the points' second coordinates.
    The `others`, tokens before the patches, stay as they are.
    """
    periods = 100.0 ** (np.arange(channels // 4) / (channels // 4))
    rows, columns = (2 * (np.arange(size) + 0.5) / size - 1 for size in (height, width))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    angles = (2 * np.pi * places[:, :, None] / periods).reshape(len(places), -1)
    angles = np.concatenate([np.zeros((others, channels // 2)), angles])
    return Rotation(np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32))


@functools.cache
def _has_cudnn() -> bool:
    """Whether this process has the cuDNN that its attention is traced with; a program for a described GPU may be traced without one."""
    heads = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(functools.partial(jax.nn.dot_product_attention, implementation="cudnn"), heads, heads, heads)
    except RuntimeError:  # "cuDNN is not detected"
        return False
    return True


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(query · keyᵀ / √d) · value for each head: [B,M,heads,d], [B,N,heads,d] twice, to [B,M,heads,d]; the softmax is in float32."""
    if forms.is_portable():
        return linear.attention(query, key, value, jax.jit(linear.last_softmax))  # a call of its own, which other engines have whole
    platform = forms.target().platform
    if platform == "cpu":
        return linear.attention(query, key, value)
    fits_cudnn = query.dtype in (jnp.bfloat16, jnp.float16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128
    flash = fits_cudnn and platform == "gpu" and _has_cudnn()
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn" if flash else "xla")


class Attention(nnx.Module):
    """Multi-head self-attention: `qkv`, one layer for queries, keys and values; `project`."""

    def __init__(self, features: int, heads: int, *, qkv_bias: bool, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        options = {"kernel_init": small_normal, "dtype": dtype, "rngs": rngs}
        self.qkv = layers.Linear(features, 3 * features, use_bias=qkv_bias, **options)
        self.project = layers.Linear(features, features, **options)

    def __call__(self, x: jax.Array, rotation: Rotation | None = None, queries: int | None = None) -> jax.Array:
        """Returns what the first `queries` tokens, by default all, find in all: [B,queries,D]."""
        features = x.shape[-1]
        if queries is None:
            query, key, value = jnp.split(self.qkv(x), 3, -1)
        else:
            query = self.qkv(layers.part(x, slice(queries)), slice(features))
            key, value = jnp.split(self.qkv(x, slice(features, None)), 2, -1)
        query, key, value = (part.reshape(*part.shape[:2], self.heads, features // self.heads) for part in (query, key, value))
        if rotation is not None:
            query, key = rotation(query), rotation(key)
        found = attend(query, key, value)
        return self.project(found.reshape(*found.shape[:2], features))


class MLP(nnx.Module):
    """Expand to four times the channels, GELU, project: `expand`, `project`."""

    def __init__(self, features: int, *, dtype: Any, rngs: nnx.Rngs):
        options = {"kernel_init": small_normal, "dtype": dtype, "rngs": rngs}
        self.expand = layers.Linear(features, 4 * features, **options)
        self.project = layers.Linear(4 * features, features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.project(gelu(self.expand(x)))


class SwiGLU(nnx.Module):
    """An expansion that is multiplied by a gate, silu of another (Shazeer, 2020, https://arxiv.org/abs/2002.05202).

    Parameters: `gate`, `expand`, `project`.
    """

    def __init__(self, features: int, *, dtype: Any, rngs: nnx.Rngs):
        options = {"kernel_init": small_normal, "dtype": dtype, "rngs": rngs}
        self.gate = layers.Linear(features, 4 * features, **options)
        self.expand = layers.Linear(features, 4 * features, **options)
        self.project = layers.Linear(4 * features, features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.project(jax.nn.silu(self.gate(x)) * self.expand(x))


class Block(nnx.Module):
    """Attention and a feed-forward network, each on normalised tokens and added to them.

    Parameters: `norm1`, `attention`, `norm2`, `mlp`; with `layer_scale`, its initial value, also `layer_scale1` and `layer_scale2`, which
    multiply what is added (Touvron et al., 2021, https://arxiv.org/abs/2103.17239).
    """

    def __init__(self, attention: Attention, mlp: MLP | SwiGLU, norms: tuple[nnx.LayerNorm, nnx.LayerNorm], layer_scale: float | None):
        self.norm1, self.norm2 = norms
        self.attention, self.mlp = attention, mlp
        self.has_layer_scale = layer_scale is not None
        if layer_scale is not None:
            features = attention.project.out_features
            self.layer_scale1, self.layer_scale2 = LayerScale(features, layer_scale), LayerScale(features, layer_scale)

    def __call__(self, x: jax.Array, rotation: Rotation | None = None, queries: int | None = None) -> jax.Array:
        """Maps tokens to tokens, [B,N,D]; or, with `queries`, to the first of these, which saves most of the work on the others."""
        return self.of_normalised(x, self.norm1(x), rotation, queries)

    def of_normalised(self, x: jax.Array, normalised: jax.Array, rotation: Rotation | None, queries: int | None) -> jax.Array:
        """What a call returns, by the tokens and by what `norm1` makes of them, which is all that the attention sees."""
        y = self.attention(normalised, rotation, queries)
        x = layers.residual_sum(layers.part(x, slice(queries)), self.layer_scale1(y) if self.has_layer_scale else y)
        y = self.mlp(self.norm2(x))
        return layers.residual_sum(x, self.layer_scale2(y) if self.has_layer_scale else y)


class AttentionPool(nnx.Module):
    """A learned query that gathers all tokens in one, and a feed-forward network (Zhai et al., 2022, https://arxiv.org/abs/2106.04560).

    Maps [B,N,D] to [B,D]. Parameters: `latent`, `query`, `key_value`, `project`, `norm`, `mlp`.
    """

    def __init__(self, features: int, heads: int, norm: nnx.LayerNorm, *, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        options = {"kernel_init": small_normal, "dtype": dtype, "rngs": rngs}
        self.latent = nnx.Param(small_normal(rngs.params(), (1, features)))
        self.query = layers.Linear(features, features, **options)
        self.key_value = layers.Linear(features, 2 * features, **options)
        self.project = layers.Linear(features, features, **options)
        self.norm = norm
        self.mlp = MLP(features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, features = x.shape
        channels = features // self.heads
        query = jnp.broadcast_to(self.query(self.latent[...]).reshape(1, 1, self.heads, channels), (batch, 1, self.heads, channels))
        key, value = (part.reshape(batch, tokens, self.heads, channels) for part in jnp.split(self.key_value(x), 2, -1))
        pooled = self.project(attend(query, key, value).reshape(batch, features))
        return pooled + self.mlp(self.norm(pooled))
