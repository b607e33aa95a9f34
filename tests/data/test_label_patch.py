"""Corrected labels beside the data: what they change, what they leave, and each mistake as a sentence."""

import pytest
from pictures import folder_config, save

from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def patched(tmp_path):
    """Loads six pictures of cats, dogs and a bird with a patch of this text."""
    for row, name in enumerate(("cat/1", "cat/2", "cat/NA", "dog/1", "dog/2", "bird/1")):
        save(tmp_path / "data" / f"{name}.jpg", row, (8, 8))

    def load(text: str):
        (tmp_path / "patch.csv").write_text(text)
        config = folder_config(tmp_path / "data")
        config.data.label_patch = str(tmp_path / "patch.csv")
        return load_dataset(config).table.set_index("id")

    return load


def test_labels_are_put_right_and_the_old_ones_kept(patched):
    table = patched("id,given,suggested,label\ncat/1.jpg,cat,dog,dog\ncat/2.jpg,cat,dog,\ndog/1.jpg,dog,cat,dog\n")
    assert table.loc["cat/1.jpg", ["class_name", "original_class", "label"]].to_list() == ["dog", "cat", 2]
    rest = table.drop("cat/1.jpg")
    assert (rest["class_name"] == rest["original_class"]).all()
    assert table["label"].dtype == "int32"
    assert table["class_name"].dtype == "str"


def test_only_id_and_label_are_needed_and_a_patch_may_stay_in_place(patched):
    """A second load, of data that were corrected at their source since, is no conflict."""
    table = patched("label,id\n dog ,cat/1.jpg\ndog,cat/1.jpg\n")
    assert table.loc["cat/1.jpg", "class_name"] == "dog"
    table = patched("id,given,label\ndog/1.jpg,cat,dog\n")
    assert (table["class_name"] == table["original_class"]).all()


def test_an_unedited_patch_changes_nothing(patched):
    table = patched("id,given,suggested,label\ncat/1.jpg,cat,dog,\nnowhere.jpg,cat,dog,\n")
    assert (table["class_name"] == table["original_class"]).all()


def test_without_a_patch_there_is_no_column_more(tmp_path):
    save(tmp_path / "a/1.jpg", 0, (8, 8))
    save(tmp_path / "b/1.jpg", 1, (8, 8))
    assert "original_class" not in load_dataset(folder_config(tmp_path)).table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\ncat/1.jpeg,dog\n", r"patch\.csv, row 2: there is no image 'cat/1\.jpeg' in the data; did you mean 'cat/1\.jpg'"),
        ("id,label\ncat/1.jpg,\ncat/1.jpg,dgo\n", r"row 3: 'dgo' is no class of the data; did you mean 'dog'"),
        ("id,label\ncat/1.jpg,dog\ncat/1.jpg,bird\n", r"row 3: 'cat/1\.jpg' has two labels, 'dog' and 'bird'"),
        ("id,given,label\ncat/1.jpg,bird,dog\n", r"row 2: 'cat/1\.jpg' was 'bird' when the patch was made and is 'cat' now"),
        ("id,label\nbird/1.jpg,dog\n", "leaves class 'bird' without an image"),
        ("file,label\ncat/1.jpg,dog\n", "has no column 'id'"),
        ("id\ncat/1.jpg\n", "has no column 'label'"),
        ("", "can't be read as a patch"),
    ],
)
def test_a_users_mistake_is_a_sentence(patched, text, message):
    with pytest.raises(UserError, match=message):
        patched(text)


def test_a_patch_that_is_not_there_is_named(tmp_path):
    save(tmp_path / "a/1.jpg", 0, (8, 8))
    save(tmp_path / "b/1.jpg", 1, (8, 8))
    config = folder_config(tmp_path)
    config.data.label_patch = str(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"config\.data\.label_patch=.*none\.csv does not exist"):
        load_dataset(config)
