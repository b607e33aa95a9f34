"""Planted label errors are found, judged by folds that hold no copy; the patch is safe, and correcting it mends the labels."""

import shutil

import numpy as np
import pandas as pd
import pytest
from networks import created
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.config import default_config
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.models.weights import pretrained
from imgclf.workflows.label_errors import out_of_fold_probabilities

CLASSES = ("five", "nine", "three", "zero")
PLANTED = 8


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of 160 scans of four digits, 8 of them in the wrong class; and the ids of those."""
    folder, rng = tmp_path_factory.mktemp("digits"), np.random.default_rng(0)
    scans = load_digits()
    wrong = []
    for label, (name, digit) in enumerate(zip(CLASSES, (5, 9, 3, 0), strict=True)):
        for number, row in enumerate(np.flatnonzero(scans.target == digit)[:40]):
            place = CLASSES[(label + rng.integers(1, 4)) % 4] if number < PLANTED // 4 else name
            path = folder / place / f"{name}{number}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = np.kron(scans.images[row] * 15, np.ones((4, 4))).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").save(path)
            wrong += [f"{place}/{path.name}"] * (place != name)
    return folder, set(wrong)


@pytest.fixture(scope="module")
def search(digits, tiny_weights, tmp_path_factory):
    """Runs the command on them in a folder; random kernels tell digits apart too. Returns what it said and the patch."""
    out = tmp_path_factory.mktemp("out")
    fields = {"model.name": "resnet_tiny", "model.weights": tiny_weights("resnet_tiny"), "data.image_size": "(32, 32)"}
    fields |= {"data.near_duplicate_bits": "-1", "probe.l2": "(0.01,)"}

    def call(*more: str) -> tuple[str, pd.DataFrame]:
        arguments = [f"--config=configs/folder.py:{digits[0]}", f"--out={out}", *(f"--config.{k}={v}" for k, v in fields.items()), *more]
        result = CliRunner().invoke(commands.app, ["label-errors", *arguments])
        if result.exception:
            raise result.exception
        return result.output, pd.read_csv(out / "labels.patch.csv", dtype=str, keep_default_na=False)

    return call, out


def test_the_command_leaves_a_gallery_and_a_patch_that_changes_nothing(search, digits):
    call, out = search
    said, patch = call()
    assert "of 160 labels are suspected" in said.replace("\n", " ")
    assert list(patch.columns) == ["id", "given", "suggested", "confidence", "label"]
    assert (patch["label"] == "").all()
    assert len(patch) <= 16
    assert len(digits[1] & set(patch["id"])) >= 5
    page = (out / "label_errors.html").read_text()
    assert page.count('<div class="card">') == len(patch)
    assert page.count("data:image/webp;base64,") == len(patch)
    assert f"imgclf train configs/folder.py:{digits[0]} --set model.name=resnet_tiny --set model.weights=" in page
    assert page.count(f"--set data.label_patch={out / 'labels.patch.csv'}") == 1
    config = default_config()
    config.data.path, config.data.label_patch = str(digits[0]), str(out / "labels.patch.csv")
    table = load_dataset(config).table
    assert (table["class_name"] == table["original_class"]).all()


def test_edits_are_applied_kept_and_not_asked_again(search, digits):
    call, out = search
    _, patch = call()
    path = out / "labels.patch.csv"
    planted = patch["id"].isin(digits[1])
    patch.loc[planted, "label"] = patch.loc[planted, "id"].str.extract(r"/([a-z]+)\d", expand=False)  # a file is named after the truth
    confirmed = patch.loc[~planted, "id"].head(1)
    patch.loc[confirmed.index, "label"] = patch.loc[confirmed.index, "given"]
    patch.to_csv(path, index=False)
    with pytest.raises(UserError, match=r"holds .* labels of yours"):
        call()
    _, again = call(f"--config.data.label_patch={path}")
    edited = patch[patch["label"] != ""]
    pd.testing.assert_frame_equal(again.head(len(edited)), edited.reset_index(drop=True))
    assert not set(again["id"][len(edited) :]) & set(edited["id"])
    assert (again["label"][len(edited) :] == "").all()
    config = default_config()
    config.data.path, config.data.label_patch = str(digits[0]), str(path)
    table = load_dataset(config).table
    assert (table["class_name"] != table["original_class"]).sum() == planted.sum()


def test_copies_stand_in_one_fold(digits, tiny_weights, tmp_path):
    """A copy under the same wrong label would vouch for it."""
    folder = tmp_path / "copied"
    shutil.copytree(digits[0], folder)
    twice = sorted(digits[1])[0]
    shutil.copy(folder / twice, folder / twice.replace(".png", "_copy.png"))
    config = default_config()
    config.data.path, config.data.image_size = str(folder), (32, 32)
    config.model.name, config.model.weights, config.probe.l2 = "resnet_tiny", tiny_weights("resnet_tiny"), (0.01,)
    config.data.near_duplicate_bits = -1
    dataset, quiet = load_dataset(config), Console(quiet=True)
    config = pretrained.resolve(config, 4)
    probabilities = out_of_fold_probabilities(config, created(config, 4), dataset, quiet)
    rows = np.flatnonzero(dataset.table["sha256"].duplicated(keep=False))
    assert len(rows) == 2
    np.testing.assert_allclose(*probabilities[rows], rtol=1e-5)  # of one fold, hence from one probe
    assert probabilities[rows[0], dataset.table["label"].iloc[rows[0]]] < 0.5


def test_weights_of_nothing_are_told(search, tmp_path):
    call, _ = search
    with pytest.raises(UserError, match="features of random weights tell nothing"):
        call(f"--out={tmp_path}", "--config.model.weights=none")
