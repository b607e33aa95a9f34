"""Schedules, optimizers by name, weight decay by table, and the parameter average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.training import optimizer

PARAMS = {"backbone": {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, "head": {"kernel": jnp.full((2, 2), 2.0)}}


@pytest.fixture
def config():
    config = default_config()
    config.optimizer.learning_rate = 0.1
    return config


def schedule_of(config, name, **options):
    config.optimizer.schedule.name = name
    config.optimizer.schedule.update(options)
    return optimizer.create_schedule(config, total_steps=100, steps_per_epoch=10)


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
        ("one_cycle", {}, 0, 0.1 / 25),
        ("one_cycle", {}, 25, 0.1),
        ("one_cycle", {}, 100, 0.1 / 1e5),
    ],
)
def test_schedules(config, name, options, step, expected):
    np.testing.assert_allclose(schedule_of(config, name, **options)(step), expected, rtol=1e-5)


def test_a_warmup_as_long_as_training_is_refused(config):
    with pytest.raises(UserError, match="warmup"):
        schedule_of(config, "cosine", warmup="100 steps")


def step_once(config, grads=None, count=1):
    tx = optimizer.create_optimizer(config, lambda step: config.optimizer.learning_rate, PARAMS)
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


@pytest.mark.parametrize("name", optimizer.optimizer_names())
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
    averaged = optimizer.evaluated_params(params, state)
    np.testing.assert_allclose(averaged["head"]["kernel"], expected, rtol=1e-6)


def test_without_an_average_the_parameters_themselves_are_evaluated(config):
    params, state = step_once(config)
    assert optimizer.evaluated_params(params, state) is params


def fastai_combined_cosine(step: int, total: int, start: float, middle: float, end: float) -> float:
    """As fastai's `combined_cos(0.25, start, middle, end)` has it."""
    position = step / total
    low, high, here = (start, middle, position / 0.25) if position < 0.25 else (middle, end, (position - 0.25) / 0.75)
    return low + (1 + np.cos(np.pi * (1 - here))) * (high - low) / 2


@pytest.mark.parametrize("step", [0, 7, 24, 25, 40, 99])
def test_one_cycle_is_fastais(config, step):
    np.testing.assert_allclose(
        schedule_of(config, "one_cycle")(step), fastai_combined_cosine(step, 100, 0.1 / 25, 0.1, 0.1 / 1e5), rtol=1e-4
    )
    name, momentum = optimizer.cycled_momentum(config, 100)
    assert name == "b1"
    np.testing.assert_allclose(momentum(step), fastai_combined_cosine(step, 100, 0.95, 0.85, 0.95), rtol=1e-5)


def test_one_cycle_moves_the_momentum_unless_it_is_given(config):
    config.optimizer.schedule.name, config.optimizer.name = "one_cycle", "sgd"
    tx = optimizer.create_optimizer(config, lambda step: 0.1, PARAMS, total_steps=8)
    params, state, moved = PARAMS, tx.init(PARAMS), []
    for _ in range(4):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, params)
        moved.append(float(updates["head"]["kernel"][0, 0]))
    trace, expected = 0.0, []
    for step in range(4):
        trace = 1 + trace * fastai_combined_cosine(step, 8, 0.95, 0.85, 0.95)
        expected.append(-0.1 * trace)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)
    config.optimizer.args = "momentum=0.5"
    assert optimizer.cycled_momentum(config, 8) is None
    config.optimizer.name, config.optimizer.args = "adagrad", ""
    assert optimizer.cycled_momentum(config, 8) is None


DEPTHS = {"backbone/conv": 2, "backbone/late": 1}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lamb"])
def test_rates_of_parameters_multiply_what_the_optimizer_makes_and_its_decay(config, name):
    params = PARAMS | {"backbone": PARAMS["backbone"] | {"late": {"bias": jnp.full(3, 4.0)}}}
    config.optimizer.name, config.optimizer.weight_decay = name, 0.3
    config.optimizer.weight_decay_table = ((".*", 1.0),)
    config.optimizer.args = "momentum=0.9" if name == "sgd" else ""

    def updates_of(**options):
        tx, state = optimizer.create_optimizer(config, lambda step: 0.1, params, **options), None
        state = tx.init(params)
        for scale in (1.0, -0.5):
            updates, state = tx.update(jax.tree.map(lambda leaf, scale=scale: jnp.full_like(leaf, scale), params), state, params)
        return updates

    plain = updates_of()
    config.optimizer.layer_decay = 0.5
    config.optimizer.lr_table = ((".*/bias", 3.0), (".*", 1.0))
    scaled = updates_of(depths=DEPTHS)
    ratios = {"backbone": {"conv": {"kernel": 0.25, "bias": 0.75}, "late": {"bias": 1.5}}, "head": {"kernel": 1.0}}
    assert_trees_close(scaled, jax.tree.map(lambda update, ratio: update * ratio, plain, ratios))


def test_tables_may_name_parameters_that_are_frozen(config):
    config.optimizer.weight_decay = 0.1
    config.optimizer.weight_decay_table = (("backbone/.*", 1.0), (".*", 0.0))
    config.optimizer.lr_table = (("backbone/.*", 0.1), ("head/.*", 10.0))
    head = {"head": PARAMS["head"]}
    tx = optimizer.create_optimizer(config, lambda step: 0.1, PARAMS, since={"head/kernel": 0})
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, head), tx.init(head), head)
    np.testing.assert_allclose(updates["head"]["kernel"], -1.0, rtol=1e-5)  # Adam's first step, ten times the rate
