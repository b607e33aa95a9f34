"""Comparisons of runs: what is read of their folders, what is refused, and what the page shows."""

import hashlib
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from color_images import picture
from rich.console import Console
from typer.testing import CliRunner

from imgclf import config as config_lib
from imgclf.cli.commands import app
from imgclf.errors import UserError
from imgclf.workflows import previous
from imgclf.workflows.compare import compare

QUIET = Console(quiet=True)
NAMES = ("blue", "red")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "colours"
    for channel, name in ((2, "blue"), (0, "red")):
        for i in range(10):
            picture(root / name / f"{i}.png", 100 * channel + i, channel)
    return root


def write_run(folder, photos, wrong=(), *, leave_out=(), scenes=False, relabel=(), names=NAMES, **fields):
    """A finished run that was tested on all photos but some, and mistakes these."""
    folder.mkdir()
    config = config_lib.default_config()
    config.name, config.data.source, config.data.path = folder.name, "folder", str(photos)
    config.update_from_flattened_dict(fields)
    (folder / "config.json").write_text(config_lib.to_json(config))
    ids = [f"{name}/{i}.png" for name in NAMES for i in range(10)]
    table = pd.DataFrame(
        {
            "id": ids,
            "class_name": [name.partition("/")[0] for name in ids],
            "label": [NAMES.index(name.partition("/")[0]) for name in ids],
            "split": ["" if name in leave_out else "test" for name in ids],
            "sha256": [hashlib.sha256((photos / name).read_bytes()).hexdigest() for name in ids],
            "group": ["scene" if scenes and i < 4 else "" for i in range(len(ids))],
        }
    )
    table.to_parquet(folder / "dataset.parquet")
    tested = table[table["split"] == "test"]
    other = {"red": "blue", "blue": "red"}
    true = [other[c] if i in relabel else c for i, c in zip(tested["id"], tested["class_name"], strict=True)]
    said = [other[c] if i in wrong else c for i, c in zip(tested["id"], tested["class_name"], strict=True)]
    predictions = pd.DataFrame({"id": tested["id"], "true": true, "predicted": said, "probability": np.linspace(0.6, 0.99, len(said))})
    predictions.to_csv(folder / "predictions.csv", index=False)
    results = {"class_names": names, "split": "test", "params_sha256": folder.name, "params_total": 10, "train_seconds": 3.0}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_runs_are_compared_by_image_and_the_page_shows_what_flipped(photos, tmp_path):
    wrong = [f"red/{i}.png" for i in range(8)]
    a = write_run(tmp_path / "small", photos, ["blue/0.png", *wrong])
    b = write_run(tmp_path / "large", photos, ["blue/1.png"], **{"seed": 3})
    found = compare([a, b], tmp_path / "page.html", console=QUIET)
    assert found.runs["top1"].tolist() == [11 / 20, 19 / 20]
    pair = found.pairs.iloc[0]
    assert (pair["a"], pair["b"], pair["only_a"], pair["only_b"]) == ("small", "large", 1, 9)
    assert pair["difference"] == pytest.approx(0.4)
    assert pair["p"] == pytest.approx(2 * (1 + 10) / 2**10)  # McNemar's exact test of 1 against 9
    assert not pair["tie"]
    assert found.config.to_dict("list") == {"field": ["seed"], "small": [0], "large": [3]}
    assert set(found.flipped["id"]) == {"blue/0.png", "blue/1.png", *wrong}
    assert found.flipped.loc[found.flipped["id"] == "blue/1.png", ["true", "small", "large", "right"]].iloc[0].tolist() == [
        "blue",
        "blue",
        "red",
        "small",
    ]
    red = found.per_class.set_index("class").loc["red"]
    assert (red["recall_first"], red["recall"], red["difference"]) == (0.2, 1.0, 0.8)
    assert red["low"] > 0
    assert "large against small: +40.0 points" in repr(found)
    page = found.page.read_text()
    assert page.count('<img src="data:image/webp') == 10
    assert not re.search(r"""(src|href)="(?!data:|#)""", page)
    assert "<code>seed</code>" in page


def test_groups_of_any_run_are_the_sample(photos, tmp_path):
    a = write_run(tmp_path / "a", photos, [f"blue/{i}.png" for i in range(4)])
    b = write_run(tmp_path / "b", photos, scenes=True)
    found = compare([a, b], tmp_path / "page.html", console=QUIET)
    assert found.pairs["p"][0] == 1.0  # one scene of four shots that flipped together is one observation
    assert found.pairs["only_b"][0] == 4
    assert any("17 groups" in note for note in found.notes)
    blue = found.per_class.set_index("class").loc["blue"]
    assert blue["low"] < 0 < blue["high"]


