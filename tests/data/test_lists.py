"""Lists of images as people write them: whatever separator, ends of lines and blanks, the same rows."""

import csv
import gzip
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import save

from imgclf.data import lists
from imgclf.errors import UserError


@given(rows=st.lists(st.integers(1, 10**6), min_size=1, max_size=20, unique=True))
@settings(deadline=None, derandomize=True)
def test_row_numbers_in_messages(rows):
    text = lists.told_rows(rows)
    shown = rows if len(rows) <= 5 else rows[:5]
    assert [int(word.strip(",")) for word in text.split(" ")[1 : len(shown) + 1 + (1 < len(rows) <= 5)] if word != "and"] == shown
    assert text.endswith(f" and {len(rows) - 5} more") == (len(rows) > 5)


words = st.text(st.sampled_from("abcXYZ019 _-.,;|'\"\u00e9\u4e2d"), min_size=1, max_size=8).map(str.strip).filter(bool)


@given(
    rows=st.lists(st.tuples(words, words), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    blanks=st.integers(0, 3),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    packed=st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_a_table_is_read_back_however_it_is_written(tmp_path_factory, rows, separator, end, blanks, encoding, packed):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([(" path ", "label"), *rows])
    data = (text.getvalue() + end * blanks).encode(encoding)
    file = tmp_path_factory.mktemp("list") / ("list.csv.gz" if packed else "list.csv")
    file.write_bytes(gzip.compress(data) if packed else data)
    listed = lists.read(str(file))
    assert list(listed.table.itertuples(index=False, name=None)) == rows
    assert list(listed.table.columns) == ["path", "label"]
    assert listed.lines.tolist() == list(range(2, len(rows) + 2))
    assert bool(listed.notes) == (separator != ",")


def write(tmp_path, text: str, name: str = "list.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_ragged_rows_are_filled_or_named(tmp_path):
    short = lists.read(write(tmp_path, "path,label,split\na.png,x\n\n , ,\nb.png,y,test,,\n"))
    assert short.table.values.tolist() == [["a.png", "x", ""], ["b.png", "y", "test"]]
    assert (short.lines.tolist(), short.blank) == ([2, 5], 2)
    with pytest.raises(UserError, match=r"rows 2 and 4 have more cells than the header's 2"):
        lists.read(write(tmp_path, "path,label\na,b.png,x\nb.png,y\nc,d.png,y\n"))
    with pytest.raises(UserError, match=r"two columns 'path'"):
        lists.read(write(tmp_path, "path,path \na.png,x\n"))


@pytest.mark.parametrize("columns", [["path", "label"], ["1", "cat"], ["photos/1.png", "cat"]])
@pytest.mark.parametrize("first", ["photos/1.png", "1", "photos/1"])
def test_a_missing_header_is_told(tmp_path, first, columns):
    for row in (1, 2):
        save(tmp_path / f"photos/{row}.png", row)
    listed = lists.read(write(tmp_path, f"{first},cat\nphotos/2.png,dog\n"))
    with pytest.raises(UserError, match=rf"no header.*'{first}', 'cat'.*such as \w+,label"):
        lists.check_header(listed, str(tmp_path), columns)


def test_a_header_is_none_of_the_images(tmp_path):
    save(tmp_path / "1.png")
    lists.check_header(lists.read(write(tmp_path, "path,label\n1,cat\n")), str(tmp_path), ["path", "label"])
    lists.check_header(lists.read(write(tmp_path, "file,kind\n1,cat\n")), str(tmp_path), ["path", "label"])  # said as a missing column


def test_backslashes_blanks_and_stems_are_found(tmp_path):
    for name in ("a/1.png", "a/2.jpg", "b/1.png"):
        save(tmp_path / name)
    located = lists.locate(str(tmp_path), ["a\\1.png", "a\\2", "2", "./a//2.jpg", str(tmp_path / "b/1.png"), "1", "b/3.png"])
    assert located.paths[:5] == ["a/1.png", "a/2.jpg", "a/2.jpg", "a/2.jpg", "b/1.png"]
    assert [reason for reason, _ in located.reasons] == ["", "", "", "", "", "ambiguous", "missing"]
    assert (located.sizes > 0).tolist() == [True] * 5 + [False] * 2
    assert isinstance(located.mtimes_ns, np.ndarray)


def test_excels_own_line_names_the_separator(tmp_path):
    listed = lists.read(write(tmp_path, "sep=;\npath;label\na.png;x,y\n"))
    assert listed.table.values.tolist() == [["a.png", "x,y"]]
    assert listed.lines.tolist() == [3]


def test_another_encoding_is_named_with_its_row(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes("path,label\n1,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8 \(row 2 has the byte 0xe9\)"):
        lists.read(str(file))
