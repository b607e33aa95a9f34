"""The choice among candidates by cross-validation."""

import html
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imgclf
from imgclf.config import default_config
from imgclf.workflows import run_folder
from imgclf.workflows.candidates import Candidate
from imgclf.workflows.preprocessing import undecided
from imgclf.workflows.selection import Judged, choose, sample


def judged(name: str, cost: float, logits: np.ndarray, labels: np.ndarray) -> Judged:
    return Judged.of(Candidate(name, name, {}), cost, logits, labels, np.arange(len(labels)) % 5, np.arange(len(labels)), 1.0)


def drawn(n: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return (strength * np.eye(3)[labels] + rng.normal(size=(n, 3))).astype(np.float32), labels


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations([0, 1, 2]))
def test_the_cheapest_of_those_that_are_as_good_is_chosen(seed, order):
    logits, labels = drawn(200, 2.0, seed)
    noise = np.random.default_rng(seed + 1).normal(0, 0.01, logits.shape).astype(np.float32)
    worse, _ = drawn(200, 2.0, seed)
    worse[:100] = 0
    candidates = [judged("dear", 6, logits, labels), judged("cheap", 1, 2 * logits + noise, labels), judged("worse", 0.5, worse, labels)]
    assert choose([candidates[place] for place in order]).candidate.name == "cheap"
    usual, other = judged("usual", 1, logits, labels), judged("other", 1, logits, labels)
    assert choose([usual, other, *candidates[:1]]).candidate.name == "usual"  # within noise, what is usual


def test_what_is_better_is_chosen_whatever_it_costs():
    logits, labels = drawn(300, 2.0, 0)
    weak, _ = drawn(300, 2.0, 0)
    weak[::2] = 0
    best = choose([judged("cheap", 1, weak, labels), judged("dear", 6, logits, labels)])
    row = best.row(chosen=True)
    assert (row["name"], row["chosen"], row["top1"]) == ("dear", True, (logits.argmax(1) == labels).mean())
    assert row["top1_ci95"][0] < row["top1"] < row["top1_ci95"][1]
    assert row["loss"] == pytest.approx(best.losses.mean())


def test_the_mean_of_two_ways_is_taken_where_neither_can_be_told_from_the_other():
    logits, labels = drawn(200, 3.0, 0)
    first, second = np.arange(200)[:, None] < 100, np.arange(200)[:, None] >= 100  # each way knows the answers of one half
    crop, squash = judged("crop", 1, logits * first, labels), judged("squash", 1, logits * second, labels)
    mean, blind = judged("framings", 4, logits / 2, labels), judged("crop", 1, 0 * logits, labels)
    assert undecided([crop, squash, mean]) is mean
    assert undecided([blind, squash, mean]) is None  # squash is clearly better
    assert undecided([crop, squash, blind]) is None  # the mean is clearly worse
    assert undecided([crop, squash]) is None  # not tried, as the images are many


def test_a_choice_on_many_images_is_made_by_some(color_folder):
    dataset = imgclf.load_images(color_folder, verbose=False).dataset
    table = dataset.table.assign(split="train")
    table.loc[table.groupby("label").head(1).index, "split"] = "test"
    dataset.table.update(table[["split"]])
    train = table["split"].eq("train").sum()
    assert len(sample(dataset, default_config()).table) == train
    some = sample(dataset, default_config(), most=int(train) // 2)
    counts = np.bincount(some.table["label"])
    assert len(some.table) <= train // 2
    assert counts.max() - counts.min() <= 1
    assert set(some.table["split"]) == {"train"}


def test_a_run_knows_what_it_was_chosen_from_unless_it_never_began(tmp_path):
    rows = [{"name": "a", "chosen": True}]
    with run_folder.selected(tmp_path / "run", rows):
        assert run_folder.selection(tmp_path / "run") == rows
    assert not (tmp_path / "run").exists()
    with run_folder.selected(tmp_path / "run", rows):
        (tmp_path / "run" / "config.json").write_text("{}")
    assert run_folder.selection(tmp_path / "run") == rows
    assert run_folder.selection(tmp_path) is None


@pytest.mark.slow  # real photographs
def test_create_chooses_what_the_network_is_shown(shared, tmp_path):
    data = imgclf.load_images(shared / "data" / "doraemon_walle", verbose=False)
    few = data.filter(lambda table: table.groupby("class_name").cumcount() < 24)
    few.dataset.table["split"] = ""
    weights = f"path:{shared}/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
    made = imgclf.create(few, weights=weights, workdir=tmp_path / "run", verbose=False)
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["selection"]
    assert [row["cost"] for row in rows] in ([1, 1, 4], [1, 1, 2, 4])  # where neither framing is better, their mean is taken at once
    (taken,) = (row for row in rows if row["chosen"])
    assert made.config.eval.views == {1: "plain", 2: "flip", 4: "framings"}[taken["cost"]]
    assert taken["name"] in html.unescape((tmp_path / "run" / "report.html").read_text())
    assert len(pd.read_csv(tmp_path / "run" / "predictions.csv")) == 48
    own = imgclf.create(few, weights=weights, workdir=tmp_path / "own", config={"data.resize": "pad"}, verbose=False)
    assert own.config.data.resize == "pad"  # the user has chosen
    assert json.loads((tmp_path / "own" / "results.json").read_text())["selection"] is None
