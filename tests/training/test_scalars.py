"""Runs that differ in scalars only share one compiled step, which gives what a step of their own would."""

import jax
import numpy as np
import pytest
from digits_experiment import digits_config

from imgclf import models
from imgclf.training import freeze, optimizer, phases, scalars, sharding, step
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
    model, mesh = models.create(config, 10), sharding.create_mesh()
    freezing = freeze.plan(config, model, STEPS, 10.0)
    (phase,) = phases.create(config, model, freezing, optimizer.create_schedule(config, STEPS, 10.0), STEPS, weights, mesh)
    state = sharding.replicate(phase.first_state(*jax.device_get(split_model(model)[1:])), mesh)
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (16, 8, 8, 3), np.uint8), "label": rng.integers(0, 10, 16).astype(np.int32)}
    before = phase.compiled._cache_size()
    for _ in range(count):
        state, metrics = phase.step(state, batch)
    return tree_sha256((state.params, state.opt_state)), float(metrics["train_loss"]), phase.compiled._cache_size() - before


def test_another_run_compiles_nothing_and_learns_what_it_would_alone():
    step._train_step.cache_clear()
    assert trained(digits_config(**BASE))[2] == 1
    other = digits_config(**(BASE | OTHER))
    sha, loss, compiled = trained(other, WEIGHTS)
    assert compiled == 0
    step._train_step.cache_clear()
    assert trained(other, WEIGHTS) == (sha, loss, 1)
    # and every number counts
    for name, value in {**BASE, "train.label_smoothing": 0.0, "train.ema": 0.01, "seed": 0, "optimizer.learning_rate": 0.1}.items():
        if name != "optimizer.name":
            changed, _, compiled = trained(digits_config(**(BASE | OTHER | {name: value})), WEIGHTS)
            assert (changed != sha, compiled) == (True, 0), name
    assert trained(other)[0] != sha  # without class weights


@pytest.mark.parametrize("fields", [{"optimizer.weight_decay": 0.0}, {"optimizer.args": "momentum=0.9"}, {"train.accumulate": 2}])
def test_what_belongs_to_the_program_is_another_program(fields):
    base = digits_config(**BASE)
    assert scalars.structure(base) != scalars.structure(digits_config(**(BASE | fields)))


def test_the_rates_of_a_training_are_its_schedules():
    config = digits_config(**{"optimizer.schedule.name": "one_cycle", "train.accumulate": 4})
    schedule = optimizer.create_schedule(config, STEPS, 10.0)
    _, momentum = optimizer.cycled_momentum(config, STEPS)
    made = scalars.create(config, schedule, STEPS, WEIGHTS, momentum)
    for at in (0, 3, 4, 17, STEPS - 1):
        now = made.at(at, 4)
        np.testing.assert_allclose(now.learning_rate, schedule(at // 4 * 4), rtol=1e-5)
        np.testing.assert_allclose(now.cycled_momentum, momentum(at // 4 * 4), rtol=1e-5)
