"""The loop: closed on every way out, stopped anywhere, and what its log says of its speed."""

import json
import os
import signal
from pathlib import Path

import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf import models
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.methods.fit import Fit
from imgclf.training import loop, sharding
from imgclf.training.checkpoint import Checkpoints
from imgclf.training.evaluate import Evaluator
from imgclf.training.metrics_log import MetricsLog
from imgclf.training.trained_model import TrainedModel


def trained(folder: Path, **changes) -> TrainedModel:
    config = resolve.resolve(resolve.check(digits_config(**{"train.duration": "12 steps", "train.eval_every": "12 steps", **changes})), 10)
    dataset = assign_splits(load_dataset(config), config)
    task = Task(config, dataset, models.create(config, 10), sharding.create_mesh(), Console(quiet=True))
    return Fit.check(task).train(folder)


def opened_files() -> list[str]:
    """The files that this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # that of the listing itself
            continue
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks for open files where Linux lists them")
@pytest.mark.parametrize("broken", ["TrainingClock", "BestModels", "StopRequest", "MetricsLog"])
def test_an_error_before_the_first_step_leaves_nothing_open(tmp_path, monkeypatch, broken):
    closed = []
    for kind in (Checkpoints, MetricsLog):
        close = kind.close
        monkeypatch.setattr(kind, "close", lambda self, close=close: (closed.append(type(self).__name__), close(self)))

    def fails(*args, **kwargs):
        raise RuntimeError("before the first step")

    monkeypatch.setattr(loop, broken, fails)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="before the first step"):
        trained(tmp_path)
    assert closed == (["Checkpoints"] if broken == "MetricsLog" else ["MetricsLog", "Checkpoints"])
    assert not [file for file in opened_files() if file.startswith(str(tmp_path))]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_stopped_in_its_last_evaluation_a_run_makes_it_when_it_is_continued(tmp_path, monkeypatch):
    straight = trained(tmp_path / "straight")
    logits = Evaluator.logits

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return logits(self, *args)

    monkeypatch.setattr(Evaluator, "logits", interrupted)
    with pytest.raises(loop.Interrupted) as stopped:
        trained(tmp_path / "stopped")
    monkeypatch.undo()
    assert stopped.value.step == 12
    assert not list((tmp_path / "stopped" / "checkpoints").glob("best-*"))
    continued = trained(tmp_path / "stopped")
    assert continued.about["params_sha256"] == straight.about["params_sha256"]
    assert continued.progress.best_value == straight.progress.best_value is not None


def test_the_rate_leaves_out_the_step_that_is_compiled(tmp_path):
    trained(tmp_path, **{"train.log_every": "1 steps"})
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "train_loss" in record]
    assert [record["step"] for record in steps if "images_per_second" not in record] == [1]
    assert [record["learning_rate"] for record in steps] == [0.01] * 12
