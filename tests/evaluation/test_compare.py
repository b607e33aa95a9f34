"""Paired statistics against scipy, hand-worked cases and their own promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from imgclf.evaluation import compare
from imgclf.evaluation.intervals import wilson


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20))
def test_with_one_seed_it_is_mcnemars_exact_test(only_a, only_b, same):
    differences = np.array([-1] * only_a + [1] * only_b + [0] * same, int)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert compare.sign_flip_test(differences) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_several_seeds_against_all_sign_patterns(differences):
    values = np.array(differences)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=len(values))]
    expected = np.mean([total >= abs(values.sum()) for total in sums])
    assert compare.sign_flip_test(values) == pytest.approx(expected)


def test_more_seeds_on_the_same_images_do_not_narrow_the_interval():
    one = np.random.default_rng(0).random((1, 200)) < 0.9
    repeated = np.repeat(one, 5, axis=0)
    assert compare.accuracy(one)["top1_ci95"] == compare.accuracy(repeated)["top1_ci95"] == list(wilson(int(one.sum()), 200))
    other = np.random.default_rng(1).random((1, 200)) < 0.8
    assert compare.paired(one, other)["p"] == pytest.approx(compare.paired(repeated, np.repeat(other, 5, axis=0))["p"])


def test_hand_worked_pair():
    a = np.array([[1, 1, 0, 0, 0, 0, 1, 1, 1, 1]], bool)
    b = np.array([[1, 0, 1, 1, 1, 1, 1, 1, 1, 1]], bool)
    result = compare.paired(a, b)
    assert (result["only_a"], result["only_b"], result["difference"]) == (1, 4, pytest.approx(0.3))
    assert result["p"] == pytest.approx(0.375)  # 2 · (1 + 5) / 2^5
    low, high = result["difference_ci95"]
    assert -0.2 <= low < 0.3 < high <= 0.8
    # variance of the differences: five of ±1 (sum 3) among ten: (5 − 0.9) / 9; (1.95996 + 0.84162)² · 0.45556 / 0.09
    assert result["images_needed"] == 40


def test_the_bootstrap_interval_holds_its_level():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        a, b = rng.random((1, 150)) < 0.70, rng.random((1, 150)) < 0.80
        low, high = compare.paired(a, b)["difference_ci95"]
        inside += low <= 0.10 <= high
    assert inside >= 52  # 57 expected of 60


def test_a_difference_that_the_data_cannot_support_is_a_tie():
    rng = np.random.default_rng(0)
    base = rng.random((3, 300)) < 0.7
    arms = {"base": base, "same": base.copy(), "noise": rng.random((3, 300)) < 0.7, "better": base | (rng.random((3, 300)) < 0.5)}
    rows = compare.to_baseline(arms, "base")
    assert set(rows) == {"same", "noise", "better"}
    assert (rows["same"]["tie"], rows["noise"]["tie"], rows["better"]["tie"]) == (True, True, False)
    assert rows["same"]["images_needed"] is None


def test_what_one_seed_alone_makes_is_a_tie():
    base = np.zeros((2, 200), bool)
    lucky = np.stack([np.arange(200) < 60, np.zeros(200, bool)])  # by the images beyond doubt, and nothing in the other seed
    row = compare.to_baseline({"base": base, "lucky": lucky}, "base")["lucky"]
    assert row["p_holm"] < 1e-6
    assert row["difference_ci95"][0] == 0
    assert row["tie"]


def test_unpaired_arms_are_refused():
    with pytest.raises(ValueError, match="not paired"):
        compare.paired(np.ones((1, 3), bool), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="shape"):
        compare.accuracy(np.ones(3, bool))


def test_groups_are_what_is_flipped_and_drawn():
    """Two images that always go together tell as much as one; where each is its own group nothing changes."""
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 1, 40)) < 0.6
    alone = compare.paired(a, b)
    assert compare.paired(a, b, groups=np.arange(40)[::-1]) == alone
    twice = compare.paired(np.repeat(a, 2, 1), np.repeat(b, 2, 1), groups=np.repeat(np.arange(40), 2))
    assert twice["p"] == pytest.approx(alone["p"])
    assert twice["difference_ci95"] == pytest.approx(alone["difference_ci95"])
    assert twice["images_needed"] == pytest.approx(2 * alone["images_needed"], rel=0.05)
    assert compare.paired(np.repeat(a, 2, 1), np.repeat(b, 2, 1))["p"] < twice["p"]
