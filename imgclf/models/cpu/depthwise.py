"""Depthwise convolution in the form that is fast on the platform at hand, and TensorFlow's padding at strides above 1.

Maps are [B,H,W,C]; depthwise kernels are [kh,kw,1,C·m], as in flax: output channel c·m + i comes from input channel c.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from imgclf.models import layers
from imgclf.models.cpu import convolution
from imgclf.models.layers import Padding


def same_edges(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and behind an axis under TensorFlow's "same": ceil(size / stride) outputs, the odd pixel behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: jax.Array, kernel: int, stride: int, value: float = 0.0) -> jax.Array:
    """Pads maps for a window without padding, as "same" would (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).

    `value` is −inf before max-pooling.
    """
    edges = [(*same_edges(size, kernel, stride), 0) for size in x.shape[1:3]]
    return lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def depthwise_conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> jax.Array:
    """Cross-correlates each channel with its own kernels: [B,H,W,C] and [kh,kw,1,C·m] to [B,h,w,C·m]."""

    def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
        )

    def by_shifts(x: jax.Array, kernel: jax.Array) -> jax.Array:
        multiplier = kernel.shape[-1] // x.shape[-1]
        x = jnp.repeat(x, multiplier, axis=-1) if multiplier > 1 else x
        return _shifts(x, kernel, stride, padding)

    return lax.platform_dependent(x, kernel, cpu=by_shifts, default=grouped)


def _places(kernel: jax.Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _shifted(x: jax.Array, i: int, j: int, stride: int, h: int, w: int) -> jax.Array:
    """What the kernel's row i and column j meet: [B,h,w,C]."""
    batch, _, _, channels = x.shape
    return lax.slice(x, (0, i, j, 0), (batch, i + stride * (h - 1) + 1, j + stride * (w - 1) + 1, channels), (1, stride, stride, 1))


def _multiply_add(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The convolution of padded maps, summed in float32."""
    h, w = ((size - k) // stride + 1 for size, k in zip(x.shape[1:3], kernel.shape, strict=False))
    total = None
    for i, j in _places(kernel):
        share = _float32(_shifted(x, i, j, stride, h, w))
        weights = lax.squeeze(lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, 1, kernel.shape[3])), (0, 1, 2))
        weights = lax.broadcast_in_dim(_float32(weights), share.shape, (3,))
        total = lax.mul(share, weights) if total is None else lax.add(total, lax.mul(share, weights))
    return lax.convert_element_type(total, x.dtype)


def _products(x: jax.Array, grad: jax.Array, row: int, width: int, stride: int) -> tuple[jax.Array, ...]:
    """Products of the gradient and of what each place in a row of the kernel met, summed over images: float32 [h,w,C] each."""
    _, h, w, _ = grad.shape
    return convolution.image_sums(*(lax.mul(_float32(_shifted(x, row, j, stride, h, w)), _float32(grad)) for j in range(width)))


def _float32(x: jax.Array) -> jax.Array:
    return lax.convert_element_type(x, jnp.float32)


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    return lax.pad(x, lax.full((), 0, x.dtype), ((0, 0, 0), *((*edges, 0) for edges in padding), (0, 0, 0)))


# XLA:CPU's grouped convolution loops over the groups. The pieces are computed apart, or XLA would compute what they are made of
# anew for each place of the kernel.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifts(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    return _shifts_forward(x, kernel, stride, padding)[0]


def _shifts_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding):
    x = convolution.apart(lambda x: _pad(x, padding))(x)
    return _multiply_add(x, kernel, stride), (x, kernel)


def _shifts_backward(stride: int, padding: Padding, residuals: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = residuals
    (top, bottom), (left, right) = padding
    batch, height, width, channels = x.shape
    unpadded = jax.ShapeDtypeStruct((batch, height - top - bottom, width - left - right, channels), x.dtype)

    def transposed(grad: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: _multiply_add(_pad(x, padding), kernel, stride), unpadded)(grad)[0]

    kernel_grad = []
    for row in range(kernel.shape[0]):
        products = convolution.apart(lambda x, grad, row=row: _products(x, grad, row, kernel.shape[1], stride))(x, grad)
        kernel_grad += layers.column_sums(*products)
    return convolution.apart(transposed)(grad, kernel), jnp.stack(kernel_grad).reshape(kernel.shape).astype(kernel.dtype)


_shifts.defvjp(_shifts_forward, _shifts_backward)


class DepthwiseConv(nnx.Module):
    """Square depthwise convolution: parameters `kernel` [k,k,1,C·m] and, where asked for, `bias` [C·m], float32; computes in `dtype`.

    `padding` is explicit, or "same" as in TensorFlow; by default symmetric, as torch's `padding=k // 2`.
    """

    def __init__(
        self,
        features: int,
        kernel: int,
        *,
        multiplier: int = 1,
        stride: int = 1,
        padding: Padding | str | None = None,
        use_bias: bool = False,
        kernel_init: Callable[..., jax.Array] = layers.HE_NORMAL,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = layers.same_padding(kernel) if padding is None else padding
        self.dtype = dtype
        self.kernel = nnx.Param(kernel_init(rngs.params(), (kernel, kernel, 1, features * multiplier), jnp.float32))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(features * multiplier, jnp.float32))
        self.use_bias = use_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        padding = self.padding
        if padding == "same":
            padding = tuple(same_edges(size, kernel.shape[0], self.stride) for size in x.shape[1:3])
        x = depthwise_conv2d(x.astype(self.dtype), kernel, self.stride, padding)
        return x + self.bias[...].astype(self.dtype) if self.use_bias else x
