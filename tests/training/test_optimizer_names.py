"""Optimizers by name: optax's, those of its modules, and the user's own; each trains, and is resumed to the bit."""

import json
import sys

import optax
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf import models
from imgclf.config import default_config
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.methods.fit import Fit
from imgclf.training import loop, optimizer_names, sharding


@pytest.fixture(autouse=True)
def of_mine(tmp_path, monkeypatch):
    """A module in the current directory, as a user would have it."""
    (tmp_path / "of_my_own.py").write_text(
        "import optax\n\n\n"
        "def make(learning_rate, nesterov=False, weight_decay=0.0):\n"
        "    return optax.chain(optax.trace(0.9, nesterov), optax.scale(-learning_rate))\n\n\n"
        "def no_rate(step_size):\n    return optax.sgd(step_size)\n\n\n"
        "def no_transformation(learning_rate):\n    return learning_rate\n\n\n"
        "def needs_the_loss(learning_rate):\n    return optax.polyak_sgd()\n\n\n"
        "NUMBER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_names_stand_for_functions_of_optax_and_its_modules():
    assert optimizer_names.find("adamw") is optimizer_names.find("optax.adamw") is optax.adamw
    assert optimizer_names.find("optax.contrib.muon") is optimizer_names.find("contrib.muon") is optax.contrib.muon


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("optax.contrib.muo", "", "no optax optimizer; did you mean 'muon'"),
        ("optax.contribb.muon", "", "optax has no module 'contribb'"),
        ("optax.contrib.schedule_free_adamw", "", "does not suit"),
        ("optax.contrib.momo", "", "can't be used"),
        ("optax.contrib.muon", "bata=0.9", "optax.contrib.muon takes no 'bata'; did you mean 'beta'"),
        ("adam", "b1='much'", "can't be used with config.optimizer.args=\"b1='much'\""),
        ("of_my_ownn:make", "", "no module 'of_my_ownn'.*did you mean 'of_my_own'"),
        ("of_my_own:maek", "", "has no 'maek'; did you mean 'make'"),
        ("of_my_own:NUMBER", "", "is 3, which can't be called"),
        ("of_my_own:no_rate", "", "takes no learning_rate"),
        ("of_my_own:make", "nestorov=True", "of_my_own:make takes no 'nestorov'; did you mean 'nesterov'"),
        ("of_my_own:no_transformation", "", "no optax.GradientTransformation"),
        ("of_my_own:needs_the_loss", "", "can't be used: .*value"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_runs(name, args, message):
    config = default_config()
    config.optimizer.name, config.optimizer.args = name, args
    with pytest.raises(UserError, match=message):
        optimizer_names.check(config)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("name", "args"), [("of_my_own:make", "nesterov=True"), ("optax.contrib.muon", "beta=0.9")])
def test_it_trains_and_resumes_to_the_bit(tmp_path, monkeypatch, name, args):
    config = digits_config(**{"optimizer.name": name, "optimizer.args": args, "optimizer.weight_decay": 0.01, "train.duration": "15 steps"})
    config = resolve.resolve(resolve.check(config), 10)
    dataset = assign_splits(load_dataset(config), config)

    def trained(folder):
        task = Task(config, dataset, models.create(config, 10), sharding.create_mesh(), Console(quiet=True))
        return Fit.check(task).train(folder)

    straight = trained(tmp_path / "straight")
    add = loop.MetricsWindow.add

    def killed(window, step, metrics):
        if step == 7:
            raise Killed
        add(window, step, metrics)

    monkeypatch.setattr(loop.MetricsWindow, "add", killed)
    with pytest.raises(Killed):
        trained(tmp_path / "killed")
    monkeypatch.setattr(loop.MetricsWindow, "add", add)
    resumed = trained(tmp_path / "killed")
    assert resumed.about["params_sha256"] == straight.about["params_sha256"]
    records = [json.loads(line) for line in (tmp_path / "straight/metrics.jsonl").read_text().splitlines()]
    losses = [record["train_loss"] for record in records if "train_loss" in record]
    assert losses[-1] < losses[0]
