"""Convolutions on the CPU as dots of operands rounded to bfloat16, summed in float32; `layers` uses them where `bf16_products` is set.

XLA:CPU widens a bfloat16 convolution to float32, and gains nothing. A dot of bfloat16 operands with a float32 result goes to YNNPACK,
which has kernels for avx512_bf16 (twice the speed of float32) and AMX (five times). Other dots are not accelerated.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from imgclf.models.cpu import convolution
from imgclf.models.cpu.convolution import Edges

_MOST_BYTES = 2**26  # of a dot's result, so that it stays in or near the cache; beyond that, float32 is as fast


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges) -> jax.Array:
    """Returns the convolution, float32, of float32 maps [B,H,W,C] with a kernel [kh,kw,C,C_out], which may be rounded already."""
    kh, kw, channels, features = kernel.shape
    batch, height, width, _ = x.shape
    (top, bottom), (left, right) = padding
    h, w = convolution.output_size((height, width), (kh, kw), stride, padding)
    if kh == kw == 1 and padding == ((0, 0), (0, 0)):
        return _dot(x[:, ::stride, ::stride].astype(jnp.bfloat16), kernel[0, 0].astype(jnp.bfloat16))
    size = 4 * batch * features * (height * w * kh if stride == 1 else h * w * 2)
    if kh * kw > 1 and size > _MOST_BYTES:
        return convolution.conv2d(x, kernel.astype(jnp.float32), stride, padding)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    if stride > 1:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        return _sum([_dot(x[:, i::stride, j::stride][:, :h, :w], kernel[i, j]) for i in range(kh) for j in range(kw)])
    # The columns that a row of the kernel reads are concatenated, and one wide dot serves all rows; its shifted parts add up.
    x = jnp.pad(x, ((0, 0), (0, 0), (left, right), (0, 0)))
    columns = jnp.concatenate([x[:, :, j : j + w] for j in range(kw)], -1)
    rows = _dot(columns, kernel.transpose(1, 2, 0, 3).reshape(kw * channels, kh * features))
    rows = jnp.pad(rows.reshape(batch, height, w, kh, features), ((0, 0), (top, bottom), (0, 0), (0, 0), (0, 0)))
    return _sum([rows[:, i : i + h, :, i] for i in range(kh)])


def linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the product, float32, of [...,C] with a kernel [C,K], which may be rounded already."""
    flat = conv2d(x.reshape(1, -1, 1, x.shape[-1]), kernel[None, None], 1, ((0, 0), (0, 0)))
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _sum(shares: list[jax.Array]) -> jax.Array:
    """Their sum, not inlined: every consumer of the maps would compute it anew, and batch normalisation in training has three of them."""
    return convolution.not_inlined(lambda *shares: functools.reduce(lax.add, shares))(*shares)


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    flat = lax.dot(x.reshape(-1, x.shape[-1]), kernel, preferred_element_type=jnp.float32)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _residuals(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(x, kernel, stride, padding), (x, kernel)


def _gradients(stride: int, padding: Edges, residuals: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    if kernel.shape[:2] != (1, 1) or padding != ((0, 0), (0, 0)):
        return jax.vjp(lambda x, kernel: convolution.conv2d(x, kernel, stride, padding), x, kernel)[1](grad)
    used, spread = jax.vjp(lambda x: x[:, ::stride, ::stride], x)
    rounded = convolution.not_inlined(lambda grad: lax.convert_element_type(grad, jnp.bfloat16))(grad)  # once for both dots
    (x_grad,) = spread(_dot(rounded, kernel[0, 0].astype(jnp.bfloat16).T))
    return x_grad, _kernel_gradient_1x1(used, rounded)[None, None].astype(kernel.dtype)


def _kernel_gradient_1x1(x: jax.Array, grad: jax.Array) -> jax.Array:
    """[...,C] and [...,K] to [C,K]: the narrower of the two is transposed by itself, as a dot over leading axes would do that slowly."""
    x, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    transposed = convolution.not_inlined(lambda maps: lax.transpose(lax.convert_element_type(maps, jnp.bfloat16), (1, 0)))
    if x.shape[1] <= grad.shape[1]:
        return lax.dot(transposed(x), grad, preferred_element_type=jnp.float32)
    return lax.dot(transposed(grad), x.astype(jnp.bfloat16), preferred_element_type=jnp.float32).T


conv2d.defvjp(_residuals, _gradients)
