"""run.py as a user meets it: exit codes, messages without tracebacks, and a shipped config for a step."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm_start
from PIL import Image

FAST = ["--config.train.duration=1 steps", "--config.eval.explain=0"]
SMALL = ["--config.data.image_size=(32, 24)", "--config.model.cnn.widths=(16, 32)"]


@pytest.fixture
def run(root, tmp_path):
    """Runs run.py in an empty folder; returns (exit code, everything it said)."""

    def call(*arguments: str) -> tuple[int, str]:
        process = subprocess.run(
            [sys.executable, str(root / "run.py"), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        return process.returncode, process.stdout + process.stderr

    return call


@pytest.fixture
def warm(tmp_path):
    """The same, but for the start of Python and its imports."""
    return lambda *arguments: warm_start.call(arguments, tmp_path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 12 small pictures: reddish and bluish noise."""
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 128, (40, 50, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path / "photos"


def test_help_shows_examples(run):
    code, said = run("--help")
    assert "--config=configs/folder.py:PHOTOS" in said
    assert "--workdir" in said
    assert code in (0, 1)  # absl leaves with 1 after --help
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/nothing.py"], "no config file 'configs/nothing.py'"),
        (["--config=configs/folder.py"], "needs the folder of your photos"),
        (["--config=configs/folder.py:nowhere"], "nowhere"),
        (["--config.data.sorce=digits"], "did you mean 'data.source'"),
        (["--config.loader.batch_size=many"], "loader.batch_size"),
        (["--config.loader.batch_size=0"], "config.loader.batch_size=0"),
        (["--config.model.name=resnet51"], "did you mean 'resnet5"),
        (["--config.optimizer.name=adamm"], "did you mean 'adam"),
        (["--confg=x"], "confg"),
        (["stray"], "no config file 'stray'"),
        (["--config.train.duration=a while"], "not a duration"),
        (["--workdir=/dev/null/run"], "--workdir"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(warm, arguments, message):
    code, said = warm(*arguments)
    assert code == 2, said
    assert message in said
    assert "Traceback" not in said


def test_an_empty_folder_is_a_mistake(warm, tmp_path):
    (tmp_path / "empty").mkdir()
    code, said = warm("--config=configs/folder.py:empty")
    assert code == 2
    assert "empty" in said
    assert "Traceback" not in said


def test_a_folder_of_photos_is_trained_evaluated_and_reported(run, warm, photos, tmp_path):
    (photos / "red" / ".DS_Store").write_bytes(b"junk")
    (photos / "red" / "broken.jpg").write_bytes((photos / "red" / "0.jpg").read_bytes()[:200])
    code, said = run("--config=configs/folder.py:photos", "--workdir=out", "--config.train.duration=4 epochs", *SMALL)
    assert code == 0, said
    out = tmp_path / "out"
    expected = {"config.json", "environment.json", "dataset.parquet", "quarantine.csv", "audit.json", "metrics.jsonl", "tensorboard"}
    expected |= {"checkpoints", "predictions.csv", "results.json", "report.html"}
    assert expected <= {path.name for path in out.iterdir()}
    assert not list(out.glob("*.part"))
    results = json.loads((out / "results.json").read_text())
    assert results["split"] == "test"
    assert results["n"] == 4
    assert "red/broken.jpg" in (out / "quarantine.csv").read_text()
    assert list((out / "tensorboard").glob("events*"))

    code, said = warm("--config=out/config.json", "--workdir=again")
    assert code == 0, said
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["params_sha256"] == results["params_sha256"]

    code, said = warm("--config=out/config.json", "--workdir=out", "--config.optimizer.learning_rate=0.5")
    assert code == 2
    assert "config.optimizer.learning_rate was 0.002, now 0.5" in said


def test_a_csv_of_photos_is_trained(warm, photos, tmp_path):
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(photos.rglob("*.jpg"))]
    (tmp_path / "labels.csv").write_text("file,kind\n" + "\n".join(rows) + "\n")
    fields = ["--config.data.columns.path=file", "--config.data.columns.label=kind", *SMALL, *FAST]
    code, said = warm("--config=configs/csv.py:labels.csv", "--workdir=out", *fields)
    assert code == 0, said
    assert json.loads((tmp_path / "out" / "results.json").read_text())["class_names"] == ["blue", "red"]


@pytest.mark.parametrize(
    "name", ["openimages_cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sports_cnn", "cifar10_resnet"))]
)
def test_shipped_configs_take_a_step(warm, photos, name):
    small = ["--config.data.image_size=(48, 48)", "--config.loader.batch_size=8", "--config.data.split.fractions=(0.5, 0.25, 0.25)"]
    code, said = warm(f"--config=configs/{name}.py:photos", "--workdir=out", *small, *FAST)
    assert code == 0, said


def test_a_loss_that_is_not_finite_names_the_steps_and_saves_nothing(warm, tmp_path):
    wild = ["--config.optimizer.name=sgd", "--config.optimizer.learning_rate=1e30", "--config.train.checkpoint_every=100 steps"]
    code, said = warm("--workdir=out", *wild, "--config.optimizer.schedule.name=constant", "--config.optimizer.schedule.warmup=0 steps")
    assert code == 2, said
    assert "not finite at step" in said
    assert "config.optimizer.learning_rate" in said
    assert not list((tmp_path / "out" / "checkpoints" / "last").glob("step_*"))


def test_ctrl_c_saves_and_leaves_with_130(tmp_path):
    log = tmp_path / "out" / "metrics.jsonl"

    def interrupt(process) -> None:
        while process.is_alive() and not (log.exists() and log.stat().st_size):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)

    code, said = warm_start.call(["--workdir=out", "--config.train.duration=500 epochs"], tmp_path, interrupt)
    assert code == 130, said
    assert "Give the same command to continue" in said
    assert "Traceback" not in said
    assert list((tmp_path / "out" / "checkpoints" / "last").glob("step_*"))


def test_a_full_disk_is_said_without_a_traceback(warm, tmp_path):
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        code, said = warm(f"--workdir={disk}/run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert code == 2, said
    assert "full" in said
    assert "Traceback" not in said
