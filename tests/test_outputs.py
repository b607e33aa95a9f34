"""What may be replaced: an output of the same, and anything that the user says; nothing else, and no folder of others' files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf import outputs
from imgclf.errors import UserError

MINE, OTHER = outputs.identity("mistakes", "run a on 3 images of birds", "a"), outputs.identity("mistakes", "run b", "b")


def page(of: outputs.Identity | None) -> str:
    return f"<!doctype html><head>\n{outputs.mark(of)}\n</head>"


def test_a_page_is_replaced_by_one_of_the_same_only(tmp_path):
    path = tmp_path / "page.html"
    assert outputs.check_file(path, MINE) == path
    path.write_text(page(MINE))
    assert outputs.check_file(path, MINE) == path
    with pytest.raises(UserError, match=r"holds another page \(mistakes: run a on 3 images of birds\).*overwrite=True"):
        outputs.check_file(path, OTHER)
    assert outputs.check_file(path, OTHER, overwrite=True) == path


@pytest.mark.parametrize(
    ("text", "told"),
    [("notes", "no page of imgclf's"), (page(None), "of an unknown origin"), (page(MINE).replace("{", "["), "of an unknown origin")],
)
def test_other_files_stay_unless_the_user_says_so(tmp_path, text, told):
    path = tmp_path / "page.html"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        outputs.check_file(path, MINE)
    outputs.check_file(path, MINE, overwrite=True)


def test_folders_and_dangling_links_are_no_place_for_a_page(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: name the page in it, such as .*page\.html"):
        outputs.check_file(tmp_path, MINE, overwrite=True)
    (tmp_path / "link.html").symlink_to("nowhere")
    with pytest.raises(UserError, match="no page of imgclf's"):
        outputs.check_file(tmp_path / "link.html", MINE)


@pytest.mark.parametrize("name", ["page", "page.csv"])
def test_a_page_is_written_to_an_html_file_only(tmp_path, name):
    with pytest.raises(UserError, match=r"which is HTML: name a file such as .*page\.html"):
        outputs.check_file(tmp_path / name, MINE, overwrite=True)


@given(kind=st.text(), subject=st.text(), parts=st.lists(st.text(), max_size=3))
def test_an_identity_is_read_as_it_was_written(tmp_path_factory, kind, subject, parts):
    path = tmp_path_factory.mktemp("page") / "page.html"
    of = outputs.identity(kind, subject, *parts)
    path.write_bytes(page(of).encode("utf-8", "backslashreplace"))
    assert outputs.check_file(path, of) == path
    with pytest.raises(UserError):
        outputs.check_file(path, outputs.identity(kind, subject, *parts, "more"))


def test_a_name_that_nobody_chose_makes_way(tmp_path):
    names = []
    for of in (MINE, OTHER, MINE, OTHER):
        path = outputs.free_file(tmp_path / "page.html", of)
        path.write_text(page(of))
        names.append(path.name)
    assert names == ["page.html", "page-2.html", "page.html", "page-2.html"]


def test_a_folder_is_replaced_as_a_whole_only_where_it_is_an_output(tmp_path):
    folder = tmp_path / "model"
    assert outputs.check_folder(folder, MINE, "mark.json") == folder
    folder.mkdir()
    assert outputs.check_folder(folder, MINE, "mark.json") == folder  # empty
    outputs.write_mark(folder / "mark.json", MINE)
    assert json.loads((folder / "mark.json").read_text())["kind"] == "mistakes"
    outputs.check_folder(folder, MINE, "mark.json")
    with pytest.raises(UserError, match=r"holds another mistakes.*run a on 3 images of birds.*overwrite=True"):
        outputs.check_folder(folder, OTHER, "mark.json")
    outputs.check_folder(folder, OTHER, "mark.json", overwrite=True)
    (folder / "mark.json").rename(folder / "photo.jpg")
    with pytest.raises(UserError, match=r"a folder with other things.*remove it yourself"):
        outputs.check_folder(folder, OTHER, "mark.json", overwrite=True)
