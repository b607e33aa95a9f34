"""Folders and digits → table; quarantine and what is ignored; every user's mistake is a sentence."""

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pictures import folder_config, save
from PIL import Image

from imgclf.data import readers
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


def test_class_folders(two_classes):
    dataset = load_dataset(folder_config(two_classes))
    table = dataset.table
    assert table["id"].to_list() == ["cat/b.jpg", "cat/deep/er/a.png", "dog/a.jpg", "dog/c.gif"]
    assert table["class_name"].to_list() == ["cat", "cat", "dog", "dog"]
    assert table["label"].to_list() == [0, 0, 1, 1]
    assert set(table["split"]) == set(table["group"]) == {""}
    assert set(table["source"]) == {str(two_classes)}
    assert (table["width"] == 12).all()
    assert (table["height"] == 9).all()
    assert dataset.class_names == ("cat", "dog")
    assert isinstance(table.index, pd.RangeIndex)
    assert table["label"].dtype == np.int32
    assert table["phash"].dtype == np.int64
    assert table["sha256"].str.len().eq(64).all()
    assert dataset.quarantine.empty
    assert list(dataset.quarantine.columns) == ["id", "reason", "detail"]
    assert dataset.ignored == {}
    assert len(dataset.reader) == 4
    for row, name in enumerate(table["id"]):
        np.testing.assert_array_equal(dataset.reader[row], np.asarray(Image.open(two_classes / name).convert("RGB")))


def test_readers_survive_pickling_and_read_reduced(tmp_path):
    save(tmp_path / "a/1.jpg", 1, (400, 300))
    save(tmp_path / "b/2.png", 2, (400, 300))
    reader = pickle.loads(pickle.dumps(load_dataset(folder_config(tmp_path)).reader))
    assert reader[0].shape == (300, 400, 3)
    assert reader.read(0, (100, 130)).shape == (150, 200, 3)
    assert reader.read(1, (100, 130)).shape == (300, 400, 3)


def test_a_file_that_changes_after_verification_is_an_error(two_classes):
    reader = load_dataset(folder_config(two_classes)).reader
    save(two_classes / "cat/b.jpg", 99, (30, 30))
    with pytest.raises(UserError, match=r"cat/b\.jpg has changed"):
        reader[0]
    (two_classes / "cat/b.jpg").unlink()
    with pytest.raises(UserError, match="No such file"):
        reader[0]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "VALID", "Test"), ("train", "validation"), ("train",), ("val", "test")]
)
def test_split_folders(tmp_path, names):
    for row, name in enumerate(names):
        save(tmp_path / name / "cat" / "x.jpg", row)
        save(tmp_path / name / "dog" / "y" / "x.jpg", 10 + row)
    save(tmp_path / ".hidden" / "x.jpg")
    table = load_dataset(folder_config(tmp_path)).table
    expected = {"valid": "val", "validation": "val"}
    assert dict(zip(table["id"], table["split"], strict=True)) == {
        f"{name}/{rest}": expected.get(name.lower(), name.lower()) for name in names for rest in ("cat/x.jpg", "dog/y/x.jpg")
    }
    assert set(table["class_name"]) == {"cat", "dog"}


def test_a_class_named_test_is_a_class(tmp_path):
    save(tmp_path / "test" / "1.jpg", 1)
    save(tmp_path / "exam" / "2.jpg", 2)
    assert load_dataset(folder_config(tmp_path)).class_names == ("exam", "test")


def test_ids_and_labels_outlive_a_move(two_classes, tmp_path):
    before = load_dataset(folder_config(two_classes)).table
    moved = tmp_path / "elsewhere" / "deeper"
    shutil.move(two_classes, moved)
    after = load_dataset(folder_config(moved)).table
    pd.testing.assert_frame_equal(before.drop(columns="source"), after.drop(columns="source"))
    assert set(after["source"]) == {str(moved)}


