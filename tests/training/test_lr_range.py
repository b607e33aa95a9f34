"""What is read off a sweep of learning rates."""

import dataclasses
import math

import numpy as np
import pytest

from imgclf.training.lr_range import MIN_STEPS, LossCurve, Sweep, suggest


def swept(losses, steps=None) -> Sweep:
    losses = np.asarray(losses, float)
    return Sweep(np.geomspace(1e-7, 10, len(losses)), losses, losses, diverged=False)


def test_suggestions_of_a_textbook_curve():
    """Flat to 1e-4, falling fastest at 1e-2.5, lowest at 1e-1, then up."""
    x = np.linspace(-7, 1, 161)
    losses = np.where(x < -1, 2.3 - 2 / (1 + np.exp(-4 * (x + 2.5))), 0.3 + 4 * (x + 1) ** 2) - 1e-9 * x
    found = suggest(swept(losses), 161)
    assert math.log10(found.steepest) == pytest.approx(-2.5, abs=0.15)
    assert math.log10(found.minimum) == pytest.approx(-2, abs=0.1)
    assert -4.5 < math.log10(found.valley) < -2.5


def test_the_valley_is_about_the_middle_of_the_longest_descent():
    noise = np.random.default_rng(0).normal(0, 0.01, 120)
    losses = np.concatenate([np.full(40, 3.0), np.linspace(3, 1, 40), np.linspace(1.1, 3, 40)]) + noise
    valley = suggest(swept(losses), 120).valley
    assert 45 <= np.argmin(np.abs(swept(losses).learning_rates - valley)) <= 75


@pytest.mark.parametrize("losses", [np.linspace(1, 4, 50), np.full(50, 2.3), [2.0] * 8])
def test_a_loss_that_never_falls_suggests_nothing(losses):
    assert dataclasses.astuple(suggest(swept(losses), 50)) == (None, None, None)


def curve(losses) -> LossCurve:
    """A sweep as far as it goes."""
    found = LossCurve()
    for loss in losses:
        found.add(loss)
        if found.has_diverged():
            break
    return found


def test_a_sweep_diverges_at_four_times_its_lowest_loss():
    found = curve([1.0] * 30 + [50.0] * 30)
    assert 30 < len(found.losses) < 40
    assert found.smoothed[-1] > 4 > found.smoothed[-2]


def test_nearly_nothing_times_four_is_no_divergence_and_neither_is_a_bad_start():
    """A nearly perfect probe: any step more than quadruples a loss of 1e-4."""
    rising = np.geomspace(1e-4, 0.05, 80)
    assert len(curve(rising).losses) == 80
    assert len(curve([1e-4, 5.0, 5.0] + [1e-4] * 77).losses) >= MIN_STEPS
    found = curve([*rising, *[3.0] * 20])
    assert 80 < len(found.losses) < 100


def test_a_nearly_perfect_probe_is_told_and_nothing_else_is():
    rates, losses = np.geomspace(1e-7, 10, 30), np.full(30, 1e-4)
    told = Sweep(rates, losses, losses, diverged=False, probed=True).remark
    assert told == "The probe is already nearly perfect (training loss 0.0001): fine-tuning has nothing to gain here."
    assert Sweep(rates, losses, losses, diverged=False, probed=False).remark == ""
    assert Sweep(rates, losses + 0.3, losses + 0.3, diverged=False, probed=True).remark == ""
