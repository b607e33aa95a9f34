"""The log of a training: continued where it was cut, and closed whatever happens."""

import json
import os

import numpy as np
import pytest

from imgclf.training import metrics_log
from imgclf.training.metrics_log import MetricsLog, MetricsWindow, NotFinite


def test_opened_at_a_step_it_forgets_what_came_after_and_what_a_kill_cut_off(tmp_path):
    lines = [json.dumps({"step": step, "train_loss": 1.0}) for step in (5, 10, 15)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 20, "tr']))
    log = MetricsLog(tmp_path, 10, 4.0)
    log.write(12, {"train_loss": float("inf")})
    log.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [5, 10, 12]
    assert (records[-1]["epoch"], records[-1]["train_loss"]) == (3.0, None)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks for open files where Linux lists them")
def test_where_the_events_cannot_be_opened_the_lines_are_closed(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(metrics_log, "SummaryWriter", fails)
    with pytest.raises(OSError, match="no space left"):
        MetricsLog(tmp_path, 0, 1.0)
    there = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    assert not [file for file in there if os.path.islink(file) and os.readlink(file).startswith(str(tmp_path))]


def test_a_window_averages_and_names_the_steps_that_are_not_finite():
    window = MetricsWindow()
    for step, loss in enumerate((1.0, 3.0), start=1):
        window.add(step, {"train_loss": np.float32(loss)})
    assert window.means() == {"train_loss": 2.0}
    for step, loss in enumerate((1.0, np.nan, np.inf), start=3):
        window.add(step, {"train_loss": np.float32(loss)})
    with pytest.raises(NotFinite) as found:
        window.read()
    assert found.value.steps == [4, 5]
