"""Intervals and corrections against scipy, published and hand-worked values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from imgclf.evaluation import intervals


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts):
    successes, n = counts
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    low, high = intervals.wilson(successes, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= successes / n <= high <= 1


def test_wilson_takes_a_mean_over_seeds():
    # statsmodels.stats.proportion.proportion_confint(93.4, 100, method="wilson")
    assert intervals.wilson(93.4, 100) == pytest.approx((0.8675643101570443, 0.9683253333992923), rel=1e-12)
    with pytest.raises(ValueError, match="impossible"):
        intervals.wilson(11, 10)


def test_the_bootstrap_of_one_seed_agrees_with_the_normal_approximation():
    values = (np.random.default_rng(0).random((1, 2000)) < 0.3).astype(float)
    low, high = intervals.bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_the_bootstrap_goes_over_seeds_too():
    seeds_differ = np.repeat([[0.0], [1.0], [0.0], [1.0]], 500, axis=1)  # images say nothing, seeds everything
    low, high = intervals.bootstrap(seeds_differ)
    assert (low, high) == (0.0, 1.0)


def test_holm_hand_worked():
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([]) == []


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_values_and_bonferronis(p_values):
    corrected = intervals.holm(p_values)
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, corrected, strict=True))


def test_the_interval_of_a_mean_of_proportions_covers_it():
    rng, shares, n = np.random.default_rng(0), np.array([0.98, 0.8, 0.3, 0.6]), np.array([200, 20, 8, 5])
    found = [intervals.mean_of_proportions(rng.binomial(n, shares), n) for _ in range(1000)]
    assert 0.93 < np.mean([low <= shares.mean() <= high for low, high in found]) < 0.99
    assert intervals.mean_of_proportions([7], [9]) == pytest.approx(intervals.wilson(7, 9))


def test_the_interval_of_a_paired_difference_is_that_of_bonett_and_price():
    """Their formula by hand: 2 and 8 of 50 differ, so that the shares are 3/52 and 9/52."""
    low, high = intervals.paired_proportions(2, 8, 50)
    share_a, share_b = 3 / 52, 9 / 52
    half = 1.959964 * np.sqrt((share_a + share_b - (share_b - share_a) ** 2) / 52)
    assert (low, high) == pytest.approx((share_b - share_a - half, share_b - share_a + half), abs=1e-6)
    low, high = intervals.paired_proportions(0, 0, 10)
    assert low == -high < -0.1
    assert intervals.paired_proportions(1, 0, 1)[0] >= -1


def test_one_error_does_not_tell_that_the_images_of_a_group_are_unlike_each_other():
    groups = np.repeat(np.arange(20), 3)
    right = np.ones(60, bool)
    assert intervals.clustered(right, groups) == intervals.wilson(20, 20)
    right[0] = False
    low, high = intervals.clustered(right, groups)
    assert low < intervals.wilson(59, 60)[0] - 0.05
    assert high == pytest.approx(intervals.wilson(59 / 60 * 180 / 7, 180 / 7)[1], abs=1e-4)  # effects of 3, twice, and of about 1, once
    many = np.arange(600) % 30 > 0  # 20 of 200 groups have an error each
    assert intervals.clustered(many, np.repeat(np.arange(200), 3))[0] == pytest.approx(intervals.wilson(580, 600)[0], abs=0.003)
