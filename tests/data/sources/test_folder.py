"""Which folders are classes, which are splits: told from the structure, and asked for where that is not certain."""

import os

import pytest
from pictures import folder_config, save

from imgclf.data.sources.folder import split_role
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


def fill(root, folders, count=2):
    for place, folder in enumerate(folders):
        for row in range(count):
            save(root / folder / f"{row}.png", 100 * place + row)


def layout(root, tops, classes=("glioma", "healthy")):
    fill(root, [f"{top}/{name}" for top in tops for name in classes])


def splits_of(root, **fields):
    dataset = load_dataset(folder_config(root, **fields))
    assert dataset.class_names == ("glioma", "healthy")
    return dict(zip(dataset.table["id"].str.rsplit("/", n=2).str[0], dataset.table["split"], strict=True)), dataset


@pytest.mark.parametrize(
    "expected",
    [
        {"Training": "train", "Testing": "test"},
        {"train": "train", "dev": "val", "test": "test"},
        {"train": "train", "eval": "test"},
        {"train": "train", "eval": "val", "test": "test"},
        {"train": "train", "val": "val", "eval": "test"},
        {"training_set": "train", "test_set": "test"},
        {"TrainImages": "train", "TestImages": "test", "ValImages": "val"},
        {"seg_train/seg_train": "train", "seg_test/seg_test": "test"},
        {"train/images": "train", "test/images": "test"},
        {"train_1": "train", "train_2": "train", "holdout": "test"},
        {"training_set": "train"},
    ],
)
def test_splits_are_told_from_the_same_classes_under_several_tops(tmp_path, expected):
    layout(tmp_path, expected)
    if len(expected) == 1:
        save(tmp_path / "training_set/glioma/9.png", 9)
        with pytest.raises(UserError, match="one class only"):
            load_dataset(folder_config(tmp_path))
        return
    found, dataset = splits_of(tmp_path)
    assert found == expected
    plain = set(expected) <= {"train", "val", "test"}
    assert any(note.startswith("Folders taken for splits") for note in dataset.notes) != plain


def test_what_stands_beside_the_splits_is_left_out_and_told(tmp_path):
    layout(tmp_path, ["train", "valid", "test"])
    fill(tmp_path, ["unlabeled"])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/boxes.json").write_text("{}")
    found, dataset = splits_of(tmp_path)
    assert found == {"train": "train", "valid": "val", "test": "test"}
    assert dataset.quarantine["reason"].to_list() == ["unlabeled"] * 2
    assert "2 images in unlabeled left out: beside the split folders." in dataset.notes


def test_splits_below_the_classes(tmp_path):
    fill(tmp_path, [f"{name}/{split}" for name in ("glioma", "healthy") for split in ("train", "test")])
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.class_names == ("glioma", "healthy")
    assert dataset.table.groupby("split").size().to_dict() == {"test": 4, "train": 4}


@pytest.mark.parametrize("tops", [["part1", "part2"], ["train", "extra"], ["2023", "2024", "test"], ["train", "test", "more"]])
def test_where_structure_and_names_disagree_the_user_is_asked(tmp_path, tops):
    layout(tmp_path, tops)
    with pytest.raises(UserError, match=r"two ways.*config\.data\.layout='classes'.*config\.data\.layout='splits'"):
        load_dataset(folder_config(tmp_path))
    assert load_dataset(folder_config(tmp_path, layout="classes")).class_names == tuple(sorted(tops))
    named = {top: split_role(top).name for top in tops if split_role(top).name}
    if named:
        found, _ = splits_of(tmp_path, layout="splits")
        assert found == named
    else:
        with pytest.raises(UserError, match="no folder that is a split by its name"):
            load_dataset(folder_config(tmp_path, layout="splits"))


def test_splits_may_lack_classes(tmp_path):
    layout(tmp_path, ["training_set"])
    fill(tmp_path, ["test_set/glioma"])
    found, _ = splits_of(tmp_path)
    assert found == {"training_set": "train", "test_set": "test"}


@pytest.mark.parametrize("tops", [("train", "pictures"), ("train_images", "test_images")])
def test_one_named_split_beside_loose_images_is_asked_for(tmp_path, tops):
    layout(tmp_path, tops[:1])
    fill(tmp_path, tops[1:])
    with pytest.raises(UserError, match="two ways"):
        load_dataset(folder_config(tmp_path))


@pytest.mark.parametrize(
    "folders",
    [
        ["test", "exam"],
        ["bullet_train", "steam_train"],
        ["train/steam", "train/diesel", "bus/city", "bus/coach"],
        ["apple/fresh", "apple/old", "pear"],
        ["cat/deep/er", "dog/deep/er"],
        [f"class{n}/{part}" for n in range(12) for part in ("a", "b")],
    ],
)
def test_classes_stay_classes(tmp_path, folders):
    fill(tmp_path, folders)
    assert load_dataset(folder_config(tmp_path)).class_names == tuple(sorted({folder.split("/")[0] for folder in folders}))


def test_a_class_that_is_a_link_to_another_is_told(tmp_path):
    fill(tmp_path, ["cat", "dog"])
    os.symlink(tmp_path / "cat", tmp_path / "kitten")
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert "kitten is a link to cat: passed over." in dataset.notes


def test_one_spelling_for_a_class_across_splits(tmp_path):
    layout(tmp_path, ["train"], ["cafe\u0301", "tea"])
    layout(tmp_path, ["test"], ["caf\u00e9", "tea "])
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.class_names == ("caf\u00e9", "tea")
    assert sum("differ in blanks or Unicode form only" in note for note in dataset.notes) == 2


def test_the_folder_of_a_run_is_never_taken_for_photos(tmp_path):
    fill(tmp_path, ["cat", "dog", "run1/checkpoints/best", "checkpoints"])
    (tmp_path / "run1/config.json").write_text("{}")
    (tmp_path / ".lock").touch()
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.ignored["folder of a run"] == 2
    assert any(note.startswith("run1 is the folder of a run") for note in dataset.notes)


def test_the_pictures_of_a_run_made_among_the_photos_are_no_photos(tmp_path):
    fill(tmp_path, ["cat", "dog", "samples", "checkpoints/best"])
    (tmp_path / ".lock").touch()
    assert load_dataset(folder_config(tmp_path)).class_names == ("cat", "dog", "samples")  # a start that failed
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "dataset.parquet").touch()
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.ignored["folder of a run"] == 3


@pytest.mark.parametrize(
    ("name", "role"),
    [("Train", "train"), ("seg_train", "train"), ("trainset", "train"), ("test-a", "test"), ("ValidationImages", "val"), ("dev", "val"),
     ("evaluation", "eval"), ("trainer", ""), ("train_test", ""), ("latest", ""), ("contest", ""), ("valley", "")],
)  # fmt: skip
def test_roles(name, role):
    assert split_role(name).name == role
