"""Random initialisation that compiles one small program, whatever the shapes.

`jax.random.normal` compiles a program for every shape, which takes 0.5 to 1 s each on a CPU core: longer than some trainings.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 2**16  # numbers drawn by one call

Initializer = Callable[..., jax.Array]


@jax.jit
def _normal_block(key: jax.Array, block: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, block), (_BLOCK,))


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws from the standard normal distribution, float32; the same numbers inside and outside of `jax.jit`."""
    size = math.prod(shape)
    blocks = -(-size // _BLOCK)
    if isinstance(key, jax.core.Tracer):
        values = jax.vmap(_normal_block, (None, 0))(key, jnp.arange(blocks, dtype=jnp.int32))
        return values.reshape(-1)[:size].reshape(shape)
    values = np.concatenate([_normal_block(key, np.int32(block)) for block in range(blocks)])
    return jnp.asarray(values[:size].reshape(shape))


def normal_by_fan(scale: float, mode: Literal["fan_in", "fan_out"]) -> Initializer:
    """Returns `init(key, shape, dtype)`: normal, variance scale / fan, of dense [in,out] and convolution [kh,kw,in,out] kernels."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        del out_sharding
        fan = math.prod(shape[:-2]) * (shape[-2] if mode == "fan_in" else shape[-1])
        return (normal(key, shape) * np.float32(math.sqrt(scale / fan))).astype(dtype)

    return init


# He et al., 2015 (https://arxiv.org/abs/1502.01852): keeps the variance of activations through ReLU (fan_in), or of gradients (fan_out).
HE_NORMAL = normal_by_fan(2.0, "fan_in")
HE_NORMAL_FAN_OUT = normal_by_fan(2.0, "fan_out")
# LeCun et al., 1998: keeps the variance through a layer without ReLU.
LECUN_NORMAL = normal_by_fan(1.0, "fan_in")
