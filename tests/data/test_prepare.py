"""Loading, splitting, auditing and limiting, as every command does it."""

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import folder_config, save

from imgclf.data import run_images
from imgclf.data.prepare import load_path, prepare
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.workflows import run_folder

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 20 photos, of which the first two cats are one picture."""
    root = tmp_path / "photos"
    for row in range(40):
        save(root / ("cat", "dog")[row % 2] / f"{row:02d}.png", row, (40, 36))
    (root / "cat" / "copy.png").write_bytes((root / "cat" / "00.png").read_bytes())
    return root


def sizes(table):
    return table.groupby(["split", "class_name"]).size().to_dict()


def test_the_steps_come_in_their_order(photos):
    config = folder_config(photos)
    config.data.split.method = "hash"  # by which copies may fall on both sides
    config.data.split.fractions = (0.5, 0.0, 0.5)
    config.data.split.seed = next(seed for seed in range(99) if _parted(config, seed))
    config.data.per_class = 3
    prepared = prepare(config)
    assert len(prepared.loaded.table) == 41
    assert prepared.audit_report["counts"]["dropped"] == 1
    train = prepared.dataset.table[prepared.dataset.table["split"] == "train"]
    assert train["class_name"].value_counts().to_dict() == {"cat": 3, "dog": 3}
    tests = [part["split"].eq("test").sum() for part in (prepared.loaded.table, prepared.dataset.table)]
    assert tests[0] == tests[1]  # the limit is one of training images


def _parted(config, seed: int) -> bool:
    config.data.split.seed = seed
    splits = prepare(config).loaded.table.set_index("id")["split"]
    return splits["cat/00.png"] != splits["cat/copy.png"]


def test_a_dataset_takes_the_place_of_the_configs(photos):
    config = folder_config(photos)
    dataset = load_dataset(config)
    config.data.path = "nowhere"
    assert sizes(prepare(config, dataset).dataset.table)[("train", "dog")] == 14


@pytest.mark.parametrize("method", ["auto", "stratified", "hash", "kfold"])
@pytest.mark.parametrize("per_class", [0, 5])
def test_a_runs_images_are_found_again(photos, tmp_path, method, per_class):
    """`imgclf robustness RUN` refused runs with data.per_class, "1209 added", as its own copy of these steps forgot the limit."""
    config = folder_config(photos, per_class=per_class)
    config.data.split.method = method
    prepared = prepare(config)
    run_folder.write_inputs(tmp_path, config, prepared.dataset, prepared.audit_report)
    run_folder.check_same_data(prepare(config).dataset, tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text())["mode"] == "fix"
    found = run_images.load(tmp_path, config)
    assert found.table["id"].tolist() == prepared.dataset.table["id"].tolist()


def test_a_path_is_told_from_its_kind(photos, tmp_path):
    dataset, fields = load_path(photos, max_pixels=10_000)
    assert (fields.source, fields.max_pixels) == ("folder", 10_000)
    table = tmp_path / "Labels.CSV"
    dataset.table.to_csv(table, index=False)
    listed, fields = load_path(table, root=str(photos), columns={"path": "id", "label": "class_name"})
    assert fields.source == "csv"
    assert sorted(listed.table["id"]) == sorted(dataset.table["id"])
    assert np.array_equal(listed.reader[0], dataset.reader[dataset.table["id"].tolist().index(listed.table["id"][0])])


def test_a_path_that_is_neither_is_named(photos, tmp_path):
    with pytest.raises(UserError, match=r"no folder or table.*did you mean 'photos'"):
        load_path(tmp_path / "photo")
    with pytest.raises(UserError, match="neither a folder nor a table"):
        load_path(photos / "cat" / "00.png")
    assert load_path(photos, class_map={"cat": "pet", "dog": "animal"})[0].class_names == ("animal", "pet")
    with pytest.raises(UserError, match=r"data\.max_pixel"):
        load_path(photos, max_pixel=1)
