"""L2-regularised logistic regression to convergence, for many subsets of the rows and many strengths of the penalty at once.

The objective of a subset with row weights w and a strength l2, as in scikit-learn with C = 1 / (l2 · Σw):

    Σᵢ wᵢ · crossentropy(xᵢ·W + b, yᵢ) / Σᵢ wᵢ  +  l2/2 · ‖W‖²        the bias b is free

Two classes have one column w, the difference of their logits, as in scikit-learn; it is returned as W = (−w/2, w/2), b likewise.
"""

import dataclasses

import numpy as np
import scipy.optimize
import scipy.special


@dataclasses.dataclass(frozen=True)
class Solutions:
    """Of K subsets and L strengths: kernel float32 [K, L, D, C], bias float32 [K, L, C], norm of the objective's gradient [K, L]."""

    kernel: np.ndarray
    bias: np.ndarray
    gradient_norm: np.ndarray


def fit_logistic(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, strengths: np.ndarray, classes: int) -> Solutions:
    """Minimises the objective for every subset and strength.

    Args:
      features: float32 [N, D], standardised or at a similar scale.
      labels: int [N], below `classes`.
      weights: float [K, N], 0 where a row is not in the subset.
      strengths: float [L], l2, each above 0.
      classes: C.
    """
    width = features.shape[1]
    x = features.astype(np.float64)
    y = np.eye(classes)[labels]
    kernel = np.zeros((len(weights), len(strengths), width, classes), np.float32)
    bias = np.zeros((len(weights), len(strengths), classes), np.float32)
    norms = np.zeros((len(weights), len(strengths)))
    for k, w in enumerate(weights):
        w = w / w.sum()
        for i, l2 in enumerate(strengths):
            penalty = 2 * l2 if classes == 2 else l2

            def objective(flat, w=w, penalty=penalty):
                theta = flat.reshape(width + 1, classes)
                logits = x @ theta[:-1] + theta[-1]
                residual = w[:, None] * (scipy.special.softmax(logits, axis=1) - y)
                value = w @ (scipy.special.logsumexp(logits, axis=1) - (logits * y).sum(1)) + penalty / 2 * np.sum(theta[:-1] ** 2)
                return value, np.concatenate([(x.T @ residual + penalty * theta[:-1]).ravel(), residual.sum(0)])

            options = {"maxiter": 5000, "ftol": 0, "gtol": 1e-7}
            found = scipy.optimize.minimize(objective, np.zeros((width + 1) * classes), jac=True, method="L-BFGS-B", options=options)
            theta = found.x.reshape(width + 1, classes)
            kernel[k, i], bias[k, i] = theta[:-1], theta[-1]
            norms[k, i] = np.linalg.norm(found.jac)
    return Solutions(kernel, bias, norms)
