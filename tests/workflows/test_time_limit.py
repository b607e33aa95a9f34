"""A training that ends when the user's time is over, and its repetition without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from imgclf import config as config_lib
from imgclf.errors import UserError
from imgclf.workflows import time_limit, train


@pytest.mark.parametrize(
    ("written", "expected"),
    [("10 minutes", 600), ("1 min", 60), ("90s", 90), ("1.5 h", 5400), ("2 Hours", 7200), (30, 30), (0.5, 0.5), ("1 day", 86400)],
)
def test_times_are_read(written, expected):
    assert time_limit.seconds(written) == expected


@pytest.mark.parametrize("written", ["10", "", "soon", "-5 s", 0, True, None, "1 fortnight", float("inf"), float("nan")])
def test_what_is_no_time_is_told(written):
    with pytest.raises(UserError, match="is no time: write it as '10 minutes'"):
        time_limit.seconds(written)


@given(before=st.floats(0, 50), passed=st.lists(st.floats(0, 30), max_size=5))
def test_time_runs_out_and_never_below_nothing(before, passed):
    now = [100.0]
    limit = time_limit.TimeLimit(60, before, lambda: now[0])
    for seconds in passed:
        now[0] += seconds
    assert limit.left == pytest.approx(max(0.0, 60 - before - sum(passed)), abs=1e-6)
    assert limit.deadline(5) == pytest.approx(now[0] + limit.left - 5)


def test_a_training_out_of_time_is_evaluated_and_its_config_repeats_it(fields, tmp_path):
    wanted = fields("stratified", 0) | {"train.duration": "100000 steps", "train.eval_every": "3 steps", "train.soup": 2}
    quiet = Console(quiet=True)
    stopped = train.train("quickstart", tmp_path / "stopped", fields=wanted, console=quiet, time_limit=6)
    config = config_lib.from_json((tmp_path / "stopped" / "config.json").read_text())
    steps = int(config.train.stop_after.removesuffix(" steps"))
    assert 0 <= steps < 100_000
    assert stopped["steps"] == steps
    again = train.train(tmp_path / "stopped" / "config.json", tmp_path / "again", console=quiet)
    assert again["params_sha256"] == stopped["params_sha256"]


def test_a_limit_that_is_not_reached_changes_nothing(fields, run, tmp_path):
    plain = run("stratified", 0)[1]
    limited = train.train("quickstart", tmp_path / "run", fields=fields("stratified", 0), console=Console(quiet=True), time_limit="1 hour")
    assert limited["params_sha256"] == plain["params_sha256"]
    assert config_lib.from_json((tmp_path / "run" / "config.json").read_text()).train.stop_after == ""
