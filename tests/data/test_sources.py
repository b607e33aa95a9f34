"""CSV, TSV, parquet and TFDS → table; every user's mistake is a sentence."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder_config, save
from PIL import Image

from imgclf.data import images, lists
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


def csv_config(path, **fields):
    return folder_config(path, source="csv", **fields)


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
    gone = message("path,label\n" + ok + "pictures/9.png,c\n")
    assert "1 class has no usable image, 'c' (1 images were left out, such as pictures/9.png: missing" in gone
    assert "None of the 2 images" in message("path,label\nx/1.jpg,a\nx/2.jpg,b\n")
    assert "has no rows" in message("path,label\n")
    assert "has no rows" in message("")
    assert "row 2: unexpected end of data" in message('path,label\n"a,b\n')
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
    text = lists.told_rows(rows)
    shown = rows if len(rows) <= 5 else rows[:5]
    assert [int(word.strip(",")) for word in text.split(" ")[1 : len(shown) + 1 + (1 < len(rows) <= 5)] if word != "and"] == shown
    assert text.endswith(f" and {len(rows) - 5} more") == (len(rows) > 5)


@pytest.fixture
def inspected(monkeypatch) -> list:
    """Grows by one per image that is decoded for verification."""
    calls = []

    def count(data, max_pixels, inspect=images.inspect):
        calls.append(max_pixels)
        return inspect(data, max_pixels)

    monkeypatch.setattr(images, "inspect", count)
    return calls


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
        ({"name": ""}, r"needs config\.data\.tfds\.name"),
        ({"name": "imgclf_toi"}, "no such data set"),
        ({"train": "", "test": ""}, "names no split"),
        ({"test": "tset"}, "Unknown split 'tset'"),
        ({"train": "test[:60%]"}, "overlap"),
    ):
        with pytest.raises(UserError, match=said):
            load_dataset(tfds_config(tfds_folder, **fields))
