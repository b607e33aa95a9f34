"""Linear layers, residual sums and attention that are fast on XLA:CPU, forward and backward."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imgclf.models.cpu import convolution


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x · kernel, [...,C] and [C,K] to [...,K].

    Autodiff's gradient of the kernel is a dot over two axes of x. XLA:CPU copies x into another order for that, and computes what makes x
    anew in that order. A dot over the one axis of a matrix reads x as it is.
    """
    return (_rows(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _product_residuals(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, kernel), (x, kernel)


def _product_gradients(residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return (_rows(grad) @ kernel.T).reshape(x.shape), _rows(x).T @ _rows(grad)


product.defvjp(_product_residuals, _product_gradients)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns x + bias, whose gradient is summed by dots; autodiff's reduction takes twenty times as long."""
    return x + bias


def _bias_gradients(_: None, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    return grad, convolution.column_sums(grad)[0]


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _bias_gradients)


@jax.custom_vjp
def residual_sum(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns x + y, computed once, and so is its gradient.

    XLA:CPU would fuse the sum into each of its consumers: a block would add up what all blocks before it have added, and the gradient
    likewise, which is slower with the square of the depth.
    """
    return convolution.not_inlined(lax.add)(x, y)


def _sum_gradients(_: None, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    # rounding to float32 does nothing, but makes a computation of what would be the argument itself
    once = convolution.not_inlined(lambda grad: lax.reduce_precision(grad, 8, 23))(grad)
    return once, once


residual_sum.defvjp(lambda x, y: (residual_sum(x, y), None), _sum_gradients)


def last_softmax(x: jax.Array) -> jax.Array:
    """The softmax of the last axis."""
    return jax.nn.softmax(x, -1)


def attention(query: jax.Array, key: jax.Array, value: jax.Array, softmax: Callable[[jax.Array], jax.Array] = last_softmax) -> jax.Array:
    """softmax(query · keyᵀ / √d) · value: [B,M,heads,d], [B,N,heads,d] twice, to [B,M,heads,d].

    All heads of all images are one leading axis, as XLA:CPU is slower at dots over axes in between.
    """
    batch, queries, heads, channels = query.shape

    def by_head(x: jax.Array) -> jax.Array:
        return x.transpose(0, 2, 1, 3).reshape(batch * heads, -1, channels)

    scaled = by_head(query) * np.float32(channels**-0.5)
    weights = softmax(lax.dot_general(scaled, by_head(key), (((2,), (2,)), ((0,), (0,)))))
    found = lax.dot_general(weights, by_head(value), (((2,), (1,)), ((0,), (0,))))
    return jnp.transpose(found.reshape(batch, heads, queries, channels), (0, 2, 1, 3))
