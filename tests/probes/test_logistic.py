"""Logistic regression: scikit-learn's solutions, and how far they have converged."""

import numpy as np
import pytest
import scipy.special
from blobs import blobs, sklearn_logistic
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.probes import logistic
from imgclf.probes.logistic import Examples, LogisticPath


def assert_same_solution(kernel, bias, model, classes) -> None:
    if classes == 2:
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    else:
        bias, model.intercept_ = bias - bias.mean(), model.intercept_ - model.intercept_.mean()
    assert np.linalg.norm(kernel.T - model.coef_) <= 1e-3 * np.linalg.norm(model.coef_)
    np.testing.assert_allclose(bias, model.intercept_, atol=3e-3 * max(1, np.abs(model.intercept_).max()))


@pytest.mark.parametrize(("n", "width", "classes"), [(60, 90, 4), (80, 12, 3), (50, 20, 2)])
def test_logistic_equals_scikit_learn(n, width, classes):
    @settings(max_examples=4, deadline=None)
    @given(seed=st.integers(0, 10**6), low=st.floats(-4, -1), spread=st.floats(0.1, 2))
    def check(seed, low, spread):
        x, labels = blobs(n, width, classes, seed, spread)
        rng = np.random.default_rng(seed)
        weights = np.stack([np.ones(n), rng.uniform(0.2, 3, n)])
        weights[1, labels.argsort()[::4]] = 0
        strengths = np.array([10.0**low, 1.0])  # in any order
        found = LogisticPath(Examples(x, labels, classes), weights).solve(strengths)
        for k, weight in enumerate(weights):
            used = weight > 0
            for i, l2 in enumerate(strengths):
                model = sklearn_logistic(x[used], labels[used], l2, weight[used])
                assert_same_solution(found.kernel[k, i], found.bias[k, i], model, classes)
                ours = (x[~used] @ found.kernel[k, i] + found.bias[k, i]).argmax(1)
                assert (ours == model.predict(x[~used])).mean() > 0.98 if (~used).any() else True

    check()


def test_logistic_says_how_far_it_has_converged():
    x, labels = blobs(60, 90, 4, 0)
    weights, strengths = np.ones((2, 60)), np.array([1e-5, 0.1])  # of a shape that is compiled already
    found = LogisticPath(Examples(x, labels, 4), weights).solve(strengths)
    wide = x.astype(np.float64)
    for i, l2 in enumerate(strengths):
        kernel = found.kernel[0, i].astype(np.float64)
        residual = scipy.special.softmax(wide @ kernel + found.bias[0, i], axis=1) - np.eye(4)[labels]
        gradient = np.concatenate([wide.T @ residual / 60 + l2 * kernel, residual.mean(0)[None]])
        assert found.gradient_norm[0, i] == pytest.approx(np.linalg.norm(gradient), rel=0.2)
        assert np.linalg.norm(gradient) <= 1.2e-3 * l2 * np.linalg.norm(kernel)


def test_subsets_in_parts_are_the_same_as_at_once(monkeypatch):
    x, labels = blobs(80, 12, 3, 1)
    weights = np.ones((2, 80))
    weights[1, ::2] = 0
    strengths = np.array([0.01, 1.0])
    together = LogisticPath(Examples(x, labels, 3), weights).solve(strengths)
    monkeypatch.setattr(logistic, "_LOGITS", 80 * 3)
    apart = LogisticPath(Examples(x, labels, 3), weights).solve(strengths)
    np.testing.assert_allclose(together.kernel, apart.kernel, atol=1e-3 * np.abs(apart.kernel).max())


def test_a_rotation_keeps_the_features(monkeypatch):
    monkeypatch.setattr(logistic, "_ROWS", 16)  # several blocks
    for n, width in ((40, 8), (20, 30)):
        x = blobs(n, width, 3, 2)[0]
        mean, deviation = x.mean(0), x.std(0)
        rotation = logistic.Rotation.of(x, mean, deviation)
        np.testing.assert_allclose(rotation.coordinates[:, :-1] @ rotation.axes.T, (x - mean) / deviation, atol=2e-5)
        np.testing.assert_allclose(rotation.axes.T @ rotation.axes, np.eye(rotation.axes.shape[1]), atol=1e-5)
