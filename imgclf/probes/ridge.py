"""Ridge regression onto one-hot targets: one eigendecomposition of a subset gives the solutions of all strengths.

The objective, with targets 1 for the class and 0 for the others (scikit-learn's Ridge with alpha = l2 · Σw):

    ½ Σᵢ wᵢ · ‖xᵢ·W + b − yᵢ‖² / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import scipy.linalg

from imgclf.probes.logistic import Solutions

_ROWS = 8192  # whose products are summed at once


def fit_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    strengths: np.ndarray,
    classes: int,
    *,
    mean: np.ndarray | float = 0.0,
    deviation: np.ndarray | float = 1.0,
) -> Solutions:
    """Minimises the objective for every subset and strength; arguments and result as those of `fit_logistic`.

    The result's outputs are regressions, not logits: `cross_validation.fit_linear` scales them.
    """
    width = features.shape[1]
    kernel = np.zeros((len(weights), len(strengths), width, classes), np.float32)
    bias = np.zeros((len(weights), len(strengths), classes), np.float32)
    norms = np.zeros((len(weights), len(strengths)))
    for k, weight in enumerate(np.asarray(weights, np.float64)):
        rows = np.flatnonzero(weight)
        subset = _Subset(features, labels, rows, weight[rows] / weight.sum(), classes, mean, deviation)
        for i, (l2, solution) in enumerate(zip(strengths, subset.solutions(strengths), strict=True)):
            w, residual = solution
            kernel[k, i], bias[k, i] = w, subset.y_mean - subset.x_mean @ w
            norms[k, i] = np.linalg.norm(residual + l2 * w)
    return Solutions(kernel, bias, norms)


@dataclasses.dataclass(frozen=True)
class _Subset:
    """Rows of features with their shares of the subset's weight; read a block at a time."""

    features: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    share: np.ndarray
    classes: int
    mean: np.ndarray | float
    deviation: np.ndarray | float

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Features, targets and weights, a block of rows at a time."""
        for start in range(0, len(self.rows), _ROWS):
            rows = self.rows[start : start + _ROWS]
            targets = np.eye(self.classes)[self.labels[rows]]
            yield (self.features[rows] - self.mean) / self.deviation, targets, self.share[start : start + _ROWS]

    @functools.cached_property
    def x_mean(self) -> np.ndarray:
        return np.sum([w @ x for x, _, w in self.blocks()], axis=0)

    @functools.cached_property
    def y_mean(self) -> np.ndarray:
        return np.sum([w @ y for _, y, w in self.blocks()], axis=0)

    def solutions(self, strengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each strength, the kernel, and the gradient of the objective there but for the penalty's part."""
        if len(self.rows) <= self.features.shape[1]:
            yield from self._in_the_span_of_the_rows(strengths)
        else:
            yield from self._by_the_gram_matrix(strengths)

    def _in_the_span_of_the_rows(self, strengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        x = np.concatenate([(x - self.x_mean) * np.sqrt(w)[:, None] for x, _, w in self.blocks()])
        y = np.concatenate([(y - self.y_mean) * np.sqrt(w)[:, None] for _, y, w in self.blocks()])
        values, axes = scipy.linalg.eigh(x @ x.T)
        inner, moment, left = axes.T @ y, x.T @ y, x.T @ axes
        for l2 in strengths:
            w = left @ (inner / (np.maximum(values, 0) + l2)[:, None])
            yield w, x.T @ (x @ w) - moment

    def _by_the_gram_matrix(self, strengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        width = self.features.shape[1]
        gram, moment = np.zeros((width, width)), np.zeros((width, self.classes))
        for x, y, w in self.blocks():
            x = np.asarray(x - self.x_mean, self.features.dtype)
            gram += x.T @ (x * w[:, None].astype(self.features.dtype))
            moment += x.T @ ((y - self.y_mean) * w[:, None])
        values, left = scipy.linalg.eigh(gram)
        inner = left.T @ moment
        for l2 in strengths:
            w = left @ (inner / (np.maximum(values, 0) + l2)[:, None])
            yield w, gram @ w - moment
