"""What larger tiles would bring: Winograd's F(4x4, 3x3) beside the F(2x2, 3x3) that imgclf has, in speed and in rounding.

    taskset -c 0 python experiments/benchmarks/winograd.py
    taskset -c 0 python experiments/benchmarks/winograd.py --batch-size 8 --rounds 9

F(4x4, 3x3) multiplies 36 times where the plain convolution does 144 times and F(2x2, 3x3) 64 times; its transforms multiply by up to 8,
divide by up to 24, and read 36 pixels for each tile. The layers are the 3x3 convolutions of stride 1 of a ResNet-18 at 128 and 224 px, on
maps as ReLU leaves them. Speed is CPU seconds of the plain convolution over those of the other, in turn; the error is the root mean square
difference from float64 on one image, in parts of the results' spread. Cost: 2 minutes on one core.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imgclf.models.cpu import convolution, winograd
from imgclf.runtime import processor

_PADDING = ((1, 1), (1, 1))
# The matrices Bᵀ, G and Aᵀ of Lavin and Gray, 2016 (https://arxiv.org/abs/1509.09308), section 4.3.
_MAPS = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_SIDE = 6  # pixels of a tile
LAYERS = ((32, 64), (56, 64), (16, 128), (28, 128), (8, 256), (14, 256), (4, 512), (7, 512))  # height and width, channels


def transformed(matrix: Sequence[Sequence[float]], part: Callable[[int, int], jax.Array]) -> list[jax.Array]:
    """matrix · parts · matrixᵀ, row by row, for a square of arrays."""

    def summed(row: Sequence[float], term: Callable[[int], jax.Array]) -> jax.Array:
        return functools.reduce(lax.add, (term(i) if weight == 1 else weight * term(i) for i, weight in enumerate(row) if weight))

    return [summed(row, lambda i, column=column: summed(column, lambda j, i=i: part(i, j))) for row in matrix for column in matrix]  # type: ignore[misc]


def larger_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """F(4x4, 3x3): float32 [B,H,W,C] by [3,3,C,K], padded by one, to [B,H,W,K]."""
    batch, height, width, channels = x.shape
    down, across = -(-height // 4), -(-width // 4)

    def of_padded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        def pixels(i: int, j: int) -> jax.Array:
            stop = (batch, 4 * down - 3 + i, 4 * across - 3 + j, channels)
            return lax.slice(x, (0, i, j, 0), stop, (1, 4, 4, 1)).reshape(-1, channels)

        kernels = transformed(_KERNEL, lambda i, j: kernel[i, j])
        products = [lax.dot(tile, k) for tile, k in zip(transformed(_MAPS, pixels), kernels, strict=True)]
        places = [share.reshape(batch, down, 1, across, 1, -1) for share in transformed(_OUTPUTS, lambda i, j: products[_SIDE * i + j])]
        rows = [jnp.concatenate(places[4 * row : 4 * row + 4], axis=4) for row in range(4)]
        return jnp.concatenate(rows, axis=2).reshape(batch, 4 * down, 4 * across, -1)[:, :height, :width]

    edges = [(1, 4 * tiles + 1 - extent, 0) for tiles, extent in ((down, height), (across, width))]
    return convolution.not_inlined(of_padded)(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0))), kernel)


def exact(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution in float64."""
    _, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64) for i in range(3) for j in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{processor.describe()['cpu']}; jax {jax.__version__}; {processor.cores()} core(s)")
    print("| 3x3, stride 1 | plain: error | F(2x2): speed; error | F(4x4): speed; error |\n|---|---|---|---|")
    for side, channels in LAYERS:
        rng = np.random.default_rng(0)
        maps = np.maximum(rng.standard_normal((arguments.batch_size, side, side, channels), np.float32), 0)
        kernel = rng.standard_normal((3, 3, channels, channels), np.float32) * np.float32(np.sqrt(2 / (9 * channels)))
        x, k, right = jnp.asarray(maps), jnp.asarray(kernel), exact(maps[:1], kernel)
        forms = {
            "plain": jax.jit(lambda x, k: convolution.conv2d(x, k, 1, _PADDING)),
            "2x2": jax.jit(lambda x, k: winograd.conv2d(x, k, _PADDING)),
            "4x4": jax.jit(larger_tiles),
        }
        errors = {name: float(np.sqrt(np.mean((np.asarray(form(x, k))[:1] - right) ** 2)) / right.std()) for name, form in forms.items()}
        times: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(arguments.rounds):
            for name, form in forms.items():
                start = time.process_time()
                jax.block_until_ready([form(x, k) for _ in range(3)])
                times[name].append(time.process_time() - start)
        cells = [f"{errors['plain']:.1e}"]
        for name in ("2x2", "4x4"):
            ratios = sorted(plain / other for plain, other in zip(times["plain"], times[name], strict=True))
            cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}); {errors[name]:.1e}")
        print(f"| {side}x{side}, {channels} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
