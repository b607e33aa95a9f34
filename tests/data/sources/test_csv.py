"""CSV, TSV and parquet → table; every user's mistake is a sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import folder_config, save
from PIL import Image

from imgclf.data.prepare import prepare
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


def test_csv_scenes(listed):
    listed.write_text("path,label,scene\npictures/1,a,bench\npictures/2,a,bench\npictures/3,b,\n")
    assert load_dataset(csv_config(listed)).table["scene"].to_list() == ["bench", "bench", ""]
    config = csv_config(listed)
    config.data.split.fractions = (1.0, 0.0, 0.0)
    assert "scene" not in prepare(config).dataset.table  # data.scenes is off
    config.data.scenes = "auto"
    assert prepare(config).dataset.table["scene"].to_list() == ["bench", "bench", ""]
    listed.write_text("path,label,scene\npictures/1,a,bench\npictures/2,b,\n./pictures/1.png,a,beach\n")
    with pytest.raises(UserError, match="'scene', 'bench' and 'beach'"):
        load_dataset(csv_config(listed))


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
    assert "has 'later' in row 3" in message("path,label,split\npictures/1.png,a,Training\npictures/2.png,b,later\n")
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


def test_numbers_are_one_class_however_they_are_written(listed):
    rows = [("pictures/1.png", 0.0), ("pictures/2.png", 1.0), ("pictures/3.png", 0.0), ("pictures/4.png", 1.0)]
    frame = pd.DataFrame(rows, columns=["path", "label"])
    frame.to_csv(listed, index=False)
    frame.to_parquet(listed.with_suffix(".parquet"))
    frame.astype({"label": int}).to_csv(listed.with_suffix(".int.csv"), index=False)
    tables = [load_dataset(csv_config(file)) for file in (listed, listed.with_suffix(".parquet"), listed.with_suffix(".int.csv"))]
    assert {dataset.class_names for dataset in tables} == {("0", "1")}
    listed.write_text("path,label\npictures/1.png,1\npictures/2.png,1.0\npictures/3.png,2.\npictures/4.png,01\n")
    assert load_dataset(csv_config(listed)).table["class_name"].to_list() == ["1", "1", "2", "01"]


def test_class_names_have_one_spelling_and_are_mapped(listed):
    listed.write_text("path,label\npictures/1.png,cafe\u0301\npictures/2.png,caf\u00e9\npictures/3.png,Tea\npictures/4.png,tea\n")
    dataset = load_dataset(csv_config(listed))
    assert dataset.class_names == ("Tea", "caf\u00e9", "tea")
    assert any("differ in upper and lower case" in note for note in dataset.notes)
    with pytest.raises(UserError, match=r"'Tea' and 'tea'.*config\.data\.class_map=\(\('tea', 'Tea'\),\)"):
        prepare(csv_config(listed))
    merged = load_dataset(csv_config(listed, class_map=(("Tea", "tea"), ("caf\u00e9", "coffee"))))
    assert merged.table["class_name"].to_list() == ["coffee", "coffee", "tea", "tea"]
    with pytest.raises(UserError, match=r"class_map renames 'tee'.*did you mean 'tea'"):
        load_dataset(csv_config(listed, class_map=(("tee", "tea"),)))


def test_stems_of_several_folders_are_not_blamed_on_the_root(tmp_path):
    for name in ("cat", "dog"):
        for row in range(2):
            save(tmp_path / name / f"{row}.png", row)
    listed = tmp_path / "labels.csv"
    listed.write_text("path,label\n0,cat\n1,dog\n")
    with pytest.raises(
        UserError, match=r"several images have the names.*'0' is the stem of cat/0\.png and dog/0\.png.*write the folder"
    ) as error:
        load_dataset(csv_config(listed))
    assert "config.data.root" not in str(error.value)


def test_where_the_path_leads_nowhere(listed):
    for path, said in ((listed.parent, "is a folder"), ("", "needs config.data.path"), (listed.parent / "x.csv", "does not exist")):
        with pytest.raises(UserError, match=said):
            load_dataset(csv_config(path))
