"""How long the devices stood idle for want of a batch, by steps that end when the test says so and a clock that it turns."""

import threading

import pytest

from imgclf.training import data_wait


class Step:
    """What a step computes: there once it has ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def block_until_ready(self) -> "Step":
        assert self.ended.wait(30)
        return self


@pytest.fixture
def world(monkeypatch):
    """The clock, and the measure; what the measure's thread notes is waited for."""
    now = [100.0]
    monkeypatch.setattr(data_wait.time, "perf_counter", lambda: now[0])
    wait = data_wait.DataWait()
    yield now, wait
    wait.close()


def end(step: Step, wait: data_wait.DataWait) -> None:
    step.ended.set()
    for _ in range(3000):
        if wait._done == wait._given:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the end of the step was not noted")


def test_a_host_that_waits_while_a_step_is_computed_costs_nothing(world):
    now, wait = world
    step = Step()
    wait.stepped({"train_loss": step})
    with wait.asking():
        now[0] += 5
    assert wait.take() == 0.0
    end(step, wait)


def test_from_the_end_of_the_step_on_the_devices_wait(world):
    now, wait = world
    step = Step()
    wait.stepped({"train_loss": step})
    with wait.asking():
        now[0] += 3
        end(step, wait)
        now[0] += 2
    assert wait.take() == 2.0
    assert wait.take() == 0.0


def test_what_passes_before_the_batch_is_asked_for_is_no_waiting(world):
    now, wait = world
    step = Step()
    wait.stepped({"train_loss": step})
    end(step, wait)
    now[0] += 10  # an evaluation
    with wait.asking():
        now[0] += 1
    assert wait.take() == 1.0


def test_of_short_steps_only_some_are_watched(world):
    now, wait = world
    for waited in (1.0, 50.0):
        step = Step()
        wait.stepped({"train_loss": step})
        if waited == 1.0:
            end(step, wait)
        with wait.asking():
            now[0] += waited
        now[0] -= waited - 0.01  # the next step follows at once
    assert wait.take() == 1.0
