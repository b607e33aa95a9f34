"""Layers in bfloat16 whose parameters' gradients are summed in float32, from the products on: within a device and between devices.

Autodiff rounds the gradient of a rounded kernel, too, before it becomes float32 for the optimizer. Devices that share a batch add up their
parts where the product is, and so rounded: to 8 bits, once for each pair that is added. `config.model.gradient_precision` chooses.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from imgclf.models.cpu.convolution import Edges
from imgclf.models.normalization import column_sums


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv2d(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, groups: int) -> jax.Array:
    """A convolution of maps [B,H,W,C] with the kernel, float32 [kh,kw,C / groups,C_out], rounded to their dtype."""
    return _convolve(x, kernel.astype(x.dtype), stride, padding, groups)


def _conv2d_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, groups: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(x, kernel, stride, padding, groups), (x, kernel)


def _conv2d_backward(
    stride: int, padding: Edges, groups: int, residuals: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The kernel's gradient is a convolution of the maps with the gradient, whose places are `stride` apart; images are its channels."""
    x, kernel = residuals
    rounded = kernel.astype(x.dtype)
    (x_grad,) = jax.linear_transpose(lambda x: _convolve(x, rounded, stride, padding, groups), x)(grad)
    sizes = zip(x.shape[1:3], grad.shape[1:3], kernel.shape[:2], padding, strict=True)
    edges = [(low, (outputs - 1) * stride + side - extent - low) for extent, outputs, side, (low, _) in sizes]
    kernel_grad = lax.conv_general_dilated(
        x,
        grad,
        (1, 1),
        edges,
        rhs_dilation=(stride, stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        batch_group_count=groups,
        preferred_element_type=jnp.float32,
    )
    return x_grad, kernel_grad


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Products of the last axis of x, [...,in], with the kernel, float32 [in,out], rounded to its dtype."""
    return x @ kernel.astype(x.dtype)


def _matmul_backward(residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    others = tuple(range(x.ndim - 1))
    kernel_grad = lax.dot_general(x, grad, ((others, others), ((), ())), preferred_element_type=jnp.float32)
    return grad @ kernel.astype(x.dtype).T, kernel_grad


matmul.defvjp(lambda x, kernel: (matmul(x, kernel), (x, kernel)), _matmul_backward)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x, [...,C], plus the bias, float32 [C], rounded to its dtype."""
    return x + bias.astype(x.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), lambda _, grad: (grad, column_sums(grad)[0]))
