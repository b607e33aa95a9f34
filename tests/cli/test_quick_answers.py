"""Commonest mistakes in paths and fields are answered before JAX is imported, and leave nothing behind."""

import json
import os
import subprocess
import sys

import pytest

# Answers one command line after the other in one process, each in a folder of its own: to start Python is most of what a mistake costs.
PROGRAM = """
import contextlib, io, json, os, pathlib, sys
from imgclf.cli import main

def answer(place, arguments):
    root = pathlib.Path("case" + str(place))
    photos = root / "photos"
    photos.mkdir(parents=True)
    (photos / "cat.txt").touch()
    (photos / "cat.csv").write_text("path,label\\n1.jpg,cat\\n")
    for name, results in (("run", "{}"), ("broken", "{")):
        (root / name).mkdir()
        (root / name / "results.json").write_text(results)
    (root / "export").mkdir()
    (root / "export" / "export.json").write_text("{}")
    before, told, code = sorted(root.rglob("*")), io.StringIO(), None
    sys.argv = ["imgclf", *arguments]
    with contextlib.chdir(root), contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return {
        "code": code,
        "told": told.getvalue(),
        "slow": sorted({"jax", "altair", "sklearn", "tensorflow_datasets", "orbax", "grain"} & set(sys.modules)),
        "left": sorted(map(str, set(root.rglob("*")) - set(before))),
    }

json.dump([answer(*one) for one in enumerate(json.load(sys.stdin))], sys.stdout)
"""

MISTAKES = [
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
    (["card", "export"], "export is an export, whose card imgclf push export hf://USER/NAME writes"),
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
    (["reproduce", "nowhere"], "There is no bundle"),
    (["data", "check", "nowhere"], "nowhere does not exist"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> list[dict]:
    """What each mistake is answered, in one process that has made all those before it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([arguments for arguments, _ in MISTAKES]),
        cwd=tmp_path_factory.mktemp("mistakes"),
        env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},  # so that the command doesn't start itself anew
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("place", range(len(MISTAKES)), ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_told_before_jax_is_imported(place, answers):
    answer = answers[place]
    assert answer["code"] == 2, answer["told"]
    assert MISTAKES[place][1] in answer["told"]
    assert answer["told"].startswith("Error: ")
    assert answer["slow"] == []
    assert answer["left"] == []


def test_workflows_are_imported_without_what_only_some_of_their_ends_need():
    program = """
import importlib, json, pkgutil, sys
from imgclf import workflows
for module in pkgutil.iter_modules(workflows.__path__):
    importlib.import_module(f"imgclf.workflows.{module.name}")
print(json.dumps(sorted({"altair", "sklearn", "scipy.optimize", "scipy.stats", "tensorflow_datasets"} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
