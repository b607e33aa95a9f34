"""The learning-rate finder: rates and losses of real steps, what is read off them."""

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
from imgclf.methods import lr_find, resolve
from imgclf.methods.base import Task
from imgclf.training import sharding
from imgclf.training.lr_range import BETA, Sweep, suggest
from imgclf.workflows import train

QUIET = Console(quiet=True)


def find(config, **options) -> Sweep:
    config = resolve.check(config)
    dataset, _ = audit(assign_splits(load_dataset(config), config), config)
    config = resolve.resolve(config, len(dataset.class_names))
    model = models.create(config, len(dataset.class_names))
    return lr_find.find(Task(config, dataset, model, sharding.create_mesh(), QUIET), **options)


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
    smoothed = sum(BETA ** (19 - k) * loss for k, loss in enumerate(found.losses)) * (1 - BETA) / (1 - BETA**20)
    assert found.smoothed[-1] == pytest.approx(smoothed)


def test_it_ends_where_the_loss_diverges_and_suggests_a_rate_that_trains():
    config = digits_config()
    config.optimizer.name, config.optimizer.schedule.name, config.optimizer.schedule.warmup = "sgd", "constant", "0 steps"
    found = find(config, steps=100, low=1e-4, high=1e6)
    assert found.diverged
    assert len(found.losses) < 100
    assert np.isfinite(found.losses).all()
    suggestion = suggest(found, 100)
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
        ({}, {"steps": 5}, "steps=5 is too few"),
        ({}, {"low": 1.0, "high": 0.1}, "low=1 and high=0.1 are no range"),
        ({"train.method": "probe"}, {}, "config.train.method='probe' trains a head on cached features"),
    ],
)
def test_what_shows_nothing_is_refused(fields, options, message):
    config = digits_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        find(config, **options)
