"""Layers that compute each pixel from itself: LayerNorm, GELU and layer scale, with gradients that are fast on the CPU.

XLA:CPU fuses such layers into each of their consumers. A gradient has three of these behind a dense layer: the gradients of its input, its
kernel and its bias, which read in different orders. So error functions and norms were computed three times, a block of ConvNeXt took four
times as long as its parts. In training, what these layers return is computed once here, forward and backward.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from imgclf.models import forms
from imgclf.models.cpu import convolution
from imgclf.models.normalization import column_sums


def _once(fn: Callable[..., Any], *args: jax.Array) -> Any:
    """`fn`, made of lax operations, of the arguments; on the CPU it is not fused with what they come from, nor with its consumers."""
    return forms.by_platform(*args, cpu=convolution.not_inlined(fn), default=fn)


def _column(values: jax.Array, x: jax.Array) -> jax.Array:
    """A value per channel, broadcast to maps: [C] to [...,C] in float32."""
    return lax.broadcast_in_dim(lax.convert_element_type(values, jnp.float32), x.shape, (x.ndim - 1,))


def _pixel(values: jax.Array, x: jax.Array) -> jax.Array:
    """A value per pixel, broadcast to maps: [...,1] to [...,C]."""
    return lax.broadcast_in_dim(values, x.shape, tuple(range(x.ndim)))


def _wide(x: jax.Array) -> jax.Array:
    return lax.convert_element_type(x, jnp.float32)


def _normal_cdf(x: jax.Array) -> jax.Array:
    half = lax.full_like(x, 0.5)
    return lax.mul(half, lax.add(lax.full_like(x, 1), lax.erf(lax.mul(x, lax.full_like(x, math.sqrt(0.5))))))


def _gelu(x: jax.Array) -> jax.Array:
    return lax.convert_element_type(lax.mul(_wide(x), _normal_cdf(_wide(x))), x.dtype)


def _gelu_gradient(x: jax.Array, grad: jax.Array) -> jax.Array:
    wide = _wide(x)
    density = lax.mul(lax.exp(lax.mul(lax.square(wide), lax.full_like(wide, -0.5))), lax.full_like(wide, 1 / math.sqrt(2 * math.pi)))
    return lax.convert_element_type(lax.mul(_wide(grad), lax.add(_normal_cdf(wide), lax.mul(wide, density))), x.dtype)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x · Φ(x) (Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415), exactly, computed in float32; in `x`'s dtype.

    Written by erf it takes half as long on the CPU as jax.nn.gelu, which is written by erfc; and the gradient keeps x alone.
    """
    return _gelu(x)


gelu.defvjp(lambda x: (_once(_gelu, x), x), lambda x, grad: (_once(_gelu_gradient, x, grad),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalises each pixel's channels, [...,C], by their mean and biased variance (Ba et al., 2016), in float32; in `x`'s dtype."""
    mean, multiplier = _pixel_moments(x, epsilon)
    return _scaled(x, mean, multiplier, scale, bias)


def _pixel_moments(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Mean and reciprocal standard deviation of each pixel, float32 [...,1]."""

    def mean_of(x: jax.Array) -> jax.Array:
        total = lax.reduce(x, lax.full((), 0, x.dtype), lax.add, (x.ndim - 1,))
        return lax.expand_dims(lax.div(total, lax.full_like(total, x.shape[-1])), (x.ndim - 1,))

    x = lax.convert_element_type(x, jnp.float32)
    mean = mean_of(x)
    variance = mean_of(lax.square(lax.sub(x, _pixel(mean, x))))
    return mean, lax.rsqrt(lax.add(variance, lax.full_like(variance, epsilon)))


def _normalized(x: jax.Array, mean: jax.Array, multiplier: jax.Array) -> jax.Array:
    return lax.mul(lax.sub(lax.convert_element_type(x, jnp.float32), _pixel(mean, x)), _pixel(multiplier, x))


def _scaled(x: jax.Array, mean: jax.Array, multiplier: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    y = lax.add(lax.mul(_normalized(x, mean, multiplier), _column(scale, x)), _column(bias, x))
    return lax.convert_element_type(y, x.dtype)


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean, multiplier = _once(lambda x: _pixel_moments(x, epsilon), x)
    return _once(_scaled, x, mean, multiplier, scale, bias), (x, mean, multiplier, scale)


def _layer_norm_backward(epsilon: float, residuals: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    x, mean, multiplier, scale = residuals
    grad32, normalized = grad.astype(jnp.float32), (x.astype(jnp.float32) - mean) * multiplier
    bias_grad, scale_grad = column_sums(grad32, grad32 * normalized)
    shares = [(grad32 * scale).mean(-1, keepdims=True), (grad32 * scale * normalized).mean(-1, keepdims=True)]

    def centred(x: jax.Array, grad: jax.Array, scale: jax.Array, *pixels: jax.Array) -> jax.Array:
        mean, multiplier, share, normal_share = pixels
        scaled = lax.mul(lax.convert_element_type(grad, jnp.float32), _column(scale, x))
        along = lax.add(_pixel(share, x), lax.mul(_normalized(x, mean, multiplier), _pixel(normal_share, x)))
        return lax.convert_element_type(lax.mul(_pixel(multiplier, x), lax.sub(scaled, along)), x.dtype)

    return _once(centred, x, grad, scale, mean, multiplier, *shares), scale_grad, bias_grad


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nnx.LayerNorm):
    """flax's layer with the gradient above: parameters `scale`, `bias`, float32 [C]; computes in `dtype`."""

    scale: nnx.Param[jax.Array]
    bias: nnx.Param[jax.Array]

    def __init__(self, features: int, *, epsilon: float = 1e-6, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        super().__init__(features, epsilon=epsilon, use_fast_variance=False, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # no mask
        return layer_norm(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)


@jax.custom_vjp
def scale_channels(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x · scale, [...,C] and [C], in `x`'s dtype."""
    return x * scale.astype(x.dtype)


def _scale_channels_backward(residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, scale = residuals

    def scaled(grad: jax.Array, scale: jax.Array) -> jax.Array:
        return lax.convert_element_type(lax.mul(lax.convert_element_type(grad, jnp.float32), _column(scale, grad)), grad.dtype)

    return _once(scaled, grad, scale), column_sums(grad.astype(jnp.float32) * x.astype(jnp.float32))[0]


scale_channels.defvjp(lambda x, scale: (scale_channels(x, scale), (x, scale)), _scale_channels_backward)


class LayerScale(nnx.Module):
    """A factor for each channel (Touvron et al., 2021, https://arxiv.org/abs/2103.17239): `scale`."""

    def __init__(self, features: int, init: float):
        self.scale = nnx.Param(jnp.full(features, init, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return scale_channels(x, self.scale[...])
