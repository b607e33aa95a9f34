"""Weight decay and learning rates by table, clipping, accumulation, and the parameter average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_cycle import fastai_combined_cosine

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.training import optimizer, optimizer_names, scalars
from imgclf.training.optimizer import Optimizer, create_optimizer

PARAMS = {"backbone": {"conv": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, "head": {"kernel": jnp.full((2, 2), 2.0)}}


@pytest.fixture
def config():
    config = default_config()
    config.optimizer.learning_rate = 0.1
    return config


def scalars_of(config, total_steps=100):
    return scalars.create(config, optax.constant_schedule(config.optimizer.learning_rate), total_steps, np.ones(2, np.float32))


def updates_of(config, made: Optimizer, params, gradients) -> tuple[list, optax.OptState]:
    """The updates of each of these gradients, for parameters that stay, and the last state."""
    numbers = scalars_of(config)
    state, updates = made.init(params, numbers.at(0, made.accumulate)), []
    for step, grads in enumerate(gradients):
        update, state = made.update(grads, state, params, numbers.at(step, made.accumulate))
        updates.append(update)
    return updates, state


def step_once(config, grads=None, count=1):
    made, numbers = create_optimizer(config, PARAMS), scalars_of(config)
    params, state = PARAMS, made.init(PARAMS, numbers.at(0, made.accumulate))
    grads = jax.tree.map(jnp.ones_like, PARAMS) if grads is None else grads
    for step in range(count):
        updates, state = made.update(grads, state, params, numbers.at(step, made.accumulate))
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
        ("lbfgs", "", "does not suit: it needs more than gradients"),
        ("cosine_decay_schedule", "", "is no optimizer with a learning rate"),
        ("sgd", "momentun=0.9", "did you mean 'momentum'"),
        ("sgd", "learning_rate=1.0", r"set config\.optimizer\.learning_rate"),
    ],
)
def test_unknown_optimizers_and_arguments_are_refused(config, name, args, message):
    config.optimizer.name, config.optimizer.args = name, args
    with pytest.raises(UserError, match=message):
        step_once(config)


@pytest.mark.parametrize("name", optimizer_names.names())
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


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_average_of_the_optimizers_own_is_not_taken_for_that_of_the_parameters(config, ema):
    """signum keeps an `ema` of the gradients."""
    config.optimizer.name, config.train.ema = "signum", ema
    params, state = step_once(config, count=2)
    evaluated = optimizer.evaluated_params(params, state)
    assert (evaluated is params) == (not ema)
    assert float(evaluated["head"]["kernel"][0, 0]) == pytest.approx(1.85, abs=0.06)  # two steps of 0.1 down from 2


def test_without_an_average_the_parameters_themselves_are_evaluated(config):
    params, state = step_once(config)
    assert optimizer.evaluated_params(params, state) is params


def test_one_cycle_moves_the_momentum_unless_it_is_given(config):
    config.optimizer.schedule.name, config.optimizer.name = "one_cycle", "sgd"
    made, numbers = create_optimizer(config, PARAMS), scalars_of(config, 8)
    state, moved = made.init(PARAMS, numbers.at(0, 1)), []
    for step in range(4):
        updates, state = made.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS, numbers.at(step, 1))
        moved.append(float(updates["head"]["kernel"][0, 0]))
    trace, expected = 0.0, []
    for step in range(4):
        trace = 1 + trace * fastai_combined_cosine(step, 8, 0.95, 0.85, 0.95)
        expected.append(-0.1 * trace)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)
    config.optimizer.args = "momentum=0.5"
    assert set(scalars_of(config, 8).momentum.tolist()) == {0.5}
    config.optimizer.name, config.optimizer.args = "adagrad", ""
    assert scalars.momentum_argument(config) == ""


DEPTHS = {"backbone/conv": 2, "backbone/late": 1}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lamb"])
def test_rates_of_parameters_multiply_what_the_optimizer_makes_and_its_decay(config, name):
    params = PARAMS | {"backbone": PARAMS["backbone"] | {"late": {"bias": jnp.full(3, 4.0)}}}
    config.optimizer.name, config.optimizer.weight_decay = name, 0.3
    config.optimizer.weight_decay_table = ((".*", 1.0),)
    config.optimizer.args = "momentum=0.9" if name == "sgd" else ""

    def second_update(**options):
        gradients = [jax.tree.map(lambda leaf, scale=scale: jnp.full_like(leaf, scale), params) for scale in (1.0, -0.5)]
        return updates_of(config, create_optimizer(config, params, **options), params, gradients)[0][-1]

    plain = second_update()
    config.optimizer.layer_decay = 0.5
    config.optimizer.lr_table = ((".*/bias", 3.0), (".*", 1.0))
    scaled = second_update(depths=DEPTHS)
    ratios = {"backbone": {"conv": {"kernel": 0.25, "bias": 0.75}, "late": {"bias": 1.5}}, "head": {"kernel": 1.0}}
    assert_trees_close(scaled, jax.tree.map(lambda update, ratio: update * ratio, plain, ratios))


def test_tables_may_name_parameters_that_are_frozen(config):
    config.optimizer.weight_decay = 0.1
    config.optimizer.weight_decay_table = (("backbone/.*", 1.0), (".*", 0.0))
    config.optimizer.lr_table = (("backbone/.*", 0.1), ("head/.*", 10.0))
    head = {"head": PARAMS["head"]}
    made = create_optimizer(config, PARAMS, since={"head/kernel": 0})
    (updates,), _ = updates_of(config, made, head, [jax.tree.map(jnp.ones_like, head)])
    np.testing.assert_allclose(updates["head"]["kernel"], -1.0, rtol=1e-5)  # Adam's first step, ten times the rate
