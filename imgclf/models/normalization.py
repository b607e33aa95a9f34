"""The computation of batch normalisation: by the statistics of the batch, of groups of its images, or by frozen ones.

All gradients are written out, as the sums that they need are slow on the CPU as autodiff's own reductions.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from imgclf.models import forms
from imgclf.models.cpu import convolution


def column_sums(*maps: jax.Array) -> list[jax.Array]:
    """Sums over all axes but the last, in float32, [...,W,C] to [C], of one or several maps of one shape."""

    def by_reduction(*maps: jax.Array) -> list[jax.Array]:
        return [x.sum(tuple(range(x.ndim - 1))) for x in maps]

    return forms.by_platform(*(x.astype(jnp.float32) for x in maps), cpu=convolution.column_sums, default=by_reduction)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel, float32 [C], over the global batch."""
    count = x.size // x.shape[-1]

    def two_passes(x: jax.Array) -> tuple[jax.Array, jax.Array]:  # more exact, and as fast where squares are written to memory anyway
        mean = column_sums(x)[0] / count
        return mean, column_sums(lax.square(x - mean))[0] / count

    def one_pass(x: jax.Array) -> tuple[jax.Array, jax.Array]:  # reads the maps once, as flax does
        mean, square = (total / count for total in column_sums(x, lax.square(x)))
        return mean, jnp.maximum(square - lax.square(mean), 0.0)

    return forms.by_platform(x.astype(jnp.float32), cpu=two_passes, default=one_pass)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises maps by the statistics of the batch (Ioffe and Szegedy, 2015, algorithm 1).

    Returns the maps in `x`'s dtype; and mean and biased variance, float32 [C], for the running averages, which carry no gradient.
    """
    return _batch_norm_forward(x, scale, bias, epsilon)[0]


def _batch_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    mean, variance = _moments(x)
    multiplier = lax.rsqrt(variance + epsilon)
    y = (x.astype(jnp.float32) - mean) * (multiplier * scale) + bias
    return (y.astype(x.dtype), mean, variance), (x, mean, multiplier, scale)


def _batch_norm_backward(
    epsilon: float, residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, multiplier, scale = residuals
    grad = cotangents[0].astype(jnp.float32)
    normalized = (x.astype(jnp.float32) - mean) * multiplier
    bias_grad, scale_grad = column_sums(grad, grad * normalized)
    count = x.size // x.shape[-1]

    def centred(x: jax.Array, grad: jax.Array, *columns: jax.Array) -> jax.Array:
        mean, multiplier, scale, bias_share, scale_share = (lax.broadcast_in_dim(column, x.shape, (x.ndim - 1,)) for column in columns)
        normalized = lax.mul(lax.sub(lax.convert_element_type(x, jnp.float32), mean), multiplier)
        grad = lax.sub(grad, lax.add(bias_share, lax.mul(normalized, scale_share)))
        return lax.convert_element_type(lax.mul(grad, lax.mul(multiplier, scale)), x.dtype)

    # a computation of its own on the CPU, as a convolution before it uses it twice, and would compute it twice
    columns = (mean, multiplier, scale, bias_grad / count, scale_grad / count)
    x_grad = forms.by_platform(x, grad, *columns, cpu=convolution.not_inlined(centred), default=centred)
    return x_grad, scale_grad, bias_grad


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def batch_norm_of_groups(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, group: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm` of each `group` images in a row by itself; mean and variance are averaged over the groups.

    Where a group lies on one device, no device waits for another's statistics, neither here nor in the backward pass.

    Raises:
      ValueError: where the images don't divide into such groups.
    """
    if len(x) % group:
        raise ValueError(f"{len(x)} images can't be divided into groups of {group}")
    groups = x.reshape(-1, group, *x.shape[1:])
    y, mean, variance = jax.vmap(lambda images: batch_norm(images, scale, bias, epsilon))(groups)
    return y.reshape(x.shape), mean.mean(0), variance.mean(0)


@jax.custom_vjp
def scale_and_shift(x: jax.Array, mean: jax.Array, multiplier: jax.Array, bias: jax.Array) -> jax.Array:
    """(x − mean) · multiplier + bias, in `x`'s dtype: training's batch normalisation by frozen statistics; `mean` gets no gradient."""
    return ((x.astype(jnp.float32) - mean) * multiplier + bias).astype(x.dtype)


def _scale_and_shift_forward(
    x: jax.Array, mean: jax.Array, multiplier: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return scale_and_shift(x, mean, multiplier, bias), (x, mean, multiplier)


def _scale_and_shift_backward(residuals: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, mean, multiplier = residuals
    grad = cotangent.astype(jnp.float32)
    # autodiff's own reductions are slow on the CPU
    bias_grad, multiplier_grad = column_sums(grad, grad * (x.astype(jnp.float32) - mean))
    return (grad * multiplier).astype(x.dtype), jnp.zeros_like(mean), multiplier_grad, bias_grad


scale_and_shift.defvjp(_scale_and_shift_forward, _scale_and_shift_backward)
