"""Occlusion: how much the score of a class falls when a part of the image is covered.

M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", 2014 (https://arxiv.org/abs/1311.2901), section 4.2. It
asks nothing of the network's insides, and takes a forward pass for each place: 169 at most.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from imgclf.explanation.explained import Explained, batches, classes_of, is_single, padded
from imgclf.training.state import Tree, make_apply_fn
from imgclf.training.step import normalize

CELLS = 14  # a patch is two cells wide and high, and moves by one
_BATCH = 64
Box = tuple[slice, slice]  # rows and columns


def maps(model: Explained, images: np.ndarray, labels: np.ndarray, *, on_batch: Callable[[int], None] = lambda images: None) -> np.ndarray:
    """Explains images by covering them with a grey patch, a seventh of their sides, at each place of a grid.

    Args:
      model, images, labels: see `cam.maps`.
      on_batch: told of the number of images that are done after each.

    Returns:
      float32 [n, h, w], or [n, k, h, w], h and w at most 14: by how much the logit of the class is lower, in the mean of the patches that
      cover a cell. Grey is the mean colour that the input is normalised by.
    """
    classes = classes_of(labels)
    grid = [min(CELLS, side) for side in model.config.data.image_size]
    patches = _patches(grid, model.config.data.image_size)
    grey = np.round(255 * np.asarray(model.config.data.mean, np.float32)).astype(np.uint8)
    found = np.zeros((len(images), classes.shape[1], *grid), np.float32)
    for i, image in enumerate(images):
        covered = np.repeat(image[None], 1 + len(patches), axis=0)
        for view, (pixels, _) in zip(covered[1:], patches, strict=True):
            view[pixels] = grey
        found[i] = _drops(_scores(model, covered, classes[i]), patches, grid)
        on_batch(1)
    return found if np.ndim(labels) > 1 else found[:, 0]


def _patches(grid: Sequence[int], size: Sequence[int]) -> list[tuple[Box, Box]]:
    """Each patch in pixels, and in cells of the grid."""
    edges = [np.round(np.linspace(0, side, cells + 1)).astype(int).tolist() for side, cells in zip(size, grid, strict=True)]
    starts = [range(max(1, cells - 1)) for cells in grid]
    ends = [[min(start + 2, cells) for start in own] for own, cells in zip(starts, grid, strict=True)]
    return [
        (
            (slice(edges[0][top], edges[0][bottom]), slice(edges[1][left], edges[1][right])),
            (slice(top, bottom), slice(left, right)),
        )
        for top, bottom in zip(starts[0], ends[0], strict=True)
        for left, right in zip(starts[1], ends[1], strict=True)
    ]


def _scores(model: Explained, views: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The scores of the labels, int [k], of each view: float32 [n, k]; see `explained.scores`."""
    forward = _compiled(model.graphdef, *model.normalization)
    parts = [
        np.asarray(forward(model.params, model.batch_stats, padded(views[rows], _BATCH)))[: len(views[rows])]
        for rows in batches(len(views), _BATCH)
    ]
    logits = np.concatenate(parts)
    return logits[:, 1:] * (2 * labels - 1) if is_single(model) else logits[:, labels]


@functools.lru_cache(maxsize=8)
def _compiled(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[..., jax.Array]:
    apply = make_apply_fn(graphdef)

    @jax.jit
    def forward(params: Tree, batch_stats: Tree, image: jax.Array) -> jax.Array:
        return apply(params, batch_stats, normalize(image, mean, std))[0]

    return forward


def _drops(found: np.ndarray, patches: Sequence[tuple[Box, Box]], grid: Sequence[int]) -> np.ndarray:
    """The mean drop of the patches that cover each cell, [k, h, w], of scores [1 + patches, k], those of the plain view first."""
    total, count = np.zeros((found.shape[1], *grid)), np.zeros(grid)
    for drop, (_, cells) in zip(found[0] - found[1:], patches, strict=True):
        total[(slice(None), *cells)] += drop[:, None, None]
        count[cells] += 1
    return (total / count).astype(np.float32)
