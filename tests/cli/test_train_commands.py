"""`imgclf train`, `create`, `evaluate`, `configs` and `study` as a user types them, in one process."""

import json
import signal

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.config import shipped
from imgclf.errors import UserError
from imgclf.workflows import train as workflow

FIELDS = ("train.duration=2 steps", "model.cnn.widths=(4,)", "loader.threads=1", "data.image_size=16", "eval.explain=0")
FEW = [part for field in FIELDS for part in ("--set", field)]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 156, (20, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def invoke(*arguments: str):
    return CliRunner().invoke(commands.app, arguments, catch_exceptions=False)


def test_train_then_evaluate(photos, tmp_path):
    done = invoke("train", "folder:photos", *FEW, "--config.seed=1", "--set", "seed=2")
    assert done.exit_code == 0
    run = tmp_path / "runs" / "photos"
    assert "Report: runs/photos/report.html" in done.output
    assert json.loads((run / "config.json").read_text())["seed"] == 2
    results = json.loads((run / "results.json").read_text())
    told = invoke("evaluate", "runs/photos").stdout
    assert f"of {results['n']} test images right" in told
    assert "red" in told
    assert json.loads(invoke("evaluate", "runs/photos", "--on", "photos", "--json").stdout)["n"] == 32
    again = invoke("train", "runs/photos", "--workdir", "again")
    assert again.exit_code == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["params_sha256"] == results["params_sha256"]


def test_create_chooses_and_trains(photos, tmp_path):
    done = invoke("create", "photos", "--model", "cnn", *FEW)
    assert done.exit_code == 0
    assert "32 images of 2 classes" in done.output
    assert "Training of cnn from scratch" in done.output
    assert "imgclf predict runs/photos IMAGES" in done.output
    assert (tmp_path / "runs" / "photos" / "report.html").exists()


def test_create_on_one_class_is_refused_and_leaves_nothing(photos, tmp_path):
    (photos / "blue").rename(tmp_path / "blue")
    with pytest.raises(UserError, match="one class only, 'red'"):
        invoke("create", "photos", "--model", "cnn", *FEW)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_was_asked_to_stop_leaves_with_the_signals_code(photos, monkeypatch, number, code):
    from imgclf.training import stopping

    def stopped(*_, **__):
        raise stopping.Interrupted(number, 7)

    monkeypatch.setattr(workflow, "train", stopped)
    done = invoke("train", "folder:photos", *FEW)
    assert done.exit_code == code
    assert "Stopped at step 7" in done.output


def test_ctrl_c_elsewhere_is_130(monkeypatch):
    def interrupted() -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr("imgclf.config.shipped", interrupted)
    done = invoke("configs")
    assert done.exit_code == 130
    assert done.output == "Interrupted.\n"  # nothing would be continued


def test_configs_lists_what_ships():
    lines = invoke("configs").stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(shipped())
    assert "no download" in next(line for line in lines if line.startswith("quickstart"))


def test_a_study_among_the_photos_is_refused(photos):
    (photos.parent / "study.py").write_text(
        "from imgclf.config import load_config\n"
        "from imgclf.studies import Study\n"
        "def get_study(): return Study(load_config('folder:photos'), {'a': {}, 'b': {'augment.rotate': 5.0}}, seeds=2)\n"
    )
    with pytest.raises(UserError, match="--workdir=photos/study lies in the folder of the photos"):
        invoke("study", "study.py", "--workdir", "photos/study")
    assert sorted(path.name for path in photos.iterdir()) == ["blue", "red"]
