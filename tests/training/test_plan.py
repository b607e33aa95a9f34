"""Durations in steps."""

import pytest
from digits_experiment import digits_config
from hypothesis import given
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.training.plan import TrainingPlan


def plan(per_epoch: float = 10.0, **changes) -> TrainingPlan:
    return TrainingPlan.create(digits_config(**changes), per_epoch)


def test_durations_become_steps():
    found = plan(
        **{"train.duration": "5 epochs", "train.log_every": "7 steps", "train.eval_every": "1 epochs", "train.checkpoint_every": "20%"}
    )
    assert (found.total, found.log_every, found.evaluate_every, found.checkpoint_every) == (50, 7.0, 10.0, 10.0)
    assert found.epoch(25) == 2.5
    assert [step for step in range(51) if found.logs_at(step)] == [7, 14, 21, 28, 35, 42, 49, 50]
    assert [step for step in range(51) if found.saves_at(step)] == [10, 20, 30, 40, 50]
    assert plan(**{"train.duration": "auto"}).total == 4000  # 500 steps of 512, in batches of 64


def test_no_step_at_all_is_refused():
    with pytest.raises(UserError, match=r"config\.train\.duration='0 epochs' is no step at all"):
        plan(**{"train.duration": "0 epochs"})


@given(per_epoch=st.floats(1.0, 50.0), epochs=st.integers(1, 20))
def test_there_is_one_evaluation_an_epoch_numbered_in_turn_and_one_at_the_end(per_epoch, epochs):
    found = plan(per_epoch, **{"train.duration": f"{epochs} epochs", "train.eval_every": "1 epochs"})
    steps = [step for step in range(1, found.total + 1) if found.evaluates_at(step)]
    assert steps[-1] == found.total
    assert [found.evaluation_number(step) for step in steps] == list(range(1, epochs + 1))
