"""Ridge regression: scikit-learn's solutions."""

import numpy as np
import pytest
from blobs import blobs
from sklearn.linear_model import Ridge

from imgclf.probes.logistic import Examples
from imgclf.probes.ridge import RidgePath


@pytest.mark.parametrize(("n", "width"), [(30, 50), (60, 9)])
def test_ridge_equals_scikit_learn(n, width):
    x, labels = blobs(n, width, 3, 3)
    weights = np.stack([np.ones(n), np.random.default_rng(0).uniform(0, 2, n) * (np.arange(n) % 5 > 0)])
    mean, deviation = x.mean(0), x.std(0)
    strengths = np.array([1e-6, 0.01, 10.0])
    found = RidgePath(Examples(x, labels, 3, mean, deviation), weights).solve(strengths)
    scaled = ((x - mean) / deviation).astype(np.float64)
    for k, weight in enumerate(weights):
        for i, l2 in enumerate(strengths):
            model = Ridge(alpha=l2 * weight.sum(), solver="cholesky").fit(scaled, np.eye(3)[labels], sample_weight=weight)
            np.testing.assert_allclose(found.kernel[k, i].T, model.coef_, atol=1e-4 * np.abs(model.coef_).max())
            np.testing.assert_allclose(found.bias[k, i], model.intercept_, atol=1e-4)
    assert found.gradient_norm.max() < 1e-4
