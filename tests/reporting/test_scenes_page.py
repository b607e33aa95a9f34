"""The page of scenes: hostile names, splits, the filter, small windows."""

import html

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from written_runs import HOSTILE, digits_dataset

from imgclf.data.scenes import Scenes, with_scenes
from imgclf.reporting import scenes as page_lib

IDS = 'a, "b"/<img src=x onerror=alert(2)>{row}\'.jpg'


@pytest.fixture
def found():
    """Digits of four hostile classes, of which two scenes were found, one of them on both sides of the split."""
    dataset, _ = digits_dataset(HOSTILE, IDS, 4)
    names = np.full(len(dataset.table), "", object)
    labels = dataset.table["label"].to_numpy()
    first, second = np.flatnonzero(labels == 0)[:30], np.flatnonzero(labels == 1)[:2]
    names[first], names[second] = "<first>", "second"
    dataset = with_scenes(dataset, names)
    split = np.full(len(names), "train", object)
    split[second] = ["train", "test"]
    dataset.table["split"] = split
    scenes = Scenes(
        names, {"<first>": ("similarity", "time"), "second": ("numbers",)}, {"<first>": 0.123}, {}, ("Class <b> is left apart.",)
    )
    return dataset, scenes


def test_the_page_says_what_joined_each_scene(found, tmp_path):
    dataset, scenes = found
    text = page_lib.write(tmp_path / "scenes.html", dataset, scenes, Console(quiet=True)).read_text()
    assert "onerror=alert(2)>" not in text
    assert "Class &lt;b&gt; is left apart." in text
    assert "similar pictures, taken within a minute by one camera" in text
    assert "(distance 0.12)" in text
    assert text.count("<figure>") == page_lib.SHOTS + 2
    assert "and 6 more" in text
    assert text.count('class="across"') == 1
    assert "1 scene stands on both sides" in text


def test_the_page_shows_the_shots_of_each_scene(found, tmp_path):
    dataset, scenes = found
    text = html.unescape(page_lib.write(tmp_path / "scenes.html", dataset, scenes, Console(quiet=True)).read_text())
    table = dataset.table
    shown = [*np.flatnonzero(table["scene"] == "<first>")[: page_lib.SHOTS], *np.flatnonzero(table["scene"] == "second")]
    assert not set(shown) <= set(range(len(shown)))  # they are not the first rows of the data
    assert [row for row, name in enumerate(table["id"]) if name in text] == sorted(shown)


def test_the_table_is_what_training_reads(found):
    dataset, scenes = found
    table = page_lib.table(dataset, scenes)
    assert list(table) == ["path", "label", "split", "scene", "why"]
    assert table["scene"].tolist()[:32] == ["<first>"] * 30 + ["second"] * 2 or table["scene"].tolist()[:2] == ["second"] * 2
    assert set(table["why"].iloc[:32]) == {"similarity and time", "numbers"}
    assert (table["scene"].iloc[32:] == "").all()
    assert sorted(table["path"]) == sorted(dataset.table["id"])


def test_a_page_of_no_scenes(found, tmp_path):
    dataset, _ = found
    none = np.full(len(dataset.table), "", object)
    page = page_lib.write(tmp_path / "scenes.html", with_scenes(dataset, none), Scenes(none, {}), Console(quiet=True))
    assert "None: no photo is a shot of another" in page.read_text()
    assert "<script>" not in page.read_text()
    assert isinstance(page_lib.table(with_scenes(dataset, none), Scenes(none, {})), pd.DataFrame)


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_filters_by_class(browser, found, tmp_path, width):
    dataset, scenes = found
    page = page_lib.write(tmp_path / "scenes.html", dataset, scenes, Console(quiet=True))
    assert browser.open(page, width) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelectorAll('[onerror]').length") == 0
    choose = "(name) => { choice.value = name; choice.dispatchEvent(new Event('change')); return shown.textContent; }"
    assert browser.evaluate(f"({choose})('')") == "2 of 2 scenes"
    name = browser.evaluate("choice.options[1].value")
    assert browser.evaluate(f"({choose})({name!r})" if "'" not in name else f"({choose})(choice.options[1].value)") == "1 of 2 scenes"
    assert browser.evaluate("[...document.querySelectorAll('.scene')].filter(one => one.offsetHeight > 0).length") == 1
