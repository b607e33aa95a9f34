"""The learning-rate finder: rates and losses of real steps, what is read off them."""

import dataclasses
import json
import math

import numpy as np
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf import models
from imgclf.data.audit import audit
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.models.weights import pretrained
from imgclf.training import lr_find
from imgclf.workflows import train

QUIET = Console(quiet=True)


def swept(losses, steps=None) -> lr_find.Sweep:
    losses = np.asarray(losses, float)
    return lr_find.Sweep(np.geomspace(1e-7, 10, len(losses)), losses, losses, diverged=False)


def find(config, **options) -> lr_find.Sweep:
    config = train.check(config)
    dataset, _ = audit(assign_splits(load_dataset(config), config), config)
    config = pretrained.resolve(config, len(dataset.class_names))
    return lr_find.find(config, dataset, models.create(config, len(dataset.class_names)), QUIET, **options)


def test_suggestions_of_a_textbook_curve():
    """Flat to 1e-4, falling fastest at 1e-2.5, lowest at 1e-1, then up."""
    x = np.linspace(-7, 1, 161)
    losses = np.where(x < -1, 2.3 - 2 / (1 + np.exp(-4 * (x + 2.5))), 0.3 + 4 * (x + 1) ** 2) - 1e-9 * x
    found = lr_find.suggest(swept(losses), 161)
    assert math.log10(found.steepest) == pytest.approx(-2.5, abs=0.15)
    assert math.log10(found.minimum) == pytest.approx(-2, abs=0.1)
    assert -4.5 < math.log10(found.valley) < -2.5


def test_the_valley_is_about_the_middle_of_the_longest_descent():
    noise = np.random.default_rng(0).normal(0, 0.01, 120)
    losses = np.concatenate([np.full(40, 3.0), np.linspace(3, 1, 40), np.linspace(1.1, 3, 40)]) + noise
    valley = lr_find.suggest(swept(losses), 120).valley
    assert 45 <= np.argmin(np.abs(swept(losses).learning_rates - valley)) <= 75


@pytest.mark.parametrize("losses", [np.linspace(1, 4, 50), np.full(50, 2.3), [2.0] * 8])
def test_a_loss_that_never_falls_suggests_nothing(losses):
    assert dataclasses.astuple(lr_find.suggest(swept(losses), 50)) == (None, None, None)


def test_a_sweep_takes_the_steps_of_training(tmp_path):
    """Its first loss is the run's: the same model, batch and step. The rates rise from low to high."""
    config = digits_config()
    config.train.log_every = "1 steps"
    config.train.duration = "1 steps"
    train.train(config, tmp_path, console=QUIET)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    found = find(config, steps=20, low=1e-6, high=1e-4)
    assert found.losses[0] == pytest.approx(first["train_loss"], rel=1e-6)
    np.testing.assert_allclose(found.learning_rates, np.geomspace(1e-6, 1e-4, 20), rtol=1e-4)
    assert not found.diverged
    smoothed = sum(lr_find.BETA ** (19 - k) * loss for k, loss in enumerate(found.losses)) * (1 - lr_find.BETA) / (1 - lr_find.BETA**20)
    assert found.smoothed[-1] == pytest.approx(smoothed)


def test_it_ends_where_the_loss_diverges_and_suggests_a_rate_that_trains():
    config = digits_config()
    config.optimizer.name, config.optimizer.schedule.name, config.optimizer.schedule.warmup = "sgd", "constant", "0 steps"
    found = find(config, steps=100, low=1e-4, high=1e6)
    assert found.diverged
    assert len(found.losses) < 100
    assert np.isfinite(found.losses).all()
    suggestion = lr_find.suggest(found, 100)
    assert 1e-3 < suggestion.valley < 3


def test_fine_tuning_starts_from_its_probe():
    """The first losses are those of a fitted head, not of ten equal classes; without BatchNorm training shows what the probe saw."""
    config = digits_config(**{"model.cnn.norm": "none", "model.cnn.dropout": 0.0, "augment.rotate": 0.0, "augment.shift": (0.0, 0.0)})
    config.train.method, config.model.head.kind = "lp_ft", "linear"
    found = find(config, steps=20, low=1e-9, high=1e-8)
    assert found.losses.mean() < 0.6 * math.log(10)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {"steps": 5}, "--steps=5 is too few"),
        ({}, {"low": 1.0, "high": 0.1}, "--low=1 and --high=0.1 are no range"),
        ({"train.method": "probe"}, {}, "config.train.method='probe' trains a head on cached features"),
    ],
)
def test_what_shows_nothing_is_refused(fields, options, message):
    config = digits_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        find(config, **options)
