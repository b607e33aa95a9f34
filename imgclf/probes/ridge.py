"""Ridge regression onto one-hot targets: one eigendecomposition of a subset gives the solutions of all strengths.

The objective, with targets 1 for the class and 0 for the others (scikit-learn's Ridge with alpha = l2 · Σw):

    ½ Σᵢ wᵢ · ‖xᵢ·W + b − yᵢ‖² / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free
"""

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
        at = np.flatnonzero(weight)
        share = weight[at] / weight.sum()

        def blocks(at=at, share=share) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            """Features, targets and weights, a block of rows at a time."""
            for start in range(0, len(at), _ROWS):
                rows = at[start : start + _ROWS]
                yield (features[rows] - mean) / deviation, np.eye(classes)[labels[rows]], share[start : start + _ROWS]

        x_mean = np.sum([w @ x for x, _, w in blocks()], axis=0)
        y_mean = np.sum([w @ y for _, y, w in blocks()], axis=0)
        if len(at) <= width:  # in the span of the rows
            x = np.concatenate([(x - x_mean) * np.sqrt(w)[:, None] for x, _, w in blocks()])
            y = np.concatenate([(y - y_mean) * np.sqrt(w)[:, None] for _, y, w in blocks()])
            values, axes = scipy.linalg.eigh(x @ x.T)
            inner, moment, left = axes.T @ y, x.T @ y, x.T @ axes
        else:
            gram, moment = np.zeros((width, width)), np.zeros((width, classes))
            for x, y, w in blocks():
                x = np.asarray(x - x_mean, features.dtype)
                gram += x.T @ (x * w[:, None].astype(features.dtype))
                moment += x.T @ ((y - y_mean) * w[:, None])
            x = None
            values, left = scipy.linalg.eigh(gram)
            inner = left.T @ moment
        for i, l2 in enumerate(strengths):
            w = left @ (inner / (np.maximum(values, 0) + l2)[:, None])
            kernel[k, i], bias[k, i] = w, y_mean - x_mean @ w
            product = gram @ w if x is None else x.T @ (x @ w)
            norms[k, i] = np.linalg.norm(product - moment + l2 * w)
    return Solutions(kernel, bias, norms)
