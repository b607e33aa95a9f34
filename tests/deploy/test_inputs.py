"""What trains can be predicted: one list, one reader."""

import pandas as pd
import pytest

import imgclf
from imgclf.deploy import inputs
from imgclf.errors import UserError

NAMES = ["red/1.png", "red/7.jpg", "green/2.png", "green/8.jpg", "blue/3.png", "blue/9.jpg"]


def rows(separator: str = ",", end: str = "\n", name=str) -> str:
    return end.join(["path" + separator + "label", *(name(path) + separator + path.split("/")[0] for path in NAMES), ""])


# How people write lists.
FORMS = {
    "plain.csv": rows().encode(),
    "semicolons.csv": rows(";").encode(),
    "tabs.csv": rows("\t").encode(),
    "tabs.tsv": rows("\t").encode(),
    "bars.csv": rows("|").encode(),
    "mark.csv": b"\xef\xbb\xbf" + rows().encode(),
    "windows.csv": rows(end="\r\n").encode(),
    "utf16.csv": rows().encode("utf-16"),
    "blank.csv": rows().encode() + b"\n\n",
    "spaces.csv": rows(" , ").encode(),
    "stems.csv": rows(name=lambda path: path.rsplit(".", 1)[0]).encode(),
    "backslashes.csv": rows(name=lambda path: path.replace("/", "\\")).encode(),
    "quotes.csv": rows(name=lambda path: f'"{path}"').encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_trains_can_be_predicted(photo_folder, tmp_path, form):
    (tmp_path / form).write_bytes(FORMS[form])
    data = imgclf.load_images(tmp_path / form, root=str(photo_folder), verbose=False)
    found = inputs.find([str(tmp_path / form)], root=str(photo_folder))
    expected = [f"{photo_folder}/{name}" for name in NAMES]
    assert found.paths == expected
    assert [f"{photo_folder}/{name}" for name in data.table["id"]] == expected
    assert not found.bad
    assert bool(found.notes) == (form in ("semicolons.csv", "tabs.csv", "bars.csv"))
    if found.notes:
        assert "is separated by" in found.notes[0]


def test_a_missing_header_costs_no_row(photo_folder, tmp_path):
    (tmp_path / "list.csv").write_text("\n".join(f"{photo_folder}/{name},1" for name in NAMES))
    with pytest.raises(UserError, match="has no header"):
        inputs.find([str(tmp_path / "list.csv")])


def test_the_run_s_own_column_is_known(photo_folder, tmp_path):
    table = pd.DataFrame({"file": NAMES, "id": list("abcdef"), "path": NAMES[::-1]})
    table.to_csv(tmp_path / "list.csv", index=False)
    found = inputs.find([str(tmp_path / "list.csv")], usual="file", root=str(photo_folder))
    assert (found.ids, found[0]) == (list("abcdef"), f"{photo_folder}/red/1.png")
    assert inputs.find([str(tmp_path / "list.csv")], usual="image", root=str(photo_folder))[0] == f"{photo_folder}/blue/9.jpg"
    assert inputs.find([str(tmp_path / "list.csv")], column="path", usual="file", root=str(photo_folder))[0] == f"{photo_folder}/blue/9.jpg"


def test_stems_of_several_files_are_told(photo_folder, tmp_path):
    (tmp_path / "list.csv").write_text("path\nred/1\n1\n")  # 1.png is in each folder
    found = inputs.find([str(tmp_path / "list.csv")], root=str(photo_folder))
    assert found[0] == f"{photo_folder}/red/1.png"
    assert found.bad[1].reason == "ambiguous"
    (tmp_path / "list.csv").write_text("path\n1\n2\n")
    with pytest.raises(UserError, match="write the folder too"):
        inputs.find([str(tmp_path / "list.csv")], root=str(photo_folder))
