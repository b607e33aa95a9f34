"""The kept listing of a large folder; the limit from which folders are large is lowered."""

import os
import shutil

import numpy as np
import pytest
from pictures import folder_config, save

from imgclf.data import listing_index, sources
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def kept(two_classes, monkeypatch):
    """Two classes whose listing is kept: their folders were last changed a while ago."""
    monkeypatch.setattr(listing_index, "LEAST", 1)
    save(two_classes / "dog/größe.jpg", 9)
    age(two_classes)
    listing(two_classes)
    return two_classes


def age(root):
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1_000_000_000, 1_000_000_000))


def listing(root, **fields):
    return sources.create(folder_config(root, **fields).data).listing()


def facts(found):
    columns = found.ids, found.classes, found.splits, found.sizes, found.mtimes_ns, found.class_names
    read = [found.reader.encoded(row)[0] for row in range(len(found.ids))]
    return [list(column) for column in columns], sorted(found.quarantine), found.ignored, found.notes, found.cached_as, read


def test_a_second_listing_is_the_kept_one_and_says_the_same(kept):
    (kept / "notes.txt").touch()
    (kept / "loose.jpg").write_bytes(b"x")
    os.utime(kept, (1_000_000_000, 1_000_000_000))
    listing_index.load(listing_index.place(str(kept), "auto"), str(kept))
    shutil.rmtree(listing_index.place(str(kept), "auto"))
    anew = listing(kept)
    again = listing(kept)
    assert (anew.indexed, again.indexed) == (False, True)
    assert facts(again) == facts(anew)
    assert not listing(kept, verify="first").indexed


@pytest.mark.parametrize(
    "change",
    [
        lambda root: save(root / "dog/new.jpg", 5),
        lambda root: (root / "dog/a.jpg").unlink(),
        lambda root: (root / "cat/deep/er/a.png").rename(root / "cat/deep/er/b.png"),
        lambda root: shutil.rmtree(root / "cat/deep"),
        lambda root: (root / "cat/deep").rename(root / "cat/deeper"),
        lambda root: (root / "mouse").mkdir(),
    ],
    ids=["added", "removed", "renamed", "folder removed", "folder renamed", "folder added"],
)
def test_a_change_of_a_folder_has_it_listed_anew(kept, change):
    assert listing(kept).indexed
    change(kept)
    if not (kept / "mouse").exists():
        found = listing(kept)
        assert not found.indexed
        there = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
        assert list(found.ids) == there
    else:
        assert not listing(kept).indexed


def test_a_folder_that_changed_while_it_was_listed_is_not_trusted(two_classes, monkeypatch):
    monkeypatch.setattr(listing_index, "LEAST", 1)
    listing(two_classes)  # its folders were made a moment ago
    assert not listing(two_classes).indexed


def test_a_file_overwritten_in_place_is_found_when_it_is_read_and_the_next_start_looks_anew(kept):
    config = folder_config(kept, verify="background")
    config.train.method = "fit"
    listing(kept)
    (kept / "dog/a.jpg").write_bytes((kept / "cat/b.jpg").read_bytes() + b"longer")
    dataset = load_dataset(config)
    row = int(np.flatnonzero(dataset.table["id"] == "dog/a.jpg")[0])
    with pytest.raises(UserError, match="changed since it was listed"):
        dataset.reader.stored(row)
    assert load_dataset(config).table["file_size"][row] == (kept / "dog/a.jpg").stat().st_size


@pytest.mark.parametrize("name", ["files.parquet", "folders.parquet"])
def test_a_damaged_index_is_made_anew(kept, name):
    file = listing_index.place(str(kept), "auto") / name
    file.write_bytes(file.read_bytes()[:50])
    assert not listing(kept).indexed
    assert listing(kept).indexed
