"""Conformal sets hold the truth as often as they promise, whatever the classifier."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.evaluation import conformal


def drawn(n: int, classes: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels that go together loosely: the promise does not depend on a good classifier."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, sharpness), n).astype(np.float32)
    labels = (probabilities**0.5).argmax(1)
    random = rng.random(n) < 0.3
    labels[random] = rng.integers(0, classes, int(random.sum()))
    return probabilities, labels


@pytest.mark.parametrize(("alpha", "n"), [(0.1, 30), (0.1, 300), (0.05, 100), (0.3, 20)])
@pytest.mark.parametrize("sharpness", [0.1, 2.0])
def test_the_truth_is_in_the_set_as_often_as_promised(alpha, n, sharpness):
    """Exactly: on average over calibration sets, in a share ⌈(n+1)(1−α)⌉/(n+1) of cases; more often where a set would be empty."""
    probabilities, labels = drawn(40_000, 4, sharpness, seed=n)
    admitted, held = [], []
    for trial in range(100):
        rows = slice(trial * 400, trial * 400 + n)
        rule = conformal.calibrate(probabilities[rows], labels[rows], alpha)
        fresh = slice(trial * 400 + n, trial * 400 + 400)
        of_true = probabilities[fresh][np.arange(400 - n), labels[fresh]].astype(np.float64)
        admitted.append((1 - of_true <= rule.threshold).mean())
        held.append(conformal.sets(probabilities[fresh], rule.threshold)[np.arange(400 - n), labels[fresh]].mean())
        assert held[-1] >= admitted[-1]
    exact = math.ceil((n + 1) * (1 - alpha)) / (n + 1)
    assert np.mean(admitted) == pytest.approx(exact, abs=4 * np.std(admitted) / 10)
    accuracy = (probabilities.argmax(1) == labels).mean()
    assert np.mean(held) < max(exact, accuracy) + 0.03


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(0, 10_000))
def test_the_threshold_is_the_smallest_that_keeps_the_promise(n, alpha, seed):
    probabilities, labels = drawn(n, 3, 0.5, seed)
    rule = conformal.calibrate(probabilities, labels, alpha)
    scores = np.sort(1 - probabilities[np.arange(n), labels].astype(np.float64))
    needed = (n + 1) * (1 - alpha) - 1e-9
    if rule.admits_all:
        assert needed > n or scores[-1] == 1
        assert conformal.sets(probabilities, rule.threshold).all()
        return
    held = conformal.sets(probabilities, rule.threshold)[np.arange(n), labels].sum()
    assert held >= needed
    assert rule.threshold in scores
    assert (scores < rule.threshold).sum() < needed
    assert (rule.alpha, rule.n) == (alpha, n)


def test_nine_images_are_enough_for_a_tenth_and_eight_are_not():
    probabilities, labels = drawn(9, 3, 0.5, 0)
    assert not conformal.calibrate(probabilities, labels, 0.1).admits_all
    assert conformal.calibrate(probabilities[:8], labels[:8], 0.1) == conformal.Conformal(0.1, 1.0, 8)


def test_no_set_is_empty_and_the_likeliest_class_is_in_it():
    probabilities = np.array([[0.4, 0.35, 0.25], [0.98, 0.01, 0.01]], np.float32)
    np.testing.assert_array_equal(conformal.sets(probabilities, 0.05), [[True, False, False], [True, False, False]])
    np.testing.assert_array_equal(conformal.sets(probabilities, 0.7), [[True, True, False], [True, False, False]])


@pytest.mark.parametrize(("n", "alpha"), [(0, 0.1), (3, 0.0), (3, 1.0)])
def test_impossible_demands(n, alpha):
    with pytest.raises(ValueError, match="conformal"):
        conformal.calibrate(np.full((n, 2), 0.5), np.zeros(n, int), alpha)
