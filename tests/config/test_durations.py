import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.config import durations
from imgclf.errors import UserError


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("500 steps", 500),
        ("1 step", 1),
        ("10 epochs", 125),
        ("0.5 epochs", 6),
        ("20%", 40),
        ("100%", 200),
        ("0 steps", 0),
        ("0.001 epochs", 1),
    ],
)
def test_durations_become_steps(duration, expected):
    assert durations.steps(duration, steps_per_epoch=12.5, total_steps=200) == expected


@pytest.mark.parametrize("duration", ["", "10", "ten steps", "-1 epochs", "5 weeks", "steps 5"])
def test_what_is_no_duration_is_refused_with_the_field(duration):
    with pytest.raises(UserError, match=r"config\.train\.duration.*500 steps"):
        durations.steps(duration, steps_per_epoch=1, field="config.train.duration")


def test_a_percentage_needs_a_whole():
    with pytest.raises(UserError, match="percentage"):
        durations.steps("20%", steps_per_epoch=10)


@given(amount=st.integers(1, 10_000), per_epoch=st.floats(0.01, 1e5))
@settings(derandomize=True, deadline=None)
def test_a_duration_is_at_least_a_step_and_epochs_scale(amount, per_epoch):
    steps = durations.steps(f"{amount} epochs", steps_per_epoch=per_epoch)
    assert steps == max(1, round(amount * per_epoch))


@given(every=st.floats(0.01, 100), total=st.integers(1, 300))
@settings(derandomize=True, deadline=None)
def test_what_recurs_is_due_at_the_steps_nearest_to_its_multiples(every, total):
    due = [step for step in range(total + 1) if durations.is_due(step, every)]
    whole = max(1.0, every)
    assert due == [step for step in (round(k * whole) for k in range(1, int(total / whole) + 2)) if step <= total]


def test_bit_hyper_rule():
    assert [durations.hyper_rule_steps(examples, 512) for examples in (19_999, 20_000, 499_999, 500_000)] == [500, 10_000, 10_000, 20_000]
    assert durations.hyper_rule_steps(600, 32) == 8_000  # as many images seen
