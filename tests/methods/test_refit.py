"""The second training on train and val: its length, its data, what it is calibrated by, and that it resumes exactly in either part."""

import dataclasses
import os
import signal

import numpy as np
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf import models
from imgclf.data.prepare import prepare
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.evaluation import results as results_lib
from imgclf.methods import choice, resolve
from imgclf.methods.base import Task
from imgclf.training import loop, sharding
from imgclf.training.checkpoint import load_model
from imgclf.training.trained_model import TrainedModel

QUIET = Console(quiet=True)
FIT = {"train.method": "fit", "train.duration": "12 steps", "train.eval_every": "4 steps", "optimizer.schedule.name": "cosine"}
LP_FT = FIT | {"train.method": "lp_ft", "model.head.kind": "linear", "probe.l2": (0.01, 0.1), "probe.folds": 2}
REFIT = {"train.refit": True}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return prepare(resolve.check(digits_config())).dataset


@pytest.fixture
def train(digits, tmp_path):
    """Trains in the folder of that name, and scores; without the report of a run."""

    def call(name: str, changes: dict, dataset: Dataset = digits) -> tuple[TrainedModel, dict]:
        config = resolve.resolve(resolve.check(digits_config(**changes)), 10)
        method = choice.check(Task(config, dataset, models.create(config, 10), sharding.create_mesh(), QUIET))
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        trained = method.train(folder)
        return trained, results_lib.score(config, dataset, trained, {"dropped": []})[0]

    return call


def test_a_refit_is_calibrated_by_the_first_training_and_says_so(train, tmp_path):
    _, plain = train("plain", FIT)
    trained, results = train("refit", FIT | REFIT)
    assert results["temperature"] == plain["temperature"]
    assert results["conformal"]["threshold"] == plain["conformal"]["threshold"]
    assert results["params_sha256"] != plain["params_sha256"]
    assert results["checkpoint"] == "checkpoints/refit"
    _, about = load_model(tmp_path / "refit/checkpoints/refit")
    assert about["params_sha256"] == results["params_sha256"]
    steps = load_model(tmp_path / "refit" / results["refit"]["first"])[1]["step"]
    assert results["refit"]["steps"] == about["step"] == steps
    assert results["steps"] == plain["steps"] + steps
    assert any("second training" in note and "first one's val logits" in note for note in trained.notes)


def test_its_data_are_train_and_val_and_its_rates_those_of_the_first(train, digits):
    """The last parameters are kept, so that the refit is as long as the first training; a training on its data alone ends with its bits."""
    last = FIT | {"train.best_metric": ""}
    _, results = train("refit", last | REFIT)
    table = digits.table.assign(split=digits.table["split"].replace("val", "train"))
    _, alone = train("alone", last, dataclasses.replace(digits, table=table))
    assert results["params_sha256"] == alone["params_sha256"]
    assert results["refit"]["images"] == int((table["split"] == "train").sum())


@pytest.mark.parametrize("changes", [pytest.param(FIT, marks=pytest.mark.slow, id="fit"), pytest.param(LP_FT, id="lp_ft")])
def test_stopped_in_either_training_it_ends_with_the_same_bits(train, tmp_path, monkeypatch, changes):
    changes = changes | REFIT | {"train.best_metric": ""}  # as long as the first training, so that there is time to stop in it
    straight, expected = train("straight", changes)
    add, stops, taken = loop.MetricsWindow.add, [], 0

    def interrupting(window, step, metrics):
        nonlocal taken
        taken += 1
        if taken % 9 == 0:  # of 12 steps, twice
            os.kill(os.getpid(), signal.SIGINT)
        add(window, step, metrics)

    monkeypatch.setattr(loop.MetricsWindow, "add", interrupting)
    while True:
        try:
            trained, results = train("stopped", changes)
            break
        except loop.Interrupted:
            stops.append((tmp_path / "stopped/refit").is_dir())
    assert set(stops) == {False, True}, stops
    assert results["params_sha256"] == expected["params_sha256"]
    assert results["confusion"] == expected["confusion"]
    assert results["temperature"] == expected["temperature"]
    for split in ("val", "test"):
        np.testing.assert_array_equal(trained.logits_of(split)[1], straight.logits_of(split)[1])
    _, again = train("stopped", changes)
    assert again == results | {"train_seconds": again["train_seconds"]}


def test_where_the_probe_is_best_the_refit_is_a_probe_of_all_images(train, tmp_path):
    """A rate at which training only loses: the best length is none at all."""
    _, results = train("run", LP_FT | REFIT | {"optimizer.learning_rate": 3.0})
    assert results["best_epoch"] == 0
    assert results["refit"]["steps"] == 0
    (_, kept), (_, probe) = (load_model(tmp_path / "run" / name) for name in ("checkpoints/refit", "refit/checkpoints/probe"))
    assert results["params_sha256"] == kept["params_sha256"] == probe["params_sha256"]
    assert probe["params_sha256"] != load_model(tmp_path / "run/checkpoints/probe")[1]["params_sha256"]


@pytest.mark.parametrize(
    ("changes", "told"), [({}, "needs a val split.*Give it a share"), ({"train.soup": 2}, "the soup of config.train.soup=2")]
)
def test_what_a_refit_cannot_do_is_said_before_anything_is_trained(train, digits, changes, told):
    table = digits.table.assign(split=digits.table["split"].replace({} if changes else {"val": "train"}))
    with pytest.raises(UserError, match=rf"config\.train\.refit=True.*{told}"):
        train("run", FIT | REFIT | changes, dataclasses.replace(digits, table=table))
