"""Depthwise convolution on the CPU, as a sum over the places of the kernel: XLA:CPU's grouped convolution loops over the groups.

Maps are [B,H,W,C]; depthwise kernels are [kh,kw,1,C·m], as in flax: output channel c·m + i comes from input channel c.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from imgclf.models.cpu import convolution
from imgclf.models.cpu.convolution import Edges

_SUMS = 3  # made in one loop of the kernel's gradient: XLA:CPU does not vectorise a loop of five, which takes four to ten times longer


def conv2d(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges) -> jax.Array:
    """Cross-correlates each channel with its own kernels: [B,H,W,C] and [kh,kw,1,C·m] to [B,h,w,C·m]."""
    multiplier = kernel.shape[-1] // x.shape[-1]
    return _shifts(jnp.repeat(x, multiplier, axis=-1) if multiplier > 1 else x, kernel, stride, padding)


def _places(kernel: jax.Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _shifted(x: jax.Array, i: int, j: int, stride: int, h: int, w: int) -> jax.Array:
    """The inputs that the kernel's row i and column j are multiplied by: [B,h,w,C]."""
    batch, _, _, channels = x.shape
    return lax.slice(x, (0, i, j, 0), (batch, i + stride * (h - 1) + 1, j + stride * (w - 1) + 1, channels), (1, stride, stride, 1))


def _multiply_add(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The convolution of padded maps, summed in float32."""
    h, w = ((size - k) // stride + 1 for size, k in zip(x.shape[1:3], kernel.shape, strict=False))
    shares = []
    for i, j in _places(kernel):
        share = _float32(_shifted(x, i, j, stride, h, w))
        weights = lax.squeeze(lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, 1, kernel.shape[3])), (0, 1, 2))
        weights = lax.broadcast_in_dim(_float32(weights), share.shape, (3,))
        shares.append(lax.mul(share, weights))
    return lax.convert_element_type(functools.reduce(lax.add, shares), x.dtype)


def _products(x: jax.Array, grad: jax.Array, row: int, columns: Sequence[int], stride: int) -> tuple[jax.Array, ...]:
    """Products of the gradient and the inputs of some places in a row of the kernel, summed over images: float32 [h,w,C] each."""
    _, h, w, _ = grad.shape
    return convolution.image_sums(*(lax.mul(_float32(_shifted(x, row, j, stride, h, w)), _float32(grad)) for j in columns))


def _float32(x: jax.Array) -> jax.Array:
    return lax.convert_element_type(x, jnp.float32)


def _pad(x: jax.Array, padding: Edges) -> jax.Array:
    return lax.pad(x, lax.full((), 0, x.dtype), ((0, 0, 0), *((*edges, 0) for edges in padding), (0, 0, 0)))


# The parts are computations of their own: XLA would else compute their operands anew for each place of the kernel, and in training the
# convolution itself anew for each that reads it, such as the sums in the gradient of the normalisation that follows.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifts(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges) -> jax.Array:
    return _multiply_add(_padded(x, padding), kernel, stride)


def _padded(x: jax.Array, padding: Edges) -> jax.Array:
    return convolution.not_inlined(lambda x: _pad(x, padding))(x)


def _shifts_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = _padded(x, padding)
    return convolution.not_inlined(lambda x, kernel: _multiply_add(x, kernel, stride))(x, kernel), (x, kernel)


def _shifts_backward(stride: int, padding: Edges, residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    kernel_grad = []
    for row, start in itertools.product(range(kernel.shape[0]), range(0, kernel.shape[1], _SUMS)):
        columns = range(start, min(start + _SUMS, kernel.shape[1]))
        products = convolution.not_inlined(lambda x, grad, row=row, columns=columns: _products(x, grad, row, columns, stride))(x, grad)
        kernel_grad += convolution.column_sums(*products)
    size = tuple(side - sum(edges) for side, edges in zip(x.shape[1:3], padding, strict=True))
    return _input_gradient(grad, kernel, size, stride, padding), jnp.stack(kernel_grad).reshape(kernel.shape).astype(kernel.dtype)


def _input_gradient(grad: jax.Array, kernel: jax.Array, size: tuple[int, ...], stride: int, padding: Edges) -> jax.Array:
    """The convolution's transpose, of which there are three forms: each is two to six times faster than the others where it is used."""
    if 1 < stride <= min(kernel.shape[:2]):  # as dense convolutions do it: one for each place in a block of stride x stride inputs

        def by_places(grad: jax.Array, kernel: jax.Array) -> jax.Array:
            shares = []
            for vertical, horizontal in convolution.input_places(kernel.shape, size, grad.shape, stride, padding):
                edges = vertical.edges, horizontal.edges
                shares.append(_multiply_add(_pad(grad, edges), lax.rev(kernel, (0, 1))[vertical.taps, horizontal.taps], 1))
            return convolution.interleaved(shares, size, stride)

        return convolution.not_inlined(by_places)(grad, kernel)
    around: Edges = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, padding, strict=False))  # type: ignore[assignment]
    if kernel.shape[0] > 3 and min(map(min, around)) >= 0:
        by_flipped = convolution.not_inlined(lambda grad, kernel: _multiply_add(grad, lax.rev(kernel, (0, 1)), 1))
        return by_flipped(_padded(grad, around), kernel)
    unpadded = jax.ShapeDtypeStruct((grad.shape[0], *size, grad.shape[3]), grad.dtype)

    def transposed(grad: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: _multiply_add(_pad(x, padding), kernel, stride), unpadded)(grad)[0]

    return convolution.not_inlined(transposed)(grad, kernel)


_shifts.defvjp(_shifts_forward, _shifts_backward)
