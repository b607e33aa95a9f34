"""Sources → table: layouts, quarantine, CSV and parquet, TFDS, digits, the verification cache; every user's mistake is a sentence."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf.config import default_config
from imgclf.data import folders, images, sources, verify
from imgclf.data.table import load_dataset
from imgclf.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IMGCLF_CACHE", str(folder))
    return folder


def save(path: Path, value: int = 0, size: tuple[int, int] = (12, 9), **options) -> Path:
    """A small picture that differs with `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def folder_config(path, **fields):
    config = default_config()
    config.data.path = str(path)
    config.data.update(fields)
    return config


def csv_config(path, **fields):
    return folder_config(path, source="csv", **fields)


@pytest.fixture
def two_classes(tmp_path) -> Path:
    root = tmp_path / "photos"
    for row, name in enumerate(("cat/b.jpg", "cat/deep/er/a.png", "dog/a.jpg", "dog/c.gif")):
        save(root / name, row)
    return root


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
    (two_classes / "dog/phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
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
        "dog/phone.heic": "unsupported",
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
    """Root may read everything, so the refusal comes from a stand-in for the file that `open` reaches."""
    if os.geteuid():
        (two_classes / "dog/a.jpg").chmod(0)
    else:
        read = folders.FileReader.encoded

        def refuse(reader, row):
            if reader.path(row).endswith("dog/a.jpg"):
                raise PermissionError(13, "Permission denied")
            return read(reader, row)

        monkeypatch.setattr(folders.FileReader, "encoded", refuse)
    dataset = load_dataset(folder_config(two_classes))
    assert dataset.quarantine.to_dict("records") == [{"id": "dog/a.jpg", "reason": "unreadable", "detail": "Permission denied"}]
    if os.geteuid():
        (two_classes / "dog/a.jpg").chmod(0o600)
    monkeypatch.undo()
    assert len(load_dataset(folder_config(two_classes)).table) == 4  # a refusal is not remembered


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

    assert "config.data.path is empty" in message("")
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
    assert "predict its images" in said
    (tmp_path / "kaggle" / "test" / "3.jpg").unlink()
    assert "test holds no image: fill it, or remove it" in message(tmp_path / "kaggle")


# The verification cache


@pytest.fixture
def inspected(monkeypatch) -> list:
    """Grows by one per image that is decoded for verification."""
    calls = []

    def count(data, max_pixels, inspect=images.inspect):
        calls.append(max_pixels)
        return inspect(data, max_pixels)

    monkeypatch.setattr(images, "inspect", count)
    return calls


def test_only_new_and_changed_files_are_verified_again(two_classes, inspected):
    config = folder_config(two_classes)
    first = load_dataset(config)
    assert len(inspected) == 4
    second = load_dataset(config)
    assert len(inspected) == 4
    pd.testing.assert_frame_equal(first.table, second.table)

    save(two_classes / "dog/new.jpg", 20)
    save(two_classes / "dog/a.jpg", 21, (31, 17))
    (two_classes / "cat/b.jpg").unlink()
    third = load_dataset(config)
    assert len(inspected) == 6
    assert third.table["id"].to_list() == ["cat/deep/er/a.png", "dog/a.jpg", "dog/c.gif", "dog/new.jpg"]
    assert third.table["width"].to_list() == [12, 31, 12, 12]

    (two_classes / "dog/new.jpg").write_text("words")
    assert load_dataset(config).quarantine["reason"].to_list() == ["not_an_image"]
    assert len(inspected) == 7
    assert load_dataset(config).quarantine["reason"].to_list() == ["not_an_image"]  # remembered too
    assert len(inspected) == 7
    load_dataset(folder_config(two_classes, max_pixels=1000))
    assert len(inspected) == 11


def test_a_damaged_cache_is_named_and_rebuilt(two_classes, cache, inspected, caplog):
    config = folder_config(two_classes)
    expected = load_dataset(config).table
    (file,) = (cache / "verified").iterdir()
    for damage in (file.read_bytes()[:100], b"", b"words"):
        file.write_bytes(damage)
        caplog.clear()
        pd.testing.assert_frame_equal(load_dataset(config).table, expected)
        assert str(file) in caplog.text
    pd.DataFrame({"id": ["cat/b.jpg"]}).to_parquet(file)  # whole, but another table
    caplog.clear()
    load_dataset(config)
    assert str(file) in caplog.text
    assert len(inspected) == 20
    caplog.clear()
    load_dataset(config)
    assert len(inspected) == 20
    assert not caplog.text


def test_a_cache_that_cannot_be_written_costs_no_run(two_classes, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "file"))
    assert len(load_dataset(folder_config(two_classes)).table) == 4
    assert "can't be kept" in caplog.text


def test_what_was_verified_before_an_interruption_is_kept(tmp_path, monkeypatch):
    for row in range(200):
        save(tmp_path / "ab"[row % 2] / f"{row}.png", row, (4, 4))
    calls = []

    def interrupt(data, max_pixels, inspect=images.inspect):
        calls.append(0)
        if len(calls) == 150:
            raise KeyboardInterrupt
        return inspect(data, max_pixels)

    with monkeypatch.context() as patch:
        patch.setattr(images, "inspect", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(folder_config(tmp_path))
    again = []
    monkeypatch.setattr(images, "inspect", lambda *args, inspect=images.inspect: again.append(0) or inspect(*args))
    assert len(load_dataset(folder_config(tmp_path)).table) == 200
    assert 0 < len(again) < 100


def test_cache_folder_names(monkeypatch, tmp_path):
    monkeypatch.delenv("IMGCLF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = verify.cache_file("/photos", 100)
    assert file.parent == tmp_path / "imgclf" / "verified"
    assert len({file, verify.cache_file("/photos", 101), verify.cache_file("/other", 100)}) == 3


# CSV and parquet


@pytest.fixture
def listed(tmp_path) -> Path:
    """pictures/{1..4}.png, pictures/more/{5..8}.jpg and an empty table beside them."""
    for row in range(1, 9):
        save(tmp_path / "pictures" / (f"{row}.png" if row < 5 else f"more/{row}.jpg"), row)
    return tmp_path / "labels.csv"


def test_csv(listed):
    listed.write_text("\ufeffpath,label,split,group\npictures/1.png,01,train,g\n./pictures/2.png,NA,VAL,g\npictures//3.png, 1 ,Test,\n")
    table = load_dataset(csv_config(listed)).table
    assert table["id"].to_list() == ["pictures/1.png", "pictures/2.png", "pictures/3.png"]
    assert table["class_name"].to_list() == ["01", "NA", "1"]
    assert table["label"].to_list() == [0, 2, 1]
    assert table["split"].to_list() == ["train", "val", "test"]
    assert table["group"].to_list() == ["g", "g", ""]


def test_csv_stems_root_and_column_names(listed, tmp_path):
    listed.write_text("image_id;x\n")
    table = tmp_path / "S2.tsv"
    table.write_text("image_id\tkind\n1\ta\n6\tb\nmore/7\tb\nmore/8.jpg\ta\n")
    config = csv_config(table, root=str(tmp_path / "pictures"))
    config.data.columns.path, config.data.columns.label = "image_id", "kind"
    dataset = load_dataset(config)
    assert dataset.table["id"].to_list() == ["1.png", "more/6.jpg", "more/7.jpg", "more/8.jpg"]
    np.testing.assert_array_equal(dataset.reader[1], np.asarray(Image.open(tmp_path / "pictures/more/6.jpg")))


def test_csv_rows_without_an_image(listed, tmp_path):
    save(tmp_path / "pictures/more/1.jpg", 30)
    (tmp_path / "pictures/folder.jpg").mkdir()
    (tmp_path / "pictures/bad.jpg").write_text("words")
    listed.write_text(
        "path,label\n2,a\n3,b\n1,a\npictures/gone.png,a\npictures/folder.jpg,b\npictures/bad.jpg,b\npictures/2.png/x,a\n2,a\n"
    )
    dataset = load_dataset(csv_config(listed))
    assert dataset.table["id"].to_list() == ["pictures/2.png", "pictures/3.png"]
    assert dataset.ignored == {"rows that repeat another": 1}
    assert dict(zip(dataset.quarantine["id"], dataset.quarantine["reason"], strict=True)) == {
        "1": "ambiguous",
        "pictures/gone.png": "missing",
        "pictures/folder.jpg": "unreadable",
        "pictures/bad.jpg": "not_an_image",
        "pictures/2.png/x": "missing",
    }
    ambiguous = dataset.quarantine.set_index("id").loc["1", "detail"]
    assert "pictures/1.png and pictures/more/1.jpg" in ambiguous


def test_parquet_with_numbers_and_absolute_paths(listed, tmp_path):
    file = tmp_path / "labels.parquet"
    outside = save(tmp_path / "outside" / "z.png", 40)
    paths = ["1.png", str(tmp_path / "pictures/2.png"), str(outside), "3.png"]
    pd.DataFrame({"path": paths, "label": [1.0, 2.0, 1.0, 2.0], "group": [7, 7, 8, None]}).to_parquet(file)
    table = load_dataset(csv_config(file, root=str(tmp_path / "pictures"))).table
    assert table["id"].to_list() == ["1.png", "2.png", str(outside), "3.png"]
    assert table["class_name"].to_list() == ["1", "2", "1", "2"]
    assert table["group"].to_list() == ["7", "7", "8", ""]


def test_mistakes_in_csv_are_sentences(listed, tmp_path):
    def message(text: str, **fields) -> str:
        listed.write_text(text)
        with pytest.raises(UserError) as error:
            load_dataset(csv_config(listed, **fields))
        return str(error.value)

    ok = "pictures/1.png,a\npictures/2.png,b\n"
    assert "has no column 'path': set config.data.columns.path to one of its columns ('file', 'label')" in message("file,label\n" + ok)
    assert "no label in row 4; fill column 'label'" in message("path,label\n" + ok + "pictures/3.png,\n")
    many = "".join(f"pictures/{row % 4 + 1}.png,\n" for row in range(9))
    assert "no label in rows 4, 5, 6, 7, 8 and 4 more" in message("path,label\n" + ok + many)
    assert "no path in rows 2 and 4" in message("path,label\n,a\npictures/1.png,a\n,b\n")
    clash = message("path,label\n" + ok + "./pictures/1.png,b\n")
    assert "rows 2 and 4 give pictures/1.png two values of 'label', 'a' and 'b'" in clash
    assert "two values of 'split'" in message("path,label,split\npictures/1.png,a,train\npictures/1.png,a,test\n")
    assert "has 'dev' in row 3" in message("path,label,split\npictures/1.png,a,train\npictures/2.png,b,dev\n")
    assert "has '' in row 3" in message("path,label,split\npictures/1.png,a,train\npictures/2.png,b,\n")
    assert "one class only, 'a'" in message("path,label\npictures/1.png,a\n")
    assert "None of the 2 images" in message("path,label\nx/1.jpg,a\nx/2.jpg,b\n")
    assert "has no rows" in message("path,label\n")
    assert "can't be read as a table" in message("")
    assert "can't be read as a table" in message('path,label\n"a,b\n')
    assert "does not exist" in message("path,label\n" + ok, root="/no/such/folder")
    listed.write_bytes("path,label\n1,é\n".encode("latin-1"))
    for file, said in (
        (listed, "UTF-8"),
        (tmp_path, "is a folder"),
        (tmp_path / "pictures/1.png", "is no table"),
        (tmp_path / "x.csv", "exist"),
    ):
        with pytest.raises(UserError, match=said):
            load_dataset(csv_config(file))
    (tmp_path / "bad.parquet").write_bytes(b"words")
    with pytest.raises(UserError, match="can't be read as a table"):
        load_dataset(csv_config(tmp_path / "bad.parquet"))


@given(rows=st.lists(st.integers(1, 10**6), min_size=1, max_size=20, unique=True))
@settings(deadline=None, derandomize=True)
def test_row_numbers_in_messages(rows):
    text = sources._rows(rows)
    shown = rows if len(rows) <= 5 else rows[:5]
    assert [int(word.strip(",")) for word in text.split(" ")[1 : len(shown) + 1 + (1 < len(rows) <= 5)] if word != "and"] == shown
    assert text.endswith(f" and {len(rows) - 5} more") == (len(rows) > 5)


# Digits, TFDS


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


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory) -> Path:
    """A data set of eight pictures, prepared as ArrayRecord from files, without tensorflow."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    files = {split: [str(save(folder / f"{split}{row}.png", row, (6 + row, 5))) for row in range(4)] for split in ("train", "test")}
    Path(files["train"][3]).write_bytes(Path(files["train"][3]).read_bytes()[:60])

    class ImgclfToy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["walle", "doraemon"])
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label}))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in files}

        def _generate_examples(self, split):
            for row, file in enumerate(files[split]):
                yield row, {"image": file, "label": row % 2}

    ImgclfToy(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def tfds_config(folder, **fields):
    config = folder_config("", source="tfds")
    config.data.tfds.name = "imgclf_toy"
    config.data.tfds.data_dir = str(folder)
    config.data.tfds.update(fields)
    return config


def test_tfds(tfds_folder, inspected):
    dataset = load_dataset(tfds_config(tfds_folder))
    table = dataset.table
    assert dataset.class_names == ("doraemon", "walle")  # sorted, whatever TFDS's order
    assert table["split"].value_counts().to_dict() == {"train": 3, "test": 4}
    assert set(table["source"]) == {"tfds:imgclf_toy/1.0.0"}
    assert table["id"].iloc[-1] == "test-00000-of-00001/3"
    assert dataset.quarantine["reason"].to_list() == ["truncated"]
    reader = pickle.loads(pickle.dumps(dataset.reader))
    for row, (split, width) in enumerate(zip(table["split"], table["width"], strict=True)):
        value = width - 6
        np.testing.assert_array_equal(reader[row], np.asarray(Image.open(tfds_folder / f"{split}{value}.png")))
        assert table["class_name"][row] == ("walle", "doraemon")[value % 2]
    assert len(inspected) == 8
    again = load_dataset(tfds_config(tfds_folder))
    assert len(inspected) == 8
    pd.testing.assert_frame_equal(again.table, table)


def test_tfds_slices_keep_their_ids(tfds_folder):
    whole = load_dataset(tfds_config(tfds_folder, train="", test="test")).table
    parts = load_dataset(tfds_config(tfds_folder, train="test[50%:]", test="test[:50%]")).table
    assert set(parts["split"]) == {"train", "test"}
    pd.testing.assert_frame_equal(
        whole.drop(columns="split"), parts.sort_values("id", ignore_index=True).drop(columns="split"), check_like=True
    )


def test_mistakes_with_tfds_are_sentences(tfds_folder):
    for fields, said in (
        ({"name": ""}, "tfds.name is empty"),
        ({"name": "imgclf_toi"}, "no such data set"),
        ({"train": "", "test": ""}, "names no split"),
        ({"test": "tset"}, "Unknown split 'tset'"),
        ({"train": "test[:60%]"}, "overlap"),
    ):
        with pytest.raises(UserError, match=said):
            load_dataset(tfds_config(tfds_folder, **fields))


# Real data


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
    config = csv_config(shared / "data/imagenet_sample/labels.csv")
    config.data.columns.path, config.data.columns.label = "filename", "wnid"
    dataset = load_dataset(config)
    assert len(dataset.table) == len(dataset.class_names) == 200


def test_data_code_never_imports_jax():
    """Workers are spawned, and each import of jax would claim the accelerator."""
    code = "import sys, imgclf.data.table; sys.exit(any(m in sys.modules for m in ('jax', 'tensorflow', 'tensorflow_datasets', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
