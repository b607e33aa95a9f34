"""What is installed from the wheel, far from any clone: it trains a shipped config by its name, predicts, and opens a saved model."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

FIELDS = ("train.duration=3 steps", "model.cnn.widths=(4,)", "model.cnn.dense=()", "loader.threads=1", "eval.explain=0")
FEW = [part for field in FIELDS for part in ("--set", field)]


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    """Calls Python, in an empty folder, with what the wheel installs first on its path; returns what it said."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(root)], check=True, cwd=folder)
    (wheel,) = folder.glob("imgclf-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True, cwd=folder)
    here = folder / "empty"
    here.mkdir()
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}

    def call(*arguments: str) -> str:
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call, here, folder / "site"


def test_the_wheel_has_all_that_is_needed(installed, root):
    call, _, site = installed
    assert call("-c", "import imgclf; print(imgclf.__file__)").strip() == str(site / "imgclf" / "__init__.py")
    names = json.loads(call("-c", "import json; from imgclf.config import shipped; print(json.dumps(list(shipped())))"))
    assert names == sorted(path.stem for path in (root / "configs").glob("*.py"))
    programs = {path.name for path in (site / "imgclf" / "exports" / "programs").glob("*.py")}  # that go along with an export
    assert {"preprocess.py", "predict.py"} <= programs
    inside = {path.relative_to(site / "imgclf") for path in (site / "imgclf").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    expected = {path.relative_to(root / "imgclf") for path in (root / "imgclf").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert expected <= inside
    assert sorted(path.name for path in (site / "bin").iterdir()) == ["imgclf"]


def test_it_trains_predicts_and_opens_a_saved_model(installed):
    call, here, _ = installed
    command = ["-c", "from imgclf.cli import main; main()"]
    said = call(*command, "train", "quickstart", *FEW)
    assert "Report: runs/quickstart/report.html" in said
    assert json.loads((here / "runs" / "quickstart" / "results.json").read_text())["steps"] == 3
    Image.new("L", (16, 16), 128).save(here / "grey.png")
    call(*command, "predict", "runs/quickstart", "grey.png", "--out", "one.csv")
    assert len((here / "one.csv").read_text().splitlines()) == 2
    program = "import imgclf; print(imgclf.load(imgclf.load('runs/quickstart').save('model')).predict('grey.png').predicted.item())"
    assert call("-c", program).strip() in "0123456789"
