"""The page of a data set: what it holds, what it marks, and that nothing of it is believed."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from explored import PLANTED, hostile, planted
from PIL import Image

from imgclf.errors import UserError
from imgclf.reporting import explore, pages


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return explore.write_page(planted(), tmp_path_factory.mktemp("explore") / "deep" / "page.html").read_text()


def script(page: str, name: str) -> str:
    return re.search(f'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.S).group(1)


def test_copies_conflicts_and_copies_across_splits_are_marked():
    dataset = planted()
    group, marks, groups = explore.copies(dataset, 6)
    ids = dataset.table["id"].tolist()
    for name, expected in PLANTED.items():
        assert marks[ids.index(name)] == expected, name
    assert (marks > 0).sum() == len(PLANTED)
    assert (group >= 0).sum() == len(PLANTED)
    assert [sorted(ids[row] for row in one["rows"]) for one in groups] == [
        ["a/near.png", "b/wrong.png"],
        ["a/first.png", "a/second.png"],
        ["b/leak.png", "b/original.png"],
    ]
    assert not explore.copies(dataset, -1)[1][ids.index("a/near.png")]


def test_every_image_has_its_thumbnail(page):
    dataset = planted()
    data = json.loads(script(page, "data"))
    assert data["ids"] == dataset.table["id"].tolist()
    encoded = script(page, "thumbnails").split("\n")
    assert len(encoded) == len(dataset.table)
    for row in (0, 40, len(encoded) - 1):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[row]))).convert("RGB"))
        np.testing.assert_array_equal(picture, dataset.reader[row])  # small ones are exact


def test_the_page_tells_what_was_skipped(page):
    assert "2 files skipped" in page
    assert "cut &amp; short.jpg" in page
    assert "Ignored: 3 × .DS_Store." in page


def test_names_cannot_leave_their_place(tmp_path):
    text = explore.write_page(hostile(), tmp_path / "page.html").read_text()
    assert text.count("<script") == text.count("</script>") == 3
    data = json.loads(script(text, "data"))
    assert data["ids"] == hostile().table["id"].tolist()
    assert "<img src=x" not in text
    assert "script-src &#39;" not in text


def test_large_images_get_small_thumbnails_and_fewer_larger_ones():
    rng = np.random.default_rng(0)
    picture = pages.thumbnail(rng.integers(0, 256, (400, 1000, 3), dtype=np.uint8), 96)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (96, 38)
    assert pages.edge_for(20) > pages.edge_for(400) > pages.edge_for(5000) >= pages.edge_for(10**6) >= 64


def test_only_own_pages_are_replaced(tmp_path):
    path = tmp_path / "page.html"
    first = explore.write_page(planted(), path).read_text()
    assert explore.write_page(planted(), path).read_text() == first
    path.write_text("my notes")
    with pytest.raises(UserError, match="no page of imgclf's"):
        explore.write_page(planted(), path)
    assert path.read_text() == "my notes"
    with pytest.raises(UserError, match="is a folder"):
        explore.write_page(planted(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page.html"]


def test_data_without_splits_and_of_equal_classes(tmp_path):
    dataset = planted()
    table = dataset.table.assign(split=pd.Series([""] * len(dataset.table), dtype="str"))
    text = explore.write_page(type(dataset)(table, dataset.class_names, dataset.quarantine[:0], {}, dataset.reader), tmp_path / "x.html")
    assert json.loads(script(text.read_text(), "data"))["splits"] == [""]
    assert "skipped</summary>" not in text.read_text()


def test_too_many_images_for_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "MOST", 30)
    with pytest.raises(UserError, match=r"66 images are more .* data\[::3\]"):
        explore.write_page(planted(), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
