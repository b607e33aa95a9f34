"""CSV scanned, CSV converted, parquet queried: all three give what pandas gives."""

import gzip

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.openimages import releases, tables

BOX_HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
SCANNED = [name for name in BOX_HEADER.split(",") if name != "Confidence"]


def rows_of(table: pd.DataFrame) -> list[tuple]:
    return sorted(table[SCANNED].itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def real_boxes(shared, tmp_path_factory):
    """13,134 real boxes in V4's columns."""
    path = tmp_path_factory.mktemp("boxes") / "train-annotations-bbox.csv"
    path.write_bytes(gzip.decompress((shared / "data/openimages/v4_filtered/train-annotations-bbox.csv.gz").read_bytes()))
    return path


def test_scan_and_query_equal_pandas_on_real_boxes(real_boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 100_000)  # several blocks, cut at odd places
    monkeypatch.setattr(tables, "_SCAN_BLOCK", 70_001)
    monkeypatch.setattr(tables, "_MARGIN", 500)
    expected = pd.read_csv(real_boxes)
    done = []
    assert tables.convert(real_boxes, tmp_path / "boxes.parquet", tables.BOXES, done.append) == 13_134
    assert sum(done) == real_boxes.stat().st_size - len(expected.columns.to_series().str.cat(sep=",")) - 1
    assert tables.count(tmp_path / "boxes.parquet") == expected["LabelName"].value_counts().to_dict()
    for labels in (["/m/031n1"], sorted(expected["LabelName"].unique())[:3], ["/m/none"]):
        right = rows_of(expected[expected["LabelName"].isin(labels)])
        assert rows_of(tables.scan(real_boxes, tables.BOXES, labels).to_pandas()) == right
        assert rows_of(tables.query(tmp_path / "boxes.parquet", "LabelName", labels).to_pandas()) == right
    ids = list(expected["ImageID"].unique()[5:9])
    assert rows_of(tables.query(tmp_path / "boxes.parquet", "ImageID", ids).to_pandas()) == rows_of(expected[expected["ImageID"].isin(ids)])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.sampled_from(["/m/0cdn1", "/m/0cdn12", "/m/0cdn", "/m/0c", "/g/0cdn1", "/m/01xy_a"]), max_size=60),
    wanted=st.sets(st.sampled_from(["/m/0cdn1", "/m/0cdn12", "/m/0cdn", "/m/0c", "/g/0cdn1", "/t/x"]), min_size=1),
    block=st.integers(90, 400),
    last_newline=st.booleans(),
    quoted=st.booleans(),
)
def test_scan_finds_exactly_the_rows(rows, wanted, block, last_newline, quoted, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "boxes.csv"
    quote = '"' if quoted else ""
    lines = [f"{i:016x},xclick,{quote}{label}{quote},1,0.1,0.5,0.2,0.25,1,0,-1,0,0" for i, label in enumerate(rows)]
    path.write_text("\n".join([BOX_HEADER, *lines]) + ("\n" if last_newline else ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_SCAN_BLOCK", block)
        patch.setattr(tables, "_MARGIN", 300)
        found = tables.scan(path, tables.BOXES, wanted)
    assert sorted(found["ImageID"].to_pylist()) == [f"{i:016x}" for i, label in enumerate(rows) if label in wanted]
    assert found["IsGroupOf"].to_pylist() == [-1] * found.num_rows


def test_files_without_flags_and_with_more_columns(tmp_path):
    path = tmp_path / "old.csv"  # V3 train
    path.write_text("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n" + "0" * 16 + ",activemil,/m/01,1,0.5,0.75,0,1\n")
    found = tables.scan(path, tables.BOXES, ["/m/01"])
    assert found.to_pylist() == [
        {"ImageID": "0" * 16, "Source": "activemil", "LabelName": "/m/01", "XMin": 0.5, "XMax": 0.75, "YMin": 0.0, "YMax": 1.0}
        | dict.fromkeys(("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"), -1)
    ]
    path.write_text(BOX_HEADER + ",XClick1X,XClick2X\n" + "0" * 16 + ",xclick,/m/01,1,0.5,0.75,0,1,0,1,,-1,0,0.1,0.2\n")
    assert tables.scan(path, tables.BOXES, ["/m/01"])["IsGroupOf"].to_pylist() == [-1]
    path.write_text("ImageID,LabelName\n")
    with pytest.raises(UserError, match=r"line 1 lacks the column 'Source'"):
        tables.scan(path, tables.BOXES, ["/m/01"])


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("{id},xclick,/m/01,1,0.5", "13 columns"),
        ("{id},xclick,/m/01,1,x,0.75,0,1,0,1,0,0,0", "'x'"),
        ("short,xclick,/m/01,1,0,1,0,1,0,1,0,0,0", "5-byte"),
    ],
)
@pytest.mark.parametrize("number", [2, 777, 1001])
def test_damaged_lines_are_named(tmp_path, broken, what, number, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 9_000)
    monkeypatch.setattr(tables, "_SCAN_BLOCK", 7_000)
    lines = [f"{i:016x},xclick,/m/01,1,0.5,0.75,0,1,0,1,0,0,0" for i in range(1000)]
    lines[number - 2] = broken.format(id="0" * 16)
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join([BOX_HEADER, *lines]) + "\n")
    with pytest.raises(UserError, match=rf"line {number} is damaged \(.*{what}.*delete the file"):
        tables.convert(path, tmp_path / "boxes.parquet", tables.BOXES)
    assert [file.name for file in tmp_path.iterdir()] == ["boxes.csv"]
    with pytest.raises(UserError, match=rf"line {number} is damaged"):
        tables.scan(path, tables.BOXES, ["/m/01"])


def test_image_lists_with_commas_quotes_and_line_breaks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 120)
    titles = ["plain", "a, b", 'say ""hi""', "two\nlines", "", "NA", "ünïcode"] * 9
    header = ",".join(releases.IMAGE_COLUMNS)
    rows = [f'{i:016x},train,http://h/{i}.jpg,l,by,p,Me,"{title}",{i},m,,{"" if i % 3 else 90.0}' for i, title in enumerate(titles)]
    path = tmp_path / "images.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    assert tables.convert(path, tmp_path / "images.parquet", tables.IMAGES) == len(titles)
    ids = [f"{i:016x}" for i in range(0, len(titles), 2)]
    found = tables.query(tmp_path / "images.parquet", "ImageID", ids).to_pandas().sort_values("ImageID")
    assert list(found["Title"]) == [title.replace('""', '"') for title in titles[::2]]
    assert list(found["Rotation"]) == [0.0 if i % 3 else 90.0 for i in range(0, len(titles), 2)]
