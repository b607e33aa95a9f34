"""Commonest mistakes in paths and fields are answered before JAX is imported, and leave nothing behind."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from imgclf.cli import main
sys.argv = ["imgclf", *sys.argv[1:]]
try:
    main()
finally:
    assert "jax" not in sys.modules, "JAX was imported"
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "no config file 'nowhere'"),
        (["train", "folder:nowhere"], "start the command in the folder that 'nowhere' is relative to"),
        (["train", "folder:/nowhere"], "/nowhere does not exist; check the path.\n"),
        (["train", "finetune:nowhere"], "nowhere does not exist"),
        (["train", "folder:photos", "--set", "data.sorce=x"], "did you mean 'data.source'"),
        (["train", "folder:photos", "--set", "loader.batch_size=0"], "config.loader.batch_size=0"),
        (["train", "folder:photos", "--workdir", "photos/run"], "--workdir=photos/run lies in the folder of the photos"),
        (["train", "csv:photos/cat.csv", "--workdir", "photos"], "--workdir=photos is the folder of the photos itself"),
        (["train", "quickstart", "--workdir", "photos/cat.txt/run"], "choose another with --workdir"),
        (["train", "quickstart", "--workdir", ""], "The run's folder has an empty name"),
        (["train", "quickstart", "--set", "data.label_patch=nowhere.csv"], "nowhere.csv does not exist"),
        (["train", "quickstart", "--set", "model.weights=path:nowhere.h5"], "nowhere.h5 can't be read (there is no such file)"),
        (["train", "quickstart", "--set", "model.weights=path:photos"], "photos can't be read (it is a folder)"),
        (["data", "augmentations", "nowhere.jpg"], "nowhere.jpg can't be read"),
        (["evaluate", "run", "--on", "nowhere"], "nowhere"),
        (["lr-find", "folder:nowhere"], "nowhere does not exist"),
        (["label-errors", "folder:nowhere"], "nowhere does not exist"),
        (["plan", "quickstart", "--topology", "v5e:32x32"], "the nearest is v5e:16x16"),
        (["data", "show", "folder:nowhere"], "nowhere does not exist"),
        (["data", "balance", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["create", "nowhere"], "no folder or table 'nowhere'"),
        (["study", "nowhere.py"], "no study file 'nowhere.py'"),
        (["evaluate", "nowhere"], "There is no run 'nowhere'"),
        (["robustness", "photos"], "photos is not a finished run"),
        (["export", "run", "--to", "onxx"], "no export to 'onxx'; did you mean 'onnx'"),
        (["export", "run", "--int8", "--fp16"], "give --int8 or --fp16, not both"),
        (["export", "run", "--python", "nowhere"], "--python=nowhere is no program"),
        (["serve", "run", "--threshold", "2"], "--threshold=2 is no probability from 0 to 1"),
        (["explain", "run", "photos", "--method", "cam"], "--method='cam' is no explanation"),
        (["compare", "run", "run", "--out", "x.csv"], "would hold a page, which is HTML: name a file such as x.html"),
        (["leaderboard", "broken"], "results.json is damaged"),
        (["predict", "nowhere", "photos"], "There is no run 'nowhere'"),
        (["predict", "run", "nowhere.jpg"], "nowhere.jpg does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_before_jax_is_imported(arguments, message, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").touch()
    (tmp_path / "photos" / "cat.csv").write_text("path,label\n1.jpg,cat\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert sorted(tmp_path.rglob("*")) == before
