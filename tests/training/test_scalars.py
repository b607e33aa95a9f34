"""Runs that differ in scalars only share one compiled step, which gives what a step of their own would."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest
from digits_experiment import digits_config
from flax import nnx
from ml_collections import ConfigDict
from networks import created

from imgclf.config import default_config, flatten
from imgclf.training import freeze, phases, scalars, schedules, sharding, step
from imgclf.training.class_weights import class_weights
from imgclf.training.layout import Layout
from imgclf.training.state import split_model, tree_sha256

STEPS = 40
BASE = {"optimizer.name": "sgd", "optimizer.args": "momentum=0.9, nesterov=True", "optimizer.weight_decay": 0.01, "train.clip_norm": 1.0}
OTHER = {
    "seed": 7,
    "optimizer.learning_rate": 0.2,
    "optimizer.args": "momentum=0.5, nesterov=True",
    "optimizer.weight_decay": 0.1,
    "optimizer.schedule.name": "cosine",
    "optimizer.schedule.warmup": "10%",
    "train.clip_norm": 0.3,
    "train.ema": 0.5,
    "train.label_smoothing": 0.2,
    "train.duration": "33 steps",
    "augment.rotate": 90.0,
    "loader.threads": 0,
}
WEIGHTS = np.linspace(0.5, 2, 10, dtype=np.float32)


def trained(config, weights=None, count: int = 3) -> tuple[str, float, int]:
    """Hash of the state after some steps, the last loss, and how many programs were compiled for the steps."""
    config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    model, mesh = created(config, 10), sharding.create_mesh()
    freezing = freeze.create_freezing(config, model, STEPS, 10.0)
    (phase,) = phases.create(config, model, freezing, schedules.create_schedule(config, STEPS, 10.0), STEPS, weights, mesh)
    state = phase.first_state(*jax.device_get(split_model(model)[1:]))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (16, 8, 8, 3), np.uint8), "label": rng.integers(0, 10, 16).astype(np.int32)}
    before = phase.compiled._cache_size()
    for _ in range(count):
        state, metrics = phase.step(state, batch)
    return tree_sha256((state.params, state.opt_state)), float(metrics["train_loss"]), phase.compiled._cache_size() - before


def test_another_run_compiles_nothing_and_learns_what_it_would_alone():
    step.make_train_step.cache_clear()
    assert trained(digits_config(**BASE))[2] == 1
    other = digits_config(**(BASE | OTHER))
    sha, loss, compiled = trained(other, WEIGHTS)
    assert compiled == 0
    step.make_train_step.cache_clear()
    assert trained(other, WEIGHTS) == (sha, loss, 1)
    # and every number counts
    for name, value in {**BASE, "train.label_smoothing": 0.0, "train.ema": 0.01, "seed": 0, "optimizer.learning_rate": 0.1}.items():
        if name != "optimizer.name":
            changed, _, compiled = trained(digits_config(**(BASE | OTHER | {name: value})), WEIGHTS)
            assert (changed != sha, compiled) == (True, 0), name
    assert trained(other)[0] != sha  # without class weights


def made(config) -> phases.Phase:
    config.data.mean, config.data.std = config.data.mean or (0.5, 0.5, 0.5), config.data.std or (0.5, 0.5, 0.5)
    model = nnx.eval_shape(lambda: created(config, 10))
    freezing = freeze.create_freezing(config, model, STEPS, 10.0)
    weights = class_weights(config, tuple("0123456789"), np.arange(10))
    schedule = schedules.create_schedule(config, STEPS, 10.0)
    return phases.create(config, model, freezing, schedule, STEPS, weights, sharding.create_mesh())[-1]


# A value of each field with which the step is another program, or is given other numbers. One_cycle and a weight decay are there before.
PROGRAM = {
    "optimizer.name": "sgd",
    "optimizer.args": "b2=0.5",
    "optimizer.weight_decay": 0.0,
    "optimizer.weight_decay_table": ((".*", 1.0),),
    "optimizer.lr_table": ((".*/bias", 2.0), (".*", 1.0)),
    "optimizer.layer_decay": 0.5,
    "train.clip_norm": 1.0,
    "train.accumulate": 2,
    "train.remat": (("backbone", "all"),),
    "train.ema": 0.9,
    "data.mean": (0.4, 0.4, 0.4),
    "data.std": (0.4, 0.4, 0.4),
    "freeze.preset": "head",
    "freeze.batch_norm": "frozen",
    "model.cnn.widths": (4,),
    "model.cnn.dropout": 0.5,
}
NUMBERS = {
    "seed": 3,
    "optimizer.learning_rate": 0.5,
    "optimizer.schedule.name": "cosine",
    "optimizer.schedule.warmup": "10%",
    "optimizer.schedule.final": 0.5,
    "optimizer.schedule.boundaries": ("10%",),
    "optimizer.schedule.rate": 0.5,
    "optimizer.schedule.every": "2 epochs",
    "train.label_smoothing": 0.1,
    "train.class_weights": "balanced",
    "augment.mixup": 0.2,
    "augment.cutmix": 0.2,
}
# These say how long, how often and by which method, not what a step does.
ELSEWHERE = {"method", "duration", "log_every", "eval_every", "checkpoint_every", "checkpoint_seconds", "best_metric", "soup"}
ELSEWHERE |= {"early_stopping.patience", "early_stopping.min_delta", "stop_after", "refit"}
ELSEWHERE |= {"forms"}  # they are the model's: tests/workflows/test_tune.py
ELSEWHERE |= {"teacher", "teacher_share"}  # they come with each batch: tests/methods/test_teacher.py
OF_VALUES = {"optimizer.undo_norm_gain"}  # counts where the statistics' values are known: test_freeze.py


def before(name: str):
    """A config in which that field counts."""
    of_schedule = {"final": "cosine", "boundaries": "step", "rate": "step", "every": "exponential", "warmup": "cosine"}
    schedule = of_schedule.get(name.rsplit(".", 1)[-1], "one_cycle" if name == "optimizer.schedule.name" else "constant")
    return digits_config(**{"optimizer.weight_decay": 0.1, "optimizer.schedule.name": schedule, "train.ema": 0.0})


@pytest.mark.parametrize("name", PROGRAM)
def test_what_a_step_is_compiled_from_is_another_program(name):
    base, other = made(before(name)), made(digits_config(**(flatten(before(name)) | {name: PROGRAM[name]})))
    assert base.program == made(before(name)).program
    assert hash(base.program) == hash(made(before(name)).program)
    assert base.program != other.program
    assert base.compiled is not other.compiled


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_other_arguments_of_the_same_program(name):
    base, other = made(before(name)), made(digits_config(**(flatten(before(name)) | {name: NUMBERS[name]})))
    if name != "optimizer.schedule.name":  # from one_cycle on, where the momentum moves, too
        assert base.program == other.program
    assert tree_sha256(base.scalars) != tree_sha256(other.scalars)


def test_no_field_of_training_or_the_optimizer_can_be_lost():
    """A new field fails here until it is brought to the step, or is said to matter elsewhere."""
    fields = {name for name in flatten(default_config()) if name.startswith(("optimizer.", "train."))}
    assert fields == {name for name in {*PROGRAM, *NUMBERS, *OF_VALUES} if name in fields} | {f"train.{name}" for name in ELSEWHERE}


def test_the_compiled_step_cannot_reach_a_config():
    """It is made of a program, which holds no config: what nobody brings there can't be read by it."""
    assert list(inspect.signature(step.make_train_step).parameters) == ["program", "layout", "shardings"]
    program = made(before("")).program

    def parts(value):
        yield value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from parts(getattr(value, field.name))

    assert not any(isinstance(part, ConfigDict) for part in parts(program))
    captured = inspect.getclosurevars(inspect.unwrap(step.make_train_step(program, Layout(sharding.create_mesh())))).nonlocals
    assert captured.keys() == {"apply", "layout", "optimizer", "program"}


def test_the_rates_of_a_training_are_its_schedules():
    config = digits_config(**{"optimizer.schedule.name": "one_cycle", "train.accumulate": 4})
    schedule, momentum = schedules.create_schedule(config, STEPS, 10.0), schedules.cycled_momentum(STEPS)
    found = scalars.create(config, schedule, STEPS, WEIGHTS)
    for at in (0, 3, 4, 17, STEPS - 1):
        now = found.at(at, 4)
        np.testing.assert_allclose(now.learning_rate, schedule(at // 4 * 4), rtol=1e-5)
        np.testing.assert_allclose(now.momentum, momentum(at // 4 * 4), rtol=1e-5)
