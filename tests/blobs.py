"""Blobs to be told apart, and scikit-learn's solution of them."""

import warnings

import numpy as np
import threadpoolctl
from sklearn.linear_model import LogisticRegression


def blobs(n: int, width: int, classes: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    centres = rng.normal(size=(classes, width)) * spread
    return (centres[labels] + rng.normal(size=(n, width))).astype(np.float32), labels


def sklearn_logistic(x, labels, l2, weight) -> LogisticRegression:
    model = LogisticRegression(C=1 / (l2 * weight.sum()), tol=1e-5 * min(l2, 1), max_iter=50_000)
    with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):  # small products: threads only wait for each other
        warnings.simplefilter("ignore")  # lbfgs complains where float64 ends
        return model.fit(x.astype(np.float64), labels, sample_weight=weight)