def test_quarantine_and_ignored(two_classes):
    whole = save(two_classes / "dog/d.jpg", 7, (200, 200)).read_bytes()
    (two_classes / "dog/cut.JPG").write_bytes(whole[: len(whole) // 2])
    (two_classes / "dog/empty.png").touch()
    (two_classes / "dog/words.jpg").write_text("these are words, not pixels")
    (two_classes / "dog/phone.dng").write_bytes(b"II*\0")
    (two_classes / "dog/gone.jpg").symlink_to(two_classes / "nowhere.jpg")
    (two_classes / "dog/self.jpg").symlink_to(two_classes / "dog/self.jpg")
    os.mkfifo(two_classes / "dog/pipe.jpg")
    save(two_classes / "dog/large.png", 8, (400, 400))
    save(two_classes / "loose.jpg")
    for name in (".DS_Store", "._a.jpg", "Thumbs.db", ".hidden.jpg", "notes.txt", "more.txt", "README", "list.123"):
        (two_classes / "cat" / name).write_bytes(b"not an image, and no matter")
    for name in ("__MACOSX", ".git"):
        save(two_classes / name / "x.jpg")
    for name in ("bare", "photo.jpg!large", "scan.001"):  # images whose names have no extension
        (two_classes / "cat" / name).write_bytes(whole)
    dataset = load_dataset(folder_config(two_classes, max_pixels=100_000))
    assert dict(zip(dataset.quarantine["id"], dataset.quarantine["reason"], strict=True)) == {
        "dog/cut.JPG": "truncated",
        "dog/empty.png": "empty",
        "dog/words.jpg": "not_an_image",
        "dog/phone.dng": "unsupported",
        "dog/gone.jpg": "missing",
        "dog/self.jpg": "unreadable",
        "dog/pipe.jpg": "unreadable",
        "dog/large.png": "too_many_pixels",
        "loose.jpg": "unlabeled",
    }
    assert dataset.quarantine["detail"].str.len().gt(0).all()
    assert dataset.ignored == {
        ".DS_Store": 1, "._*": 1, "Thumbs.db": 1, "hidden file": 1, ".txt": 2, "no extension": 2, "__MACOSX": 1, "hidden folder": 1,
    }  # fmt: skip
    good = ["cat/b.jpg", "cat/bare", "cat/deep/er/a.png", "cat/photo.jpg!large", "cat/scan.001", "dog/a.jpg", "dog/c.gif", "dog/d.jpg"]
    assert dataset.table["id"].to_list() == good
    assert [dataset.reader[row].shape for row in (1, 2)] == [(200, 200, 3), (9, 12, 3)]


def test_what_the_system_forbids_is_quarantined(two_classes, monkeypatch):
    """Root may read everything, so here the reader refuses; the next test takes permissions away."""
    read = readers.FileReader.encoded

    def refuse(reader, row):
        if reader.path(row).endswith("dog/a.jpg"):
            raise PermissionError(13, "Permission denied")
        return read(reader, row)

    with monkeypatch.context() as patch:
        patch.setattr(readers.FileReader, "encoded", refuse)
        dataset = load_dataset(folder_config(two_classes))
    assert dataset.quarantine.to_dict("records") == [{"id": "dog/a.jpg", "reason": "unreadable", "detail": "Permission denied"}]
    assert len(load_dataset(folder_config(two_classes)).table) == 4  # a refusal is not remembered


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_and_a_folder_without_permission_are_quarantined(two_classes):
    (two_classes / "dog/a.jpg").chmod(0)
    (two_classes / "cat/deep").chmod(0)
    dataset = load_dataset(folder_config(two_classes))
    (two_classes / "cat/deep").chmod(0o700)
    assert dataset.quarantine[["id", "reason"]].to_numpy().tolist() == [["cat/deep", "unreadable"], ["dog/a.jpg", "unreadable"]]


def test_links_are_followed_and_loops_end(two_classes, tmp_path):
    other = save(tmp_path / "other" / "z.jpg", 5).parent
    (two_classes / "dog" / "elsewhere").symlink_to(other)
    (two_classes / "cat" / "linked.jpg").symlink_to(other / "z.jpg")
    (two_classes / "cat" / "loop").symlink_to(two_classes)
    (two_classes / "cat" / "dogs").symlink_to(two_classes / "dog")
    (other / "back").symlink_to(other)
    dataset = load_dataset(folder_config(two_classes))
    assert dataset.ignored == {"link to a folder listed already": 3}
    assert dataset.table["id"].to_list() == [
        "cat/b.jpg", "cat/deep/er/a.png", "cat/linked.jpg", "dog/a.jpg", "dog/c.gif", "dog/elsewhere/z.jpg",
    ]  # fmt: skip


def test_names_that_are_no_text(two_classes):
    odd = os.path.join(os.fsencode(two_classes), b"dog", b"caf\xe9.jpg")
    shutil.copy(os.fsencode(two_classes / "dog/a.jpg"), odd)
    save(two_classes / "dog" / "été 東京.jpg", 6)
    dataset = load_dataset(folder_config(two_classes))
    assert r"dog/caf\xe9.jpg" in set(dataset.table["id"])
    assert "dog/été 東京.jpg" in set(dataset.table["id"])
    row = dataset.table.index[dataset.table["id"] == r"dog/caf\xe9.jpg"][0]
    np.testing.assert_array_equal(dataset.reader[row], np.asarray(Image.open(two_classes / "dog/a.jpg")))


def test_mistakes_with_folders_are_sentences(tmp_path):
    def message(path, **fields) -> str:
        with pytest.raises(UserError) as error:
            load_dataset(folder_config(path, **fields))
        return str(error.value)

    assert "needs config.data.path" in message("")
    assert "does not exist" in message(tmp_path / "nowhere")
    assert "holds no image" in message(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert "config.data.source=csv" in message(tmp_path / "labels.csv")
    assert "holds no image (ignored: 1 .csv)" in message(tmp_path)
    assert "did you mean 'folder'" in message(tmp_path, source="folders")

    save(tmp_path / "flat" / "1.jpg")
    assert "no class folders: sort them" in message(tmp_path / "flat")
    save(tmp_path / "one" / "cat" / "1.jpg")
    assert "one class only, 'cat'" in message(tmp_path / "one")
    save(tmp_path / "wrapped" / "images" / "cat" / "1.jpg")
    save(tmp_path / "wrapped" / "images" / "dog" / "1.jpg")
    assert f"did you mean {tmp_path / 'wrapped' / 'images'}, which holds 2 folders?" in message(tmp_path / "wrapped")

    save(tmp_path / "hollow" / "cat" / "1.jpg")
    (tmp_path / "hollow" / "dog").mkdir()
    assert "1 class has no usable image, 'dog'" in message(tmp_path / "hollow")
    (tmp_path / "hollow" / "dog" / "2.jpg").write_text("words")
    assert "dog/2.jpg: not_an_image" in message(tmp_path / "hollow")

    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg"):
        save(tmp_path / "kaggle" / name)
    said = message(tmp_path / "kaggle")
    assert f"{tmp_path / 'kaggle' / 'test'} holds 1 images but no class folders" in said
    assert "and predict them later" in said
    (tmp_path / "kaggle" / "test" / "3.jpg").unlink()
    assert "test holds no image: fill it, or remove it" in message(tmp_path / "kaggle")


def test_digits():
    dataset = load_dataset(folder_config("", source="digits"))
    assert len(dataset.table) == 1797
    assert dataset.table["id"].iloc[[0, -1]].to_list() == ["digits/0000", "digits/1796"]
    assert dataset.class_names == tuple("0123456789")
    assert dataset.table["class_name"].to_list()[:10] == list("0123456789")
    assert dataset.table["sha256"].is_unique
    image = pickle.loads(pickle.dumps(dataset.reader))[0]
    assert (image.shape, image.dtype, image.max()) == ((8, 8, 3), np.uint8, 239)  # 15 of 16
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert max(dataset.reader[row].max() for row in range(50)) == 255


def test_real_photographs(shared):
    dataset = load_dataset(folder_config(shared / "data/doraemon_walle"))
    counts = dataset.table.groupby(["split", "class_name"]).size().to_dict()
    assert counts == {
        ("train", "doraemon"): 141, ("train", "walle"): 138, ("val", "doraemon"): 16, ("val", "walle"): 17,
        ("test", "doraemon"): 3, ("test", "walle"): 3,
    }  # fmt: skip
    assert dataset.quarantine.empty
    assert dataset.table["sha256"].is_unique


def test_real_clothing_and_csv(shared):
    dataset = load_dataset(folder_config(shared / "data/clothing10"))
    assert dataset.table["split"].value_counts().to_dict() == {"train": 600, "test": 214}
    assert len(dataset.class_names) == 10
    assert dataset.ignored == {"no extension": 1}  # its licence
    config = folder_config(shared / "data/imagenet_sample/labels.csv", source="csv")
    config.data.columns.path, config.data.columns.label = "filename", "wnid"
    dataset = load_dataset(config)
    assert len(dataset.table) == len(dataset.class_names) == 200


def test_data_code_never_imports_jax():
    """Workers are spawned, and each import of jax would claim the accelerator."""
    code = "import sys, imgclf.data.table; sys.exit(any(m in sys.modules for m in ('jax', 'tensorflow', 'tensorflow_datasets', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
