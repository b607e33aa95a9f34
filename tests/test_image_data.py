"""Labeled images in Python: loaded, looked at, filtered and split, and never changed in place."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import imgclf
from imgclf.data.audit import near_pairs
from imgclf.errors import UserError

# Everything in which people hold positions, ids or truth values one after the other.
HOLDERS = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "array": np.array,
    "Index": pd.Index,
    "pandas array": pd.array,
    "Series": pd.Series,
    "reversed Series": lambda values: pd.Series(values, index=range(len(values), 0, -1)),
    "Series of one label": lambda values: pd.Series(values, index=[3] * len(values)),
}


@pytest.fixture(scope="module")
def data(color_folder) -> imgclf.ImageData:
    return imgclf.load_images(color_folder, verbose=False)


def test_a_folder_is_read_to_any_depth_and_says_what_it_skipped(color_folder, capsys):
    data = imgclf.load_images(color_folder)
    assert len(data) == 75
    assert data.class_names == ("blue", "green", "red")
    assert data.table["class_name"].value_counts().to_dict() == {"red": 30, "green": 25, "blue": 20}
    assert data.skipped[["id", "reason"]].to_numpy().tolist() == [["red/broken.jpg", "truncated"]]
    assert data.ignored == {".DS_Store": 1}
    assert "skipped: 1 file (1 truncated)" in capsys.readouterr().out


def test_a_table_is_read_and_a_saved_table_read_again(data, color_folder, tmp_path):
    data.table.to_csv(tmp_path / "images.csv")
    again = imgclf.load_images(
        tmp_path / "images.csv", root=str(color_folder), columns={"path": "id", "label": "class_name"}, verbose=False
    )
    pd.testing.assert_frame_equal(again.table[["id", "label", "sha256"]], data.table[["id", "label", "sha256"]])


def test_images_are_got_by_number_id_and_slice(data):
    assert data[0].shape == (48, 64, 3)
    assert data[0].dtype == np.uint8
    np.testing.assert_array_equal(data[-1], data[data.table["id"].iloc[-1]])
    assert data[5:9].table["id"].tolist() == data.table["id"].tolist()[5:9]
    with pytest.raises(IndexError):
        data[75]
    with pytest.raises(UserError, match=r"did you mean 'red/00\.png'"):
        data["red/00.pn"]
    assert len(list(data[:3])) == 3


@pytest.mark.parametrize("holder", HOLDERS)
@settings(max_examples=10, derandomize=True, deadline=None)
@given(rows=st.lists(st.integers(-75, 74), min_size=1, max_size=9, unique_by=lambda row: row % 75))
def test_several_images_are_got_by_position_or_id_whatever_holds_them(data, holder, rows):
    expected = [data.table["id"].iloc[row] for row in rows]
    assert data[HOLDERS[holder](rows)].table["id"].tolist() == expected
    assert data[HOLDERS[holder](expected)].table["id"].tolist() == expected


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ([0, -75], "stands 2 times"),
        ([], "of no image"),
        ([0.5], "takes a position or an id"),
        (None, "several are needed"),
        (True, "is no position"),
        (["x"], "no image 'x'"),
    ],
)
def test_what_names_no_images_is_told(data, key, told):
    with pytest.raises(UserError, match=told):
        data[key]


def test_whether_an_image_is_there_is_told_by_its_id(data):
    assert "red/00.png" in data
    assert "red/99.png" not in data
    assert 3 not in data


def test_a_position_beyond_the_end_is_an_index_error(data):
    for key in (75, [0, 75], np.array([-76])):
        with pytest.raises(IndexError):
            data[key]


@pytest.mark.parametrize("holder", HOLDERS)
def test_truth_values_are_taken_by_position_whatever_holds_them(data, holder):
    mask, expected = [row % 3 == 0 for row in range(75)], data.table["id"].tolist()[::3]
    assert data.filter(HOLDERS[holder](mask)).table["id"].tolist() == expected
    assert data[HOLDERS[holder](mask)].table["id"].tolist() == expected
    with pytest.raises(UserError, match="each of 75 images, not 74 values"):
        data.filter(HOLDERS[holder](mask[1:]))


@pytest.mark.parametrize("holder", HOLDERS)
def test_class_names_are_taken_whatever_holds_them(data, holder):
    assert data.filter(HOLDERS[holder](["red", "blue"])).class_names == ("blue", "red")


def test_a_function_that_reorders_the_table_is_refused(data):
    with pytest.raises(UserError, match="changed the order or number of the rows"):
        data.filter(lambda table: table[::-1]["id"].str.startswith("red"))


def test_filters_keep_labels_and_classes_together(data):
    some = data.filter(["red", "blue"])
    assert some.class_names == ("blue", "red")
    assert [some.class_names[label] for label in some.table["label"]] == some.table["class_name"].tolist()
    assert len(data.filter("green")) == 25
    assert len(data.filter(lambda table: table["id"].str.startswith("red/deep"))) == 15
    np.testing.assert_array_equal(data.filter(data.table["id"] == "blue/04.png")[0], data["blue/04.png"])
    for by, told in ((["rad"], "did you mean 'red'"), (lambda table: table["width"] > 999, "None of 75"), ([True], "one True or False")):
        with pytest.raises(UserError, match=told):
            data.filter(by)


def test_nothing_changes_a_data_set(data):
    table, skipped = data.table, data.skipped
    table["class_name"] = skipped["id"] = "x"
    data.ignored["x"] = 1
    assert "x" not in set(data.table["class_name"]) | set(data.skipped["id"]) | set(data.ignored)


def test_it_shows_itself(data):
    assert repr(data).startswith("75 images of 3 classes: blue 20, green 25, red 30")
    assert data._repr_html_().count("<img src=") == 24


@pytest.mark.parametrize(
    ("path", "told"), [("imag", "did you mean 'image'"), ("nowhere/at/all", "check the path"), ("image/red/00.png", "neither a folder nor")]
)
def test_a_wrong_path_is_told(color_folder, path, told):
    with pytest.raises(UserError, match=told):
        imgclf.load_images(color_folder.parent / path)


@pytest.mark.parametrize("path", [None, 3, ["image"], imgclf])
def test_what_is_no_path_is_told(path):
    with pytest.raises(UserError, match=r"stands where a folder of images, or a table .* is needed: give one path"):
        imgclf.load_images(path)


def test_an_unknown_field_is_told(color_folder):
    with pytest.raises(UserError, match=r"did you mean 'data\.max_pixels'"):
        imgclf.load_images(color_folder, max_pixel=3)


def test_explore_replaces_its_own_page_only(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few, others = data[:4], data[4:9]
    pages = [some.explore(verbose=False).name for some in (few, others, few)]
    assert pages == ["explore.html", "explore-2.html", "explore.html"]
    with pytest.raises(UserError, match=r"holds another page \(images: 4 images of image\)"):
        others.explore("explore.html")
    others.explore("explore.html", overwrite=True, verbose=False)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(fraction=st.floats(0.06, 0.94), seed=st.integers(0, 99))
def test_parts_are_exact_disjoint_and_complete(data, fraction, seed):
    first, second = data.split(fraction, seed=seed, verbose=False)
    ids = set(first.table["id"]), set(second.table["id"])
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == set(data.table["id"])
    counts = first.table["class_name"].value_counts()
    for name, of in (("red", 30), ("green", 25), ("blue", 20)):
        assert abs(counts.get(name, 0) - of * fraction) < 1 + 1e-9
    assert first.class_names == second.class_names == data.class_names
    assert set(first.table["split"]) == {"train"}
    assert set(second.table["split"]) == {"test"}


def test_the_same_seed_gives_the_same_split_whatever_the_order(data):
    first, _ = data.split(0.8, seed=2, verbose=False)
    again, _ = data[::-1].split(0.8, seed=2, verbose=False)
    other, _ = data.split(0.8, seed=3, verbose=False)
    assert (len(first), set(first.table["id"])) == (60, set(again.table["id"]))
    assert set(first.table["id"]) != set(other.table["id"])


def test_copies_never_stand_astride(color_folder, tmp_path, capsys):
    root = tmp_path / "image"
    shutil.copytree(color_folder, root)
    for name in ("red/00.png", "red/02.png", "blue/04.png", "green/06.png"):
        shutil.copy(root / name, root / name.replace(".png", "-copy.png"))
        Image.open(root / name).save((root / name).with_suffix(".jpg"), quality=90)
    data = imgclf.load_images(root, verbose=False)
    for seed in range(8):
        first, second = data.split(0.5, seed=seed)
        hashes = [set(part.table["phash"].to_numpy().view(np.uint64).tolist()) for part in (first, second)]
        assert not hashes[0] & hashes[1]
        values = np.array(sorted(hashes[0] | hashes[1]), np.uint64)
        for one, two in near_pairs(values, 6):
            assert (int(values[one]) in hashes[0]) == (int(values[two]) in hashes[0])
        assert abs(len(first) - len(second)) <= 3
    assert "kept whole: 4 groups of copies or of the data (12 images)" in capsys.readouterr().out


def test_a_class_of_one_image_can_not_be_split(data):
    lonely = data.filter(lambda table: (table["class_name"] != "red") | (table["id"] == "red/00.png"))
    with pytest.raises(UserError, match="Class 'red' has 1 example, too few for train and test"):
        lonely.split(0.8)


@pytest.mark.parametrize(
    ("fraction", "told"),
    [(80, "did you mean 0.8"), (1.0, "such as 0.8"), (-0.5, "such as 0.8"), ("80%", "is no number"), (True, "is no number")],
)
def test_a_wrong_fraction_is_told(data, fraction, told):
    with pytest.raises(UserError, match=told):
        data.split(fraction)


def test_importing_is_quick_and_loading_images_starts_no_jax(color_folder):
    script = (
        "import sys, imgclf; assert not {'jax', 'pandas', 'numpy'} & set(sys.modules); "
        f"data = imgclf.load_images({str(color_folder)!r}); data.split(0.8); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, stdout=subprocess.DEVNULL)