def test_several_runs_are_corrected_for_their_number(photos, tmp_path):
    runs = [write_run(tmp_path / name, photos, [f"red/{i}.png" for i in range(n)]) for name, n in (("a", 0), ("b", 3), ("c", 6))]
    found = compare(runs, tmp_path / "page.html", console=QUIET)
    assert found.pairs[["a", "b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert (found.pairs["p_holm"] >= found.pairs["p"]).all()
    assert found.pairs["p_holm"][1] == pytest.approx(3 * 2 / 2**6)


def test_other_images_are_refused_unless_the_common_ones_are_wanted_and_other_labels_are_told(photos, tmp_path):
    a = write_run(tmp_path / "a", photos, leave_out=["red/0.png", "red/1.png"])
    b = write_run(tmp_path / "b", photos, leave_out=["blue/3.png"], relabel=["blue/5.png"])
    with pytest.raises(UserError, match=r"different images \(a on 18, b on 19; 17 in common\).*common=True"):
        compare([a, b], tmp_path / "page.html", console=QUIET)
    assert not (tmp_path / "page.html").exists()
    found = compare([a, b], tmp_path / "page.html", common=True, console=QUIET)
    assert found.runs["images"].tolist() == [17, 17]
    assert any(note.startswith("Compared on the 17 images") for note in found.notes)
    assert any("1 image has another label in b than in a" in note for note in found.notes)
    assert found.pairs["only_a"][0] == 0


def test_what_can_not_be_compared_is_told_in_a_sentence(photos, tmp_path):
    a = write_run(tmp_path / "a", photos)
    with pytest.raises(UserError, match="One run can't be compared with itself: name two runs or more"):
        compare([a], console=QUIET)
    with pytest.raises(UserError, match="is named twice"):
        compare([a, tmp_path / "." / "a"], console=QUIET)
    other = write_run(tmp_path / "other", photos, names=("blue", "green", "red"))
    with pytest.raises(UserError, match=r"other classes \('green' is only in other\)"):
        compare([a, other], console=QUIET)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    with pytest.raises(UserError, match=r"not the folder of a finished run \(it has no results\.json\)"):
        compare([a, unfinished], console=QUIET)
    saved = write_run(tmp_path / "saved", photos)
    pd.read_parquet(saved / "dataset.parquet", columns=["sha256", "split"]).to_parquet(saved / "dataset.parquet")
    with pytest.raises(UserError, match="saved model, which does not keep the names"):
        compare([a, saved], console=QUIET)
    (other / "predictions.csv").write_text("garbage")
    with pytest.raises(UserError, match="other is damaged"):
        compare([a, other], console=QUIET)
    said = CliRunner().invoke(app, ["compare", str(a)])
    assert isinstance(said.exception, UserError)


def test_pictures_that_are_gone_leave_the_numbers(photos, tmp_path):
    a = write_run(tmp_path / "a", photos, ["red/0.png"])
    b = write_run(tmp_path / "b", photos)
    for run in (a, b):
        config = config_lib.from_json((run / "config.json").read_text())
        config.data.path = str(tmp_path / "moved")
        (run / "config.json").write_text(config_lib.to_json(config))
    found = compare([a, b], tmp_path / "page.html", console=QUIET)
    assert len(found.flipped) == 1
    assert any(note.startswith("No pictures are shown: ") for note in found.notes)
    assert "no picture" in found.page.read_text()


def test_a_run_is_compared_with_the_last_one_beside_it_of_the_same_images(photos, tmp_path):
    other_images = write_run(tmp_path / "other-images", photos, leave_out=("red/1.png",))
    older = write_run(tmp_path / "older", photos)
    last = write_run(tmp_path / "last", photos, wrong=("red/1.png", "red/2.png", "blue/3.png"))
    elsewhere = write_run(tmp_path / "elsewhere", photos, **{"data.path": "others"})
    (tmp_path / "unfinished").mkdir()
    for age, folder in ((1, elsewhere), (2, other_images), (3, last), (4, older)):
        os.utime(folder / "results.json", (1_000_000 - age, 1_000_000 - age))
    now = write_run(tmp_path / "now", photos, wrong=("blue/4.png", "red/2.png"))
    results = json.loads((now / "results.json").read_text())
    (now / "results.json").unlink()  # it is written later
    found = previous.compare_with_previous(now, results)
    assert json.loads((now / "previous.json").read_text()) == found
    assert found["run"] == "last"
    assert (found["a"], found["b"], found["images"]) == (0.85, 0.9, 20)
    assert found["difference"] == pytest.approx(0.05)
    assert (found["only_a"], found["only_b"]) == (1, 2)
    assert found["difference_ci95"][0] < 0 < found["difference_ci95"][1]
    assert found["tie"]
    assert [(row["class"], row["before"], row["after"]) for row in found["better"]] == [("red", 0.8, 0.9)]
    assert found["worse"] == []
    assert set(found["mended"]) == {"red/1.png", "blue/3.png"}
    assert found["broken"] == ["blue/4.png"]


def test_where_there_is_no_other_run_nothing_is_compared(photos, tmp_path):
    now = write_run(tmp_path / "now", photos)
    write_run(tmp_path / "other-classes", photos, names=("blue", "green"))
    (now / "previous.json").write_text("{}")  # of a run that has gone
    assert previous.compare_with_previous(now, json.loads((now / "results.json").read_text())) is None
    assert not (now / "previous.json").exists()
