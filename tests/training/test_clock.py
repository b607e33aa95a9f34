"""The time of a training, by a clock that the test turns."""

import numpy as np
import pytest

from imgclf.training import clock
from imgclf.training.clock import TrainingClock

METRICS = {"train_loss": np.float32(1)}


@pytest.fixture
def turn(monkeypatch):
    """Lets so many seconds pass."""
    now = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def passed(seconds: float) -> None:
        now[0] += seconds

    return passed


def test_compiling_pauses_and_the_step_that_waited_for_it_are_not_in_the_rate(turn):
    watch = TrainingClock(7.0, batch_size=10, save_seconds=600.0)
    turn(60)  # compiling
    watch.stepped(METRICS)
    assert watch.rate() == {}
    turn(1)
    watch.stepped(METRICS)
    with watch.paused():
        turn(30)  # an evaluation
    turn(1)
    watch.stepped(METRICS)
    assert watch.rate() == {"images_per_second": 10.0, "data_wait": 0.0}
    watch.start_up()  # the next phase
    turn(40)
    watch.stepped(METRICS)
    turn(2)
    watch.stepped(METRICS)
    assert watch.rate() == {"images_per_second": 5.0, "data_wait": 0.0}
    assert (watch.seconds_now, watch.seconds) == (134.0, 141.0)


def test_a_checkpoint_is_late_by_the_clock(turn):
    watch = TrainingClock(0.0, batch_size=1, save_seconds=50.0)
    turn(50)
    assert not watch.save_is_late(all_ask=False)
    turn(1)
    assert watch.save_is_late(all_ask=False)
    watch.saved()
    assert not watch.save_is_late(all_ask=False)


@pytest.mark.parametrize("late_there", [False, True])
def test_several_processes_go_by_the_clock_of_the_first_and_ask_it_seldom(turn, monkeypatch, late_there):
    asked: list[bool] = []

    def broadcast(late: np.ndarray) -> np.ndarray:
        asked.append(bool(late))
        return np.asarray(late_there)

    monkeypatch.setattr(clock.jax, "process_count", lambda: 2)
    monkeypatch.setattr(clock.multihost_utils, "broadcast_one_to_all", broadcast)
    watch = TrainingClock(0.0, batch_size=1, save_seconds=50.0)
    turn(60)
    assert not watch.save_is_late(all_ask=False)
    assert asked == []
    assert watch.save_is_late(all_ask=True) == late_there
    assert asked == [True]
