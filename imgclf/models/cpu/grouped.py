"""Grouped convolutions on the CPU, as a few dense ones: XLA:CPU loops over the groups, which takes a hundred times longer in the gradient.

Neighbouring groups are joined until they have about `_CHANNELS` input channels. A joined convolution has a block-diagonal kernel: its
zeros are multiplied, too, but wide convolutions are that much faster.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_CHANNELS = 64  # measured on ResNeXt-50's layers: with 32 or 128 channels, gradients take up to three times longer


def conv2d(x: jax.Array, kernel: jax.Array, groups: int, dense: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """A grouped convolution of [B,H,W,C] and [kh,kw,C / groups,K]; `dense` is the convolution without groups, of maps and a kernel."""
    kh, kw, channels, features = kernel.shape
    joined = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * channels <= _CHANNELS))
    parts = groups // joined
    kernel = kernel.reshape(kh, kw, channels, parts, joined, features // groups)
    kernel = jnp.einsum("hwcpgk,fg->phwfcgk", kernel, jnp.eye(joined, dtype=kernel.dtype), precision="highest")
    kernel = kernel.reshape(parts, kh, kw, joined * channels, features // parts)
    # maps as rows of channels: XLA:CPU takes three times as long to join maps of four axes
    rows = jnp.split(x.reshape(-1, x.shape[-1]), parts, axis=-1)
    made = [dense(part.reshape(*x.shape[:-1], -1), kernel[i]) for i, part in enumerate(rows)]
    joined_rows = jnp.concatenate([part.reshape(-1, part.shape[-1]) for part in made], axis=-1)
    return joined_rows.reshape(*made[0].shape[:-1], features)
