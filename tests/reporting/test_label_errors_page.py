"""The page of suspected labels: corrections are made in it, and saved as a patch that training takes."""

import time

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from written_runs import HOSTILE, digits_dataset

from imgclf.config import default_config
from imgclf.data import label_patch
from imgclf.evaluation.label_errors import Suspects
from imgclf.reporting import label_errors as page_lib

IDS = 'a, "b"/<img src=x onerror=alert(2)>{row}\'.jpg'
COMMAND = "imgclf train finetune:photos --set data.label_patch=out/labels.patch.csv"


@pytest.fixture
def written(tmp_path):
    """The data, the page and the patch: three suspects, and one label that was decided before."""
    dataset, _ = digits_dataset(HOSTILE, IDS, 4)
    rows, labels = np.array([3, 7, 20]), dataset.table["label"].to_numpy()
    belief = np.array([0.9, 0.8, 0.7], np.float32)
    suspects = Suspects(rows, (labels[rows] + 1) % 4, belief, 1 - belief, 3)
    before = dataset.table.iloc[[50]]
    decided = pd.DataFrame({"id": before["id"], "label": [HOSTILE[0]], "remark": ["mine"]})
    of = page_lib.identity(dataset, default_config())
    page, patch = page_lib.write(tmp_path / "out", dataset, suspects, decided, of, COMMAND, Console(quiet=True))
    return dataset, page, patch


def test_the_page_names_the_patch_with_its_folder_and_the_command(written, tmp_path):
    _, page, patch = written
    text = page.read_text()
    assert patch == tmp_path / "out" / "labels.patch.csv"
    assert f"<code>{patch}</code>" in text
    assert f"{COMMAND}</code>" in text


@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_quiet_and_fits(browser, written, width):
    assert browser.open(written[1], width) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelectorAll('[onerror]').length") == 0


def test_corrections_are_chosen_and_saved_as_a_patch_that_training_takes(browser, written, tmp_path):
    dataset, page, patch = written
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    assert browser.open(page) == []
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    lists = "document.querySelectorAll('select')"
    assert browser.evaluate(f"[...{lists}].map(list => list.options.length)") == [3, 3, 3]  # undecided, suggested, given
    choose = f"""(number, name) => {{ const list = {lists}[number]; list.dispatchEvent(new Event('focus')); list.value = name;
        list.dispatchEvent(new Event('change')); return list.value; }}"""
    third = next(
        name for name in HOSTILE if name not in (dataset.table["class_name"].iat[3], HOSTILE[(dataset.table["label"].iat[3] + 1) % 4])
    )
    given = dataset.table["class_name"].iat[7]
    for number, name in ((0, third), (1, given)):
        assert browser.evaluate(f"({choose})({number}, {page_lib.pages.as_json(name)})") == name
    assert browser.evaluate("document.getElementById('decided').textContent") == "3 of 4 labels decided, 2 not saved yet"
    browser.evaluate("document.getElementById('download').click()")
    saved = downloads / "labels.patch.csv"
    for _ in range(100):
        if saved.exists() and saved.stat().st_size:
            break
        time.sleep(0.1)
    assert browser.evaluate("document.getElementById('decided').textContent") == "3 of 4 labels decided"
    expected = label_patch.read(patch)
    expected.loc[1:2, "label"] = [third, given]
    pd.testing.assert_frame_equal(label_patch.read(saved), expected)
    assert (expected["label"] == "").sum() == 1
    corrected = label_patch.apply(dataset.table, dataset.class_names, str(saved))
    assert corrected["class_name"].iloc[[3, 7, 50]].tolist() == [third, given, HOSTILE[0]]
    assert corrected["class_name"].iat[20] == dataset.table["class_name"].iat[20]
