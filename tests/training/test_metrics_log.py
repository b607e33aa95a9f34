"""The log of a training: continued where it was cut, and closed whatever happens."""

import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
from tensorboardX import event_file_writer
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

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
def test_where_the_events_cannot_be_written_the_lines_are_closed(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(event_file_writer, "EventsWriter", fails)
    log = MetricsLog(tmp_path, 0, 1.0)
    log.write(1, {"train_loss": 1.0})
    with pytest.raises(OSError, match="no space left"):
        log.close()
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


def events_of(run):
    (path,) = (run / "tensorboard").iterdir()
    return events_in(path)


def events_in(path):
    data, at = path.read_bytes(), 0
    while at < len(data):  # a record: its length, a checksum, itself, a checksum
        size = int.from_bytes(data[at : at + 8], "little")
        yield Event.FromString(data[at + 12 : at + 12 + size])
        at += size + 16


def test_tensorboard_reads_what_was_written_and_forgets_what_came_after_a_resumed_step(tmp_path):
    for start, step in ((0, 3), (7, 9)):
        log = MetricsLog(tmp_path, start, 4.0)
        log.write(step, {"train_loss": 0.5})
        log.close()
        version, *session, scalar = events_of(tmp_path)
        assert version.file_version == "brain.Event:2"
        assert [event.step for event in session] == ([start + 1] if start else [])
        assert (scalar.step, scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == (step, "train/loss", 0.5)
        shutil.rmtree(tmp_path / "tensorboard")


def test_events_are_written_when_the_last_time_is_long_ago_each_with_its_own_time(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path, 0, 4.0)
    log.write(1, {"train_loss": 0.5})
    assert not list((tmp_path / "tensorboard").iterdir())
    monkeypatch.setattr(metrics_log, "_SHOWN_AFTER", 0.0)
    before = time.time()
    log.write(2, {"train_loss": 0.25})
    first, second = [event for event in events_of(tmp_path) if event.step]
    assert (first.step, second.step) == (1, 2)
    assert first.wall_time <= before <= second.wall_time
    log.close()


def test_events_before_a_flush_outlive_a_kill_and_a_run_that_is_continued_at_once(tmp_path):
    killed = MetricsLog(tmp_path, 0, 4.0)
    killed.write(1, {"train_loss": 0.5})
    killed.flush()
    continued = MetricsLog(tmp_path, 1, 4.0)
    continued.write(2, {"train_loss": 0.25})
    continued.close()
    found = [event.step for path in sorted((tmp_path / "tensorboard").iterdir()) for event in events_in(path) if event.summary.value]
    assert found == [1, 2]
    killed.close()


@pytest.mark.parametrize(("step", "kept"), [(0, False), (7, True)])
def test_a_run_that_begins_anew_shows_no_curve_of_the_one_before(tmp_path, step, kept):
    older = tmp_path / "tensorboard" / "events.out.tfevents.1700000000.host"
    older.parent.mkdir()
    older.write_bytes(b"")
    MetricsLog(tmp_path, step, 4.0).close()
    assert older.exists() == kept
    assert len(list(older.parent.iterdir())) == 1 + kept


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk, as Linux has one")
def test_a_full_disk_is_an_error_of_the_thread_that_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "_SHOWN_AFTER", 0.0)
    monkeypatch.setattr(event_file_writer, "RecordWriter", lambda _: RecordWriter("/dev/full"))
    log = MetricsLog(tmp_path, 0, 4.0)
    with pytest.raises(OSError, match="No space left"):
        log.write(1, {"train_loss": 1.0})
    assert not [thread for thread in threading.enumerate() if "tensorboard" in type(thread).__module__]
