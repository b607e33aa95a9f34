"""Learning curves: known power laws are found again, intervals cover, and what can't be extrapolated is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.evaluation import learning_curve

SIZES = (5, 10, 20, 40, 80)


def outcomes(errors, *, seeds=3, images=1000, rng=0):
    """Bool [seeds, images] for each error; an image's difficulty is the same for all sizes, as in a study."""
    rng = np.random.default_rng(rng)
    difficulty = rng.uniform(size=images)
    noise = rng.uniform(-0.1, 0.1, (len(errors), seeds, images))
    return {size: (difficulty + noise[k]) % 1 >= error for k, (size, error) in enumerate(zip(SIZES, errors, strict=False))}


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.floats(0.2, 2.0), st.floats(0.05, 1.5), st.floats(0.0, 0.3))
def test_a_power_law_is_found_again(a, b, c):
    errors = a * np.array(SIZES, float) ** -b + c
    law = learning_curve.fit(SIZES, errors)
    for n in (5, 80, 160, 320):
        assert law(n) == pytest.approx(a * n**-b + c, abs=2e-3)
    assert law.needed(law(60.0)) == pytest.approx(60, rel=1e-6)


def test_fits_are_within_bounds_and_row_by_row():
    errors = np.array([[0.5, 0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5], [0.2] * 5])  # falls faster than any law; rises; stays
    law = learning_curve.fit(SIZES, errors)
    assert (law.a >= 0).all()
    assert (law.c >= 0).all()
    assert law(320)[1] == pytest.approx(0.3)  # what doesn't fall is not expected to
    assert law(320)[2] == pytest.approx(0.2)
    alone = learning_curve.fit(SIZES, errors[0])
    assert (alone.a, alone.b, alone.c) == pytest.approx((law.a[0], law.b[0], law.c[0]))
    assert np.isinf(law.needed(0.1)[2])


def test_intervals_cover_the_truth():
    truth = 1.2 * np.array((*SIZES, 160)) ** -0.5 + 0.05
    covered, gained = 0, 0
    for run in range(10):
        found = learning_curve.extrapolate(outcomes(truth[:-1], rng=run), seed=run)
        low, high = found["beyond"][0]["error_ci95"]
        covered += low <= truth[-1] <= high
        gained += found["beyond"][0]["gain_ci95"][0] > 0
    assert covered >= 8
    assert gained == 10


def test_what_the_data_do_not_support_is_said():
    truth = 1.2 * np.array(SIZES) ** -0.5 + 0.05
    data = outcomes(truth, images=4000)
    good = learning_curve.extrapolate(data)
    assert good["unsupported"] == ""
    assert good["backtest"]["predicted"] == pytest.approx(truth[-1], abs=0.04)
    assert [row["images"] for row in good["beyond"]] == [160, 320]
    few = learning_curve.extrapolate({size: data[size] for size in (5, 10, 20)})
    assert "3 sizes" in few["unsupported"]
    assert few["law"] is None
    assert len(few["points"]) == 3
    narrow = learning_curve.extrapolate(data, factors=(2, 32))
    assert "span" in narrow["unsupported"]
    broken = truth.copy()
    broken[-1] = 0.05  # a cliff
    assert "no power law" in learning_curve.extrapolate(outcomes(broken, images=4000))["unsupported"]
    flat = learning_curve.extrapolate(outcomes([0.3] * 5, images=100))
    assert "wider than twice the gain" in flat["unsupported"]


def test_resampling_is_over_images_and_seeds_alike_in_all_sizes():
    same = np.random.default_rng(0).uniform(size=(1, 2, 50)) < 0.7
    errors = learning_curve.resampled_errors(np.repeat(same, 3, 0), resamples=200)
    assert errors.shape == (200, 3)
    assert (errors == errors[:, :1]).all()
    assert errors.mean() == pytest.approx(1 - same.mean(), abs=0.02)
