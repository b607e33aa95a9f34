"""Bundles of real runs, and what stands in the way of making or reproducing one."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import imgclf
from imgclf import config as config_lib
from imgclf.errors import AlteredError, UserError
from imgclf.publishing import lock, manifest, source
from imgclf.publishing.manifest import Manifest
from imgclf.workflows import reproduce as workflow
from imgclf.workflows import rerun
from imgclf.workflows.reproduce import reproduce

QUIET = Console(quiet=True)
ABOUT = {
    "name": "food",
    "subject": "food, parameters 0",
    "python": "3.11.7",
    "source": {"imgclf": "0.1.0", "commit": None, "changed": False, "notes": []},
    "user_code": {"fields": {}, "files": []},
}


def stranger(folder, *, optimizer="adamw", changed=None, about=None):
    """A bundle whose bytes are as they say, as a stranger could make one."""
    config = config_lib.default_config()
    config.optimizer.name = optimizer
    contents = {"run/config.json": config_lib.to_json(config).encode(), "lock.txt": b"a==1 \\\n    --hash=sha256:00\n"}
    contents |= dict.fromkeys(("run/environment.json", "run/results.json", "data/where.json"), b"{}")
    contents |= dict.fromkeys(("run/predictions.csv", "run/dataset.parquet"), b"")
    contents = {path: data for path, data in (contents | (changed or {})).items() if data is not None}
    whole = Manifest.of(ABOUT | (about or {}), [manifest.file_of(path, data) for path, data in contents.items()])
    for path, data in {**contents, manifest.NAME: whole.to_bytes()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_nothing_of_a_bundle_runs_unless_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = stranger(tmp_path / "bundle")
    asked: list[str] = []
    with pytest.raises(UserError, match=r"installs 1 packages, and its own imgclf 0\.1\.0, .* Nothing of it has run\. Read it in"):
        reproduce(folder, trust=lambda what: bool(asked.append(what)), console=QUIET)
    assert "with your rights" in asked[0]
    named = stranger(tmp_path / "other", optimizer="subprocess:run")
    with pytest.raises(UserError, match=r"This bundle's config runs 'subprocess:run' with your rights\. Nothing of it has run"):
        reproduce(named, new_environment=False, out="here", console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other"]


@pytest.mark.parametrize(
    ("changed", "about", "told"),
    [
        ({"run/results.json": None}, {}, "has no run/results.json"),
        ({"run/config.json": b"[]"}, {}, "is no config of imgclf's"),
        ({"run/config.json": b"[" * 100_000}, {}, "is no config of imgclf's"),
        ({"run/config.json": b'{"nonsense": 1}'}, {}, "nonsense"),
        ({"lock.txt": b" " * (33 << 20)}, {}, "has a far too large lock.txt"),
        ({}, {"name": "\x1b[2J"}, "lacks what the bundle is of"),
        ({}, {"python": "3.11/../x"}, "lacks what the bundle is of"),
        ({}, {"source": None}, "lacks what the bundle is of"),
    ],
)
def test_what_a_stranger_made_up_is_refused_before_it_is_used(tmp_path, changed, about, told):
    folder = stranger(tmp_path / "bundle", changed=changed, about=about)
    with pytest.raises(UserError, match=told):
        reproduce(folder, trust=True, out=tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()


def test_another_bundle_than_the_one_that_was_told_of_is_refused(tmp_path):
    folder = stranger(tmp_path / "bundle")
    with pytest.raises(UserError, match="it is another one than you were told of"):
        reproduce(folder, expect="0" * 64, out=tmp_path / "out", console=QUIET)
    root = manifest.read(folder).root
    with pytest.raises(UserError, match="Nothing of it has run"):
        reproduce(folder, expect=root[:20].upper(), out=tmp_path / "out", console=QUIET)


def test_a_changed_byte_is_named_before_anything_is_made(tmp_path):
    folder = stranger(tmp_path / "bundle")
    (folder / "lock.txt").write_bytes((folder / "lock.txt").read_bytes().replace(b"00", b"01"))
    with pytest.raises(AlteredError, match=r"1 file differs from its manifest\.json: lock\.txt \(its contents have changed\)"):
        reproduce(folder, trust=True, out=tmp_path / "out", console=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_reproduction_replaces_nothing_else(tmp_path):
    folder = stranger(tmp_path / "bundle")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="is not empty, and no reproduction"):
        reproduce(folder, trust=True, out=tmp_path / "mine", console=QUIET)
    with pytest.raises(UserError, match="lies in the bundle itself"):
        reproduce(folder, trust=True, out=folder / "out", console=QUIET)
    # as reproduce.sh names it, which is run in the bundle
    assert workflow._brought(str(folder), folder / ".." / "beside", QUIET)[2] == (tmp_path / "beside").resolve()
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / ".bundle").write_text("f" * 64)
    with pytest.raises(UserError, match="holds the reproduction of another bundle"):
        reproduce(folder, trust=True, out=tmp_path / "another", console=QUIET)


def test_what_can_not_be_bundled_is_one_sentence(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(config_lib.to_json(config_lib.default_config()))
    (run / "environment.json").write_text("{}")
    (run / "results.json").write_text('{"checkpoint": "checkpoints/final", "params_sha256": "00"}')
    with pytest.raises(UserError, match="There is no folder"):
        imgclf.bundle(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UserError, match=r"is not a finished run \(it has no results.json\)"):
        imgclf.bundle(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="data='all' is unknown"):
        imgclf.bundle(run, tmp_path / "out", data="all")
    with pytest.raises(UserError, match="nobody needs an address"):
        imgclf.bundle(run, tmp_path / "out", data="include", data_url="s3://x/y")
    with pytest.raises(UserError, match="lies in the run's own folder"):
        imgclf.bundle(run, run / "bundle")
    (run / "results.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        imgclf.bundle(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (run / "bundle").exists()


@pytest.mark.slow  # it builds a wheel and asks the package index
def test_a_probe_with_its_images_is_reproduced(tmp_path, color_classifier, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = color_classifier[0].folder
    first = imgclf.bundle(run, tmp_path / "bundle", data="include", croissant=True, console=QUIET)
    second = imgclf.bundle(run, tmp_path / "bundle", data="include", croissant=True, console=QUIET)
    assert (second.root, second.sent) == (first.root, 0)
    folder = tmp_path / "bundle"
    assert first.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert imgclf.load(folder / "run").sha256 == color_classifier[0].sha256
    _check_texts(folder)
    shutil.move(folder, tmp_path / "moved")
    found = reproduce(tmp_path / "moved", retrain=True, new_environment=False, console=QUIET)
    assert [verdict.outcome for verdict in found.verdicts] == ["equal", "noted", "equal", "equal", "equal", "equal"], found.verdicts
    shutil.rmtree(found.folder)

    predictions = tmp_path / "moved" / "run" / "predictions.csv"
    table = pd.read_csv(predictions)
    table.loc[0, "probability"] = np.float32(table.loc[0, "probability"]) + np.float32(0.01)
    table.to_csv(predictions, index=False)
    with pytest.raises(UserError, match=r"run/predictions\.csv \(its contents have changed\)|run/predictions\.csv \([\d,]+ bytes instead"):
        reproduce(tmp_path / "moved", new_environment=False, console=QUIET)
    _sign_again(tmp_path / "moved")  # a claim that is not so, in a bundle that is whole
    found = reproduce(tmp_path / "moved", new_environment=False, console=QUIET)
    assert not found.reproduced
    assert [verdict.what for verdict in found.verdicts if not verdict.passed] == ["predictions"]


def _check_texts(folder):
    crate = json.loads((folder / "ro-crate-metadata.json").read_text())
    listed = {entity["@id"] for entity in crate["@graph"] if entity["@type"] == "File"}
    assert {"lock.txt", "run/results.json", "weights/model.safetensors"} <= listed
    import mlcroissant

    assert {row["images/split"] for row in mlcroissant.Dataset(folder / "data" / "croissant.json").records("images")} >= {b"train"}
    text = (folder / lock.FILE).read_text()
    assert "://" not in text
    assert all("--hash=sha256:" in block for block in text.split("==")[1:])
    assert list((folder / source.WHEELS).glob("imgclf-*.whl"))
    suffixes = {path.suffix for path in folder.rglob("*")}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth"}


def _sign_again(folder):
    old = manifest.read(folder)
    files = [manifest.file_of(file.path, folder / file.path) for file in old.files]
    (folder / manifest.NAME).write_bytes(Manifest.of(old.about, files).to_bytes())


@pytest.mark.slow
def test_a_missing_image_is_named_and_the_others_are_compared(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = run("given", 0)
    imgclf.bundle(folder, tmp_path / "bundle", console=QUIET)
    saved = pd.read_parquet(folder / "dataset.parquet")
    photos = tmp_path / "photos"
    shutil.copytree(saved["source"].iloc[0], photos)
    gone = saved[saved["split"] == "test"]["id"].iloc[0]
    (photos / gone).unlink()
    found = reproduce(tmp_path / "bundle", new_environment=False, images=photos, console=QUIET)
    outcomes = {verdict.what: verdict for verdict in found.verdicts}
    assert not found.reproduced
    assert f"{gone} (missing)" in outcomes["images"].told
    assert outcomes["predictions"].outcome == "missing"
    assert "1 prediction of" in outcomes["predictions"].told


@pytest.mark.slow
def test_code_of_ones_own_travels_with_the_run(tmp_path, fields, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    (here / "own_optimizer.py").write_text(
        "import optax\nimport own_rate\n\n\ndef make(learning_rate):\n    return optax.sgd(learning_rate * own_rate.FACTOR)\n"
    )
    (here / "own_rate.py").write_text("FACTOR = 0.5\n")
    imgclf.train("quickstart", "run", fields=fields("given", 0) | {"optimizer.name": "own_optimizer:make"}, console=QUIET)
    imgclf.bundle("run", tmp_path / "bundle", console=QUIET)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(UserError, match="config runs 'own_optimizer:make' with your rights"):
        reproduce(tmp_path / "bundle", new_environment=False, console=QUIET)
    found = reproduce(tmp_path / "bundle", new_environment=False, retrain=True, trust=True, console=QUIET)
    assert found.reproduced, found.verdicts


def test_inputs_of_training_are_taken_from_the_bundle(tmp_path):
    config = config_lib.default_config()
    config.train.teacher, config.model.weights = "runs/teacher", "path:/home/somebody/own.safetensors"
    found = rerun._with_inputs(config, tmp_path)
    assert found.train.teacher == str(tmp_path / "inputs" / "teacher")
    assert found.model.weights == f"path:{tmp_path / 'inputs' / 'weights' / 'own.safetensors'}"
