"""Ridge regression onto one-hot targets: one eigendecomposition of a subset gives the solutions of all strengths.

The objective, with targets 1 for the class and 0 for the others (scikit-learn's Ridge with alpha = l2 · Σw):

    ½ Σᵢ wᵢ · ‖xᵢ·W + b − yᵢ‖² / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np

from imgclf.probes.logistic import Examples, Solutions, eigh

_ROWS = 8192  # whose products are summed at once


@dataclasses.dataclass(frozen=True)
class RidgePath:
    """The solutions of K subsets, at any strengths; each subset is decomposed once. Attributes as `LogisticPath` has them."""

    examples: Examples
    weights: np.ndarray

    def along(self, strengths: Iterable[float], *, start: Solutions | None = None, tolerance: float = 0.0) -> Iterator[Solutions]:
        """The solutions of one strength after another; see `LogisticPath.along`. Exact ones need neither a start nor a tolerance."""
        del start, tolerance
        return (self.solve(np.array([l2])) for l2 in strengths)

    def solve(self, strengths: np.ndarray) -> Solutions:
        """Minimises the objective for every subset and strength, float [L].

        The result's outputs are regressions, not logits: `cross_validation.fit_linear` scales them.
        """
        shape = len(self.weights), len(strengths)
        kernel = np.zeros((*shape, self.examples.features.shape[1], self.examples.classes), np.float32)
        bias, norms = np.zeros((*shape, self.examples.classes), np.float32), np.zeros(shape)
        for k, subset in enumerate(self._subsets):
            for i, (l2, solution) in enumerate(zip(strengths, subset.solutions(strengths), strict=True)):
                w, residual = solution
                kernel[k, i], bias[k, i] = w, subset.y_mean - subset.x_mean @ w
                norms[k, i] = np.linalg.norm(residual + l2 * w)
        return Solutions(kernel, bias, norms)

    @functools.cached_property
    def _subsets(self) -> list["_Subset"]:
        weights = np.asarray(self.weights, np.float64)
        return [
            _Subset(self.examples, rows, weight[rows] / weight.sum())
            for weight, rows in ((weight, np.flatnonzero(weight)) for weight in weights)
        ]


@dataclasses.dataclass(frozen=True)
class _Subset:
    """Rows of features with their shares of the subset's weight; read a block at a time."""

    examples: Examples
    rows: np.ndarray
    share: np.ndarray

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Features, targets and weights, a block of rows at a time."""
        of = self.examples
        for start in range(0, len(self.rows), _ROWS):
            rows = self.rows[start : start + _ROWS]
            targets = np.eye(of.classes)[of.labels[rows]]
            yield (of.features[rows] - of.mean) / of.deviation, targets, self.share[start : start + _ROWS]

    @functools.cached_property
    def x_mean(self) -> np.ndarray:
        return np.sum([w @ x for x, _, w in self.blocks()], axis=0)

    @functools.cached_property
    def y_mean(self) -> np.ndarray:
        return np.sum([w @ y for _, y, w in self.blocks()], axis=0)

    def solutions(self, strengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each strength, the kernel, and the gradient of the objective there but for the penalty's part."""
        if len(self.rows) <= self.examples.features.shape[1]:
            yield from self._in_the_span_of_the_rows(strengths)
        else:
            yield from self._by_the_gram_matrix(strengths)

    def _in_the_span_of_the_rows(self, strengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        x, moment, values, inner, left = self._rows_decomposed
        for l2 in strengths:
            w = left @ (inner / (np.maximum(values, 0) + l2)[:, None])
            yield w, x.T @ (x @ w) - moment

    @functools.cached_property
    def _rows_decomposed(self) -> tuple[np.ndarray, ...]:
        x = np.concatenate([(x - self.x_mean) * np.sqrt(w)[:, None] for x, _, w in self.blocks()])
        y = np.concatenate([(y - self.y_mean) * np.sqrt(w)[:, None] for _, y, w in self.blocks()])
        values, axes = eigh(x @ x.T)
        return x, x.T @ y, values, axes.T @ y, x.T @ axes

    def _by_the_gram_matrix(self, strengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        gram, moment, values, inner, left = self._gram_decomposed
        for l2 in strengths:
            w = left @ (inner / (np.maximum(values, 0) + l2)[:, None])
            yield w, gram @ w - moment

    @functools.cached_property
    def _gram_decomposed(self) -> tuple[np.ndarray, ...]:
        width = self.examples.features.shape[1]
        gram, moment = np.zeros((width, width)), np.zeros((width, self.examples.classes))
        for x, y, w in self.blocks():
            x = np.asarray(x - self.x_mean, self.examples.features.dtype)
            gram += x.T @ (x * w[:, None].astype(self.examples.features.dtype))
            moment += x.T @ ((y - self.y_mean) * w[:, None])
        values, left = eigh(gram)
        return gram, moment, values, left.T @ moment, left
