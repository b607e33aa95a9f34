"""The images of a bundle, brought together again: included, in a folder in any order, at an address, or not at all."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from imgclf import config as config_lib
from imgclf.data import run_images
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.publishing import examples, fetching
from imgclf.publishing.fetching import Places

QUIET = Console(quiet=True)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(3):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def config(photos):
    config = config_lib.default_config()
    config.data.path = str(photos)
    return config


@pytest.fixture
def bundle(config, tmp_path):
    """Makes the part of a bundle that is about images."""

    def make(*, include: bool, base: str = ""):
        folder = tmp_path / "bundle"
        dataset = load_dataset(config)
        dataset.table["split"] = ["train", "val", "test"] * 2
        described = examples.describe(config, dataset, include=include, base=base)
        (folder / "run").mkdir(parents=True)
        (folder / "data").mkdir()
        dataset.table.to_parquet(folder / "run" / "dataset.parquet")
        (folder / "run" / "config.json").write_text(config_lib.to_json(config))
        described.table.to_csv(folder / examples.TABLE, index=False)
        (folder / examples.WHERE).write_text(json.dumps(described.where))
        for path, source in described.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(source.read_bytes())
        return folder

    return make


def fetch(folder, tmp_path, **places):
    return fetching.fetch(folder, tmp_path / "out", Places(**places), QUIET)


def check(folder, config, found):
    """What was fetched is listed as the run's own images, in their order, with their ids, classes and splits."""
    assert not found.problems
    now = run_images.load(folder / "run", examples.config_for(config, found.table, {"train", "val", "test"})).table
    then = pd.read_parquet(folder / "run" / "dataset.parquet")
    columns = ["id", "class_name", "label", "split", "group", "sha256"]
    pd.testing.assert_frame_equal(now[columns], then[columns])


def test_included_images_lie_by_their_hash(bundle, config, photos, tmp_path):
    folder = bundle(include=True)
    for path in (folder / examples.FILES).rglob("*"):
        assert path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for path in photos.rglob("*.png"):
        path.unlink()
    check(folder, config, fetch(folder, tmp_path))


def test_images_are_found_where_the_run_had_them(bundle, config, tmp_path):
    folder = bundle(include=False)
    check(folder, config, fetch(folder, tmp_path))


def test_images_are_found_in_any_order(bundle, config, photos, tmp_path):
    folder = bundle(include=False)
    (tmp_path / "elsewhere").mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
        path.rename(tmp_path / "elsewhere" / f"{number}.jpg")
    check(folder, config, fetch(folder, tmp_path, images=str(tmp_path / "elsewhere")))


def test_images_are_fetched_from_an_address(bundle, config, photos, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(photos), f"/{tmp_path.name}", recursive=True)
    folder = bundle(include=False, base=f"memory://{tmp_path.name}")
    for path in photos.rglob("*.png"):
        path.unlink()
    check(folder, config, fetch(folder, tmp_path))
    memory.rm(f"/{tmp_path.name}", recursive=True)
    check(folder, config, fetch(folder, tmp_path))  # what was fetched stays


def test_what_is_not_there_is_named(bundle, photos, tmp_path):
    folder = bundle(include=False)
    (photos / "cat" / "1.png").unlink()
    Image.new("RGB", (8, 8)).save(photos / "dog" / "2.png")
    found = fetch(folder, tmp_path)
    assert found.problems == {"cat/1.png": "missing", "dog/2.png": "other bytes than the run's"}
    assert pd.read_parquet(found.table)["id"].tolist() == ["cat/0.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    with pytest.raises(UserError, match=r"None of the bundle's 6 images could be had .*images"):
        fetch(folder, tmp_path, images=str(tmp_path / "nothing"))


def test_images_that_are_no_files_can_not_be_included(config):
    config.data.source = "digits"
    dataset = load_dataset(config)
    assert examples.describe(config, dataset, include=False, base="").where["kind"] == "source"
    with pytest.raises(UserError, match="are no files: bundle with data=manifest"):
        examples.describe(config, dataset, include=True, base="")


def test_another_kind_of_images_is_refused(bundle, tmp_path):
    folder = bundle(include=False)
    (folder / examples.WHERE).write_text('{"kind": "telepathy"}')
    with pytest.raises(UserError, match="'telepathy', which this imgclf does not know"):
        fetch(folder, tmp_path)


def test_an_address_in_a_private_network_is_the_users_choice(tmp_path):
    selection = tmp_path / "selection"
    selection.mkdir()
    for name in ("images.parquet", "boxes.parquet"):
        (selection / name).write_bytes(b"")
    where = {"mirror_url": "http://127.0.0.1:9/", "sources": ["mirror"]}
    with pytest.raises(UserError, match=r"an address in a private network: if you trust it, give mirror_url"):
        fetching._cut_anew(selection, tmp_path / "out", where, Places(), QUIET)
