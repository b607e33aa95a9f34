"""Every workflow takes a run, whatever its split and its limit of images per class, and works on the run's own images."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import imgclf
from imgclf.config import to_json
from imgclf.data import run_images
from imgclf.errors import UserError
from imgclf.evaluation import label_errors as finder

QUIET = Console(quiet=True)
SPLITS = ("auto", "given", "stratified", "hash", "kfold")
# Every split, with and without a limit; each split's other half is slow.
QUICK = (("auto", 0), ("given", 5), ("stratified", 5), ("hash", 0), ("kfold", 5))
KINDS = [(split, per_class) for split in SPLITS for per_class in (0, 5)]
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow, id=f"{kind[0]}-{kind[1]}") for kind in KINDS]
)


@every_kind
def test_evaluate_gives_the_runs_headline_again(run, kind):
    folder, results = run(*kind)
    assert results["split"] == "test"
    found = imgclf.evaluate(folder, console=QUIET)
    assert (found["split"], found["n"], found["top1"]) == ("test", results["n"], results["top1"])
    assert found["loss"] == pytest.approx(results["loss"], rel=1e-5)
    assert found["warnings"] == []
    train = imgclf.evaluate(folder, split="train", console=QUIET)
    assert train["n"] == (pd.read_parquet(folder / "dataset.parquet")["split"] == "train").sum()
    assert "were trained on" in train["warnings"][0]


@every_kind
def test_robustness_begins_at_the_runs_headline(run, kind):
    folder, results = run(*kind)
    found = imgclf.robustness(folder, corruptions=("contrast",), severities=(1,), console=QUIET)
    assert found.page == folder / "robustness.html"
    assert json.loads((folder / "robustness.json").read_text()) == found.results
    assert (found.results["split"], found.results["n"], found.results["clean"]["top1"]) == ("test", results["n"], results["top1"])
    assert found.results["notes"] == []


@every_kind
def test_show_draws_the_runs_training_images(run, kind):
    folder, _ = run(*kind)
    table = pd.read_parquet(folder / "dataset.parquet")
    page = imgclf.show(folder, epochs=range(2), console=QUIET)
    assert page == folder / "views.html"
    assert table["id"][table["split"] == "train"].iloc[0] in page.read_text()
    with pytest.raises(UserError, match="training never sees"):
        imgclf.show(folder, ids=[table["id"][table["split"] == "test"].iloc[0]], console=QUIET)


@every_kind
def test_lr_find_takes_the_runs_config(run, kind):
    folder, _ = run(*kind)
    found = imgclf.lr_find(folder, steps=20, console=QUIET)
    assert found.page == folder / "lr-find" / "lr_find.html"
    assert found.configured == 3e-3
    assert len(found.sweep.losses) <= 20


@every_kind
def test_label_errors_judges_the_runs_images(run, kind, tiny_weights, monkeypatch):
    folder, _ = run(*kind)
    monkeypatch.setattr(finder, "require_cleanlab", lambda: None)
    suspects = finder.Suspects(np.array([1, 3]), np.array([0, 0]), np.ones(2, np.float32), np.zeros(2, np.float32), 2)
    monkeypatch.setattr(finder, "find", lambda *_: suspects)
    weights = {"model.name": "resnet_tiny", "model.weights": tiny_weights("resnet_tiny"), "probe.folds": 2, "probe.l2": (0.1,)}
    found = imgclf.find_label_errors(folder, fields=weights, console=QUIET)
    assert found.images == 48
    assert found.patch == folder / "label-errors" / "labels.patch.csv"
    page = found.page.read_text()
    assert f"imgclf train {folder} " in page
    assert f"--set data.label_patch={found.patch}" in page
    assert len(found.suspects) == 2


def test_images_that_came_since_do_not_matter_and_changed_ones_do(run, pictures, tmp_path):
    folder, results = run("stratified", 5)
    copy, photos = tmp_path / "run", tmp_path / "photos"
    shutil.copytree(folder, copy)
    shutil.copytree(pictures, photos)
    config = imgclf.load_config(copy)
    config.data.path = str(photos)
    (copy / "config.json").write_text(to_json(config))
    shutil.copy(photos / "red" / "01.png", photos / "red" / "new.png")
    assert imgclf.evaluate(copy, console=QUIET)["top1"] == results["top1"]
    order = run_images.load(copy, config).table
    pd.testing.assert_series_equal(order["id"], pd.read_parquet(copy / "dataset.parquet")["id"])
    victim = order["id"].iloc[0]
    other = next(name for name in os.listdir(photos / "blue") if f"blue/{name}" != victim)
    shutil.copy(photos / "blue" / other, photos / victim)
    with pytest.raises(UserError, match=f"1 have other contents or another label .such as {victim!r}"):
        imgclf.evaluate(copy, console=QUIET)
    (photos / victim).unlink()
    with pytest.raises(UserError, match="1 of its images are gone"):
        imgclf.robustness(copy, console=QUIET)


def test_a_page_of_another_model_stays(run, tmp_path):
    (first, _), (second, _) = run("auto", 0), run("stratified", 5)
    options = {"corruptions": ("contrast",), "severities": (1,), "console": QUIET}
    imgclf.robustness(first, out=tmp_path, **options)
    before = (tmp_path / "robustness.html").read_bytes()
    with pytest.raises(UserError, match=r"holds another page .robustness: auto-0 on .*overwrite=True"):
        imgclf.robustness(second, out=tmp_path, **options)
    assert (tmp_path / "robustness.html").read_bytes() == before
    imgclf.robustness(first, out=tmp_path, **options)
    imgclf.robustness(second, out=tmp_path, overwrite=True, **options)


def test_other_images_have_a_folder_of_their_own(run, pictures):
    folder, _ = run("auto", 0)
    found = imgclf.robustness(folder, pictures, corruptions=("contrast",), severities=(1,), console=QUIET)
    assert found.page == folder / "robustness-photos" / "robustness.html"
    assert (found.results["split"], found.results["n"]) == ("", 48)
    assert "were trained on" in found.results["notes"][0]
    assert imgclf.evaluate(folder, pictures, console=QUIET)["n"] == 48
    assert imgclf.evaluate(folder, imgclf.load_images(pictures, verbose=False), console=QUIET)["n"] == 48


def test_a_saved_model_is_tested_on_images_that_are_named(run, pictures, tmp_path):
    folder, _ = run("auto", 0)
    model = imgclf.load(folder).save(tmp_path / "model")
    assert imgclf.evaluate(model, pictures, console=QUIET)["n"] == 48
    with pytest.raises(UserError, match="does not keep the names of its images"):
        imgclf.evaluate(model, console=QUIET)


def test_a_run_of_images_from_python_is_drawn_again(pictures, tmp_path):
    """Its split was made in Python: the config alone could not give it."""
    first, _ = imgclf.load_images(pictures, verbose=False).split(0.7, verbose=False)
    fields = {"data.image_size": 16, "model.cnn.widths": (4,), "train.duration": "2 steps", "loader.threads": 1}
    made = imgclf.create(first, model="cnn", workdir=tmp_path / "run", config=fields, verbose=False)
    assert imgclf.show(made.folder, epochs=range(1), console=QUIET).exists()
    assert imgclf.evaluate(made.folder, split="train", console=QUIET)["n"] > 20
    assert len(imgclf.lr_find(made.folder, steps=20, console=QUIET).sweep.losses) > 3


def test_a_failed_start_leaves_nothing(pictures, fields, tmp_path):
    wrong = fields("auto", 0) | {"optimizer.lr_table": (("nothing/.*", 1.0), (".*", 1.0))}
    with pytest.raises(UserError, match="lr_table"):
        imgclf.train("quickstart", tmp_path / "runs" / "bad", fields=wrong, console=QUIET)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["", "run", "deep/er"])
def test_a_runs_folder_among_the_photos_is_refused(pictures, fields, where):
    before = sorted(pictures.rglob("*"))
    with pytest.raises(UserError, match=r"^workdir=.* photos"):
        imgclf.train("quickstart", pictures / where, fields=fields("auto", 0), console=QUIET)
    with pytest.raises(UserError, match=r"^out=.* photos"):
        imgclf.lr_find("quickstart", fields=fields("auto", 0), out=pictures / where, console=QUIET)
    assert sorted(pictures.rglob("*")) == before


def test_a_runs_folder_is_not_taken_for_photos(run, fields):
    folder, _ = run("auto", 0)
    with pytest.raises(UserError, match="is the folder of a run"):
        imgclf.train("quickstart", fields=fields("auto", 0) | {"data.path": str(folder)}, console=QUIET)
