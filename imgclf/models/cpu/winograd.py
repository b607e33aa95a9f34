"""3x3 convolutions on the CPU with 16 instead of 36 multiplications for each 2x2 outputs; `layers` uses them where they are faster.

Algorithm F(2x2, 3x3) of Lavin and Gray, 2016 (https://arxiv.org/abs/1509.09308): tiles of the maps and the kernel are transformed, and
the convolution becomes one large dot for each of the 16 places in a tile. The transforms only add and halve, so that results differ
from the plain convolution's by float32 rounding. Maps are [B,H,W,C], kernels [3,3,C,K]; a tile gives 2x2 outputs.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from imgclf.models.cpu.convolution import Edges, flipped, kernel_gradient, not_inlined

Matrix = tuple[tuple[float, ...], ...]

_MAPS = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # the paper's Bᵀ
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
_OUTPUTS = ((1, 1, 1, 0), (0, 1, -1, -1))  # Aᵀ

_MOST_BYTES = 2**24  # of the transformed maps, so that they stay in or near the cache; with many channels, twice that is still faster


def suits(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, products: jax.typing.DTypeLike = jnp.float32) -> bool:
    """Whether this algorithm is faster than the plain convolution: where the dots save more than the transforms cost, mostly in memory.

    That takes many channels, and many tiles, as the kernel is transformed at each call.
    """
    if kernel.shape[:2] != (3, 3) or stride != 1 or x.dtype != jnp.float32 or max(map(max, padding)) > 2:
        return False
    few, many = sorted(kernel.shape[2:])
    tiles = x.shape[0] * _tiles(x.shape[1]) * _tiles(x.shape[2])
    most = _MOST_BYTES * (4 if products == jnp.bfloat16 else 2 if few >= 256 else 1)  # the alternative to rounded products is slower
    return few >= 64 and tiles >= 128 and 16 * 4 * tiles * many <= most


def _combination(row: tuple[float, ...], part: Callable[[int], jax.Array]) -> jax.Array:
    """Σ row[i] · part(i), without the terms that are zero."""
    total: jax.Array | None = None
    for i, weight in enumerate(row):
        if not weight:
            continue
        share = part(i)
        if total is None:
            total = share if weight == 1 else share * weight
        elif abs(weight) == 1:
            total = total + share if weight == 1 else total - share
        else:
            total = total + share * weight
    assert total is not None  # no row is all zeros
    return total


def _transform(matrix: Matrix, part: Callable[[int, int], jax.Array]) -> list[jax.Array]:
    """matrix · parts · matrixᵀ, row by row, for a square of arrays."""

    def place(row: tuple[float, ...], column: tuple[float, ...]) -> jax.Array:
        return _combination(row, lambda i: _combination(column, lambda j: part(i, j)))

    return [place(row, column) for row in matrix for column in matrix]


def _tiles(size: int) -> int:
    return -(-size // 2)


def _padded(x: jax.Array, padding: Edges, h: int, w: int) -> jax.Array:
    """The maps padded to all pixels that the tiles of h x w outputs reach."""
    edges = [(low, 2 * _tiles(n) + 2 - size - low, 0) for n, size, (low, _) in zip((h, w), x.shape[1:3], padding, strict=True)]
    return lax.pad(x, lax.full((), 0, x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def _map_tiles(x: jax.Array) -> list[jax.Array]:
    """Padded maps' 4x4 tiles at every second pixel, transformed: one [B·⌈h/2⌉·⌈w/2⌉, C] for each of the 16 places."""
    batch, height, width, channels = x.shape

    def place(i: int, j: int) -> jax.Array:
        stop = (batch, height - 3 + i, width - 3 + j, channels)
        return lax.slice(x, (0, i, j, 0), stop, (1, 2, 2, 1))

    return [tile.reshape(-1, channels) for tile in _transform(_MAPS, place)]


def _outputs(products: list[jax.Array], batch: int, h: int, w: int) -> jax.Array:
    """The convolution [B,h,w,K] of its 16 products."""
    features = products[0].shape[-1]
    zero, shares = lax.full((), 0, products[0].dtype), []
    for place, share in enumerate(_transform(_OUTPUTS, lambda i, j: products[4 * i + j])):
        share = lax.reshape(share, (batch, _tiles(h), _tiles(w), features))
        edges = [(start, 1 - start, 1) for start in divmod(place, 2)]
        shares.append(lax.pad(share, zero, ((0, 0, 0), *edges, (0, 0, 0))))
    return lax.slice(functools.reduce(lax.add, shares), (0, 0, 0, 0), (batch, h, w, features))


def _conv(x: jax.Array, kernel: jax.Array, padding: Edges, products: jax.typing.DTypeLike) -> jax.Array:
    h, w = (size + sum(edges) - 2 for size, edges in zip(x.shape[1:3], padding, strict=True))

    def of_padded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        kernels = [k.astype(products) for k in _transform(_KERNEL, lambda i, j: kernel[i, j].astype(jnp.float32))]
        tiles = _map_tiles(x)
        shares = [lax.dot(tile.astype(products), k, preferred_element_type=jnp.float32) for tile, k in zip(tiles, kernels, strict=True)]
        return _outputs(shares, x.shape[0], h, w)

    return not_inlined(of_padded)(_padded(x, padding, h, w), kernel)  # not inlined, so that the transformed maps are freed at once


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(x: jax.Array, kernel: jax.Array, padding: Edges, products: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """A convolution of stride 1 of float32 maps with a 3x3 kernel; padding is less than 3 on each side.

    `products` is the dtype to which the operands of the dots are rounded, also in the gradient of the maps; sums and results are in
    float32. With bfloat16, the error is 1.5 times that of the plain convolution of rounded operands.
    """
    return _conv(x, kernel, padding, products)


def _residuals(
    x: jax.Array, kernel: jax.Array, padding: Edges, products: jax.typing.DTypeLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(x, kernel, padding, products), (x, kernel)


def _gradients(
    padding: Edges, products: jax.typing.DTypeLike, residuals: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    (top, bottom), (left, right) = padding
    around = (2 - top, 2 - bottom), (2 - left, 2 - right)
    # the gradient of the kernel gains nothing from transforms, as both of its operands are large
    return _conv(grad, flipped(kernel), around, products), kernel_gradient(x, grad, kernel.shape, 1, padding)


conv2d.defvjp(_residuals, _gradients)
