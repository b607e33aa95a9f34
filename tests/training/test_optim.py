"""Schedules, optimizers by name, weight decay by table, and the parameter average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.training import optim

PARAMS = {"backbone": {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, "head": {"kernel": jnp.full((2, 2), 2.0)}}


@pytest.fixture
def config():
    config = default_config()
    config.optimizer.learning_rate = 0.1
    return config


def schedule_of(config, name, **options):
    config.optimizer.schedule.name = name
    config.optimizer.schedule.update(options)
    return optim.create_schedule(config, total_steps=100, steps_per_epoch=10)


@pytest.mark.parametrize(
    ("name", "options", "step", "expected"),
    [
        ("constant", {}, 99, 0.1),
        ("constant", {"warmup": "1 epochs"}, 5, 0.05),
        ("constant", {"warmup": "10%"}, 10, 0.1),
        ("cosine", {}, 50, 0.05),
        ("cosine", {"final": 0.1}, 100, 0.01),
        ("cosine", {"warmup": "20 steps"}, 60, 0.05),
        ("step", {"boundaries": ("50%", "9 epochs")}, 49, 0.1),
        ("step", {"boundaries": ("50%", "9 epochs")}, 51, 0.01),
        ("step", {"boundaries": ("50%", "9 epochs"), "warmup": "10 steps"}, 91, 0.001),
        ("exponential", {"rate": 0.5, "every": "1 epochs"}, 20, 0.025),
        ("time", {"rate": 0.01}, 100, 0.05),
    ],
)
def test_schedules(config, name, options, step, expected):
    np.testing.assert_allclose(schedule_of(config, name, **options)(step), expected, rtol=1e-5)


def test_a_warmup_as_long_as_training_is_refused(config):
    with pytest.raises(UserError, match="warmup"):
        schedule_of(config, "cosine", warmup="100 steps")


def step_once(config, grads=None, count=1):
    tx = optim.create_optimizer(config, lambda step: config.optimizer.learning_rate, PARAMS)
    params, state = PARAMS, tx.init(PARAMS)
    grads = jax.tree.map(jnp.ones_like, PARAMS) if grads is None else grads
    for _ in range(count):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_trees_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), actual, expected)


def test_adamw_with_a_table_equals_optax_with_a_mask(config):
    config.optimizer.weight_decay = 0.3
    mask = {"backbone": {"conv": {"kernel": True, "bias": False}}, "head": {"kernel": True}}
    tx = optax.adamw(0.1, weight_decay=0.3, mask=mask)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    assert_trees_close(step_once(config)[0], optax.apply_updates(PARAMS, updates))


def test_sgd_decay_is_an_l2_penalty_with_multipliers(config):
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 0.5
    config.optimizer.weight_decay_table = (("head/.*", 2.0), (".*/kernel", 1.0), (".*", 0.0))
    params, _ = step_once(config)
    np.testing.assert_allclose(params["head"]["kernel"], 2 - 0.1 * (1 + 0.5 * 2 * 2), rtol=1e-6)
    np.testing.assert_allclose(params["backbone"]["conv"]["kernel"], 1 - 0.1 * 1.5, rtol=1e-6)
    np.testing.assert_allclose(params["backbone"]["conv"]["bias"], 0.9, rtol=1e-6)


def test_lamb_takes_the_table_as_its_mask(config):
    config.optimizer.name, config.optimizer.weight_decay = "lamb", 0.3
    mask = {"backbone": {"conv": {"kernel": True, "bias": False}}, "head": {"kernel": True}}
    tx = optax.lamb(0.1, weight_decay=0.3, mask=mask)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    assert_trees_close(step_once(config)[0], optax.apply_updates(PARAMS, updates))


def test_a_row_that_matches_nothing_and_a_parameter_without_a_row_are_refused(config):
    config.optimizer.weight_decay = 0.1
    config.optimizer.weight_decay_table = (("backbone/convv/kernel", 1.0), (".*", 0.0))
    with pytest.raises(UserError, match="near misses: backbone/conv/kernel"):
        step_once(config)
    config.optimizer.weight_decay_table = ((".*/kernel", 1.0),)
    with pytest.raises(UserError, match="no row for parameter 'backbone/conv/bias'"):
        step_once(config)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("adamm", "", "did you mean 'adam"),
        ("lbfgs", "", "no optax optimizer"),
        ("sgd", "momentun=0.9", "did you mean 'momentum'"),
        ("sgd", "learning_rate=1.0", r"set config\.optimizer\.learning_rate"),
    ],
)
def test_unknown_optimizers_and_arguments_are_refused(config, name, args, message):
    config.optimizer.name, config.optimizer.args = name, args
    with pytest.raises(UserError, match=message):
        step_once(config)


@pytest.mark.parametrize("name", optim.optimizer_names())
def test_every_offered_optimizer_takes_a_step(config, name):
    config.optimizer.name = name
    params, _ = step_once(config, count=2)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params))
    assert not np.allclose(params["head"]["kernel"], PARAMS["head"]["kernel"])


def test_clipping_bounds_the_gradient(config):
    config.optimizer.name, config.train.clip_norm = "sgd", 1.0
    params, _ = step_once(config, jax.tree.map(lambda leaf: 100 * jnp.ones_like(leaf), PARAMS))
    moved = jax.tree.map(lambda new, old: (old - new) / 0.1, params, PARAMS)
    np.testing.assert_allclose(optax.tree.norm(moved), 1.0, rtol=1e-5)


def test_accumulation_averages_the_gradients_of_batches(config):
    config.optimizer.name, config.train.accumulate = "sgd", 2
    one, _ = step_once(config, count=1)
    assert_trees_close(one, PARAMS)
    two, _ = step_once(config, count=2)
    np.testing.assert_allclose(two["head"]["kernel"], 2 - 0.1, rtol=1e-6)


def test_the_average_follows_the_parameters(config):
    config.optimizer.name, config.train.ema = "sgd", 0.9
    params, state = step_once(config, count=3)
    decays, expected, value = [min(0.9, (1 + t) / (10 + t)) for t in range(3)], 2.0, 2.0
    for decay in decays:
        value -= 0.1
        expected = decay * expected + (1 - decay) * value
    averaged = optim.evaluated_params(params, state)
    np.testing.assert_allclose(averaged["head"]["kernel"], expected, rtol=1e-6)


def test_without_an_average_the_parameters_themselves_are_evaluated(config):
    params, state = step_once(config)
    assert optim.evaluated_params(params, state) is params
