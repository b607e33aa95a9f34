"""Ridge regression onto one-hot targets: one eigendecomposition of a subset gives the solutions of all strengths.

The objective, with targets 1 for the class and 0 for the others (scikit-learn's Ridge with alpha = l2 · Σw):

    ½ Σᵢ wᵢ · ‖xᵢ·W + b − yᵢ‖² / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free
"""

import numpy as np
import scipy.linalg

from imgclf.training.logistic import Solutions

_ROWS = 8192  # whose products are summed at once


def fit_ridge(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, strengths: np.ndarray, classes: int) -> Solutions:
    """Minimises the objective for every subset and strength; arguments and result as those of `fit_logistic`.

    The result's outputs are regressions, not logits: `fit_linear` scales them.
    """
    width = features.shape[1]
    kernel = np.zeros((len(weights), len(strengths), width, classes), np.float32)
    bias = np.zeros((len(weights), len(strengths), classes), np.float32)
    norms = np.zeros((len(weights), len(strengths)))
    for k, weight in enumerate(weights):
        share = weight / weight.sum()
        at = np.flatnonzero(share)
        share, targets = share[at], np.eye(classes)[labels[at]]
        x_mean, y_mean = share @ features[at], share @ targets
        if len(at) <= width:  # in the span of the rows
            x = (features[at] - x_mean) * np.sqrt(share)[:, None]
            y = (targets - y_mean) * np.sqrt(share)[:, None]
            values, vectors = scipy.linalg.eigh(x @ x.T)
            inner = vectors.T @ y
            solve = [x.T @ (vectors @ (inner / (np.maximum(values, 0) + l2)[:, None])) for l2 in strengths]
            gram, moment = None, x.T @ y
        else:
            gram, moment = np.zeros((width, width)), np.zeros((width, classes))
            for start in range(0, len(at), _ROWS):
                rows = slice(start, start + _ROWS)
                x = features[at[rows]] - x_mean
                gram += x.T @ (x * share[rows, None])
                moment += x.T @ ((targets[rows] - y_mean) * share[rows, None])
            values, vectors = scipy.linalg.eigh(gram)
            inner = vectors.T @ moment
            solve = [vectors @ (inner / (np.maximum(values, 0) + l2)[:, None]) for l2 in strengths]
        for i, (l2, w) in enumerate(zip(strengths, solve, strict=True)):
            kernel[k, i], bias[k, i] = w, y_mean - x_mean @ w
            product = x.T @ (x @ w) if gram is None else gram @ w
            norms[k, i] = np.linalg.norm(product - moment + l2 * w)
    return Solutions(kernel, bias, norms)
