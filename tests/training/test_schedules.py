"""Learning-rate schedules, and the momentum of one_cycle."""

import numpy as np
import pytest
from one_cycle import fastai_combined_cosine

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.training import scalars, schedules


@pytest.fixture
def config():
    config = default_config()
    config.optimizer.learning_rate = 0.1
    return config


def schedule_of(config, name, **options):
    config.optimizer.schedule.name = name
    config.optimizer.schedule.update(options)
    return schedules.create_schedule(config, total_steps=100, steps_per_epoch=10)


@pytest.mark.parametrize(
    ("name", "options", "step", "expected"),
    [
        ("constant", {}, 99, 0.1),
        ("constant", {"warmup": "1 epochs"}, 5, 0.05),
        ("constant", {"warmup": "10%"}, 10, 0.1),
        ("cosine", {}, 50, 0.05),
        ("cosine", {"final": 0.1}, 100, 0.01),
        ("cosine", {"warmup": "20 steps"}, 60, 0.05),
        ("linear", {"final": 0.1, "warmup": "20 steps"}, 60, 0.055),
        ("linear", {}, 100, 0.0),
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


@pytest.mark.parametrize("step", [0, 7, 24, 25, 40, 99])
def test_one_cycle_is_fastais(config, step):
    np.testing.assert_allclose(
        schedule_of(config, "one_cycle")(step), fastai_combined_cosine(step, 100, 0.1 / 25, 0.1, 0.1 / 1e5), rtol=1e-4
    )
    assert scalars.momentum_argument(config) == "b1"
    np.testing.assert_allclose(schedules.cycled_momentum(100)(step), fastai_combined_cosine(step, 100, 0.95, 0.85, 0.95), rtol=1e-5)
