"""The studies beside the package: each file's arms are valid, and what they compute themselves is right."""

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from imgclf.studies import spec


def load(root, name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, root / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "more", "arms"),
    [
        ("augmentation", "", 11),
        ("augmentation", ",model=mobilenet_v2", 11),
        ("clothing10", "", 6),
        ("doraemon_walle", "", 4),
        ("freezing", "", 12),
        ("data_size", "", 6),
        ("data_size", ",model=mobilenet_v2_035", 6),
        ("data_size", ",model=cnn", 3),
        ("precision", "", 2),
        ("fine_tuning", "", 19),
        ("fine_tuning", ",teacher=runs/teacher,arms=LP-FT+layer decay+distilled", 4),
    ],
)
def test_arms_are_valid(root, tmp_path, name, more, arms):
    weights = tmp_path / "weights"
    weights.mkdir()
    for file in ("mobilenet_v2_0.35_224_no_top.keras.h5", "mobilenet_v2_1.0_224.keras.h5"):
        (weights / file).touch()
    asked = spec.load(f"{root}/experiments/{name}.py:{tmp_path},weights={weights}{more}")
    assert asked.base.data.path == str(tmp_path)
    assert len(asked.arms) == arms
    assert len(spec.runs(asked)) == arms * asked.seeds * max(asked.folds, 1)


@pytest.fixture(scope="module")
def seeds_audit(root):
    return load(root, "seeds_audit")


def files(case, classes=3, photos=24) -> pd.DataFrame:
    rows = [(f"{c}/{i}-{k}.jpg", str(c), f"{c}/{i}.jpg", k) for c in range(classes) for i in range(photos) for k in range(case.files)]
    return pd.DataFrame(rows, columns=["id", "label", "group", "number"])


@pytest.mark.parametrize("name", ["train = validation", "augment, then split", "crops astride"])
def test_a_slip_puts_photos_on_both_sides_and_its_repair_none(seeds_audit, name):
    case = seeds_audit.CASES[name]

    def groups(splits: pd.DataFrame) -> dict[str, set[str]]:
        return {part: set(own["group"]) for part, own in splits.groupby("split")}

    slip, mended = (seeds_audit.split(files(case), case, repaired, 1) for repaired in (False, True))
    astride, apart = groups(slip), groups(mended)
    assert len(astride["train"] & astride["val"]) > 0.5 * len(astride["val"])
    assert not apart["train"] & apart["val"]
    assert astride["test"] == apart["test"]  # the same photos are kept away from both
    for found in (astride, apart):
        assert not found["test"] & (found["train"] | found["val"])
        assert len(found["test"]) == 24
    if name == "train = validation":
        assert astride["train"] == astride["val"]
        assert set(mended["number"]) == {0}
    other = groups(seeds_audit.split(files(case), case, True, 2))
    assert other["test"] != apart["test"]


def test_accuracies_are_of_all_answers_and_their_intervals_of_photos(seeds_audit):
    rng = np.random.default_rng(0)

    def answers(repeats: int) -> list[pd.DataFrame]:
        right = rng.uniform(size=200) < 0.7
        frames = [pd.DataFrame({"split": "test", "group": np.arange(200).astype(str), "correct": right.astype(int)})] * repeats
        val = frames[0].assign(split="val", correct=1)
        return [pd.concat([*frames, val])] * 2

    one, many = (seeds_audit.accuracies(answers(repeats)) for repeats in (1, 5))
    for found in (one, many):
        assert found["claimed"] == 1
        assert found["slip"] == pytest.approx(1 - found["honest"])
        low, high = found["honest_ci95"]
        assert low < found["honest"] < high
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 200), rel=0.15)  # five files of a photo are no five photos


def test_heads_of_both_losses_classify_and_a_second_softmax_is_another_loss(seeds_audit):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 40)
    features = (rng.normal(size=(160, 8)) + 3 * np.eye(4, 8)[labels]).astype(np.float32)
    logits = [
        seeds_audit.fit_head(features, labels, 4, twice=twice, learning_rate=0.01, epochs=20, seed=0)(features) for twice in (False, True)
    ]
    for found in logits:
        assert (found.argmax(1) == labels).mean() > 0.85
    assert np.abs(logits[0] - logits[1]).max() > 0.1


@pytest.mark.slow  # a minute and more of commands that train
def test_a_minute_of_the_soak_ends_with_the_same_bits_and_goes_on_where_it_was_stopped(root, color_folder, tmp_path):
    command = [sys.executable, "experiments/benchmarks/soak.py", str(color_folder), str(tmp_path), "--every", "15", "--hours"]
    for hours, rounds in (("0.001", 1), ("0.0011", 1)):
        done = subprocess.run([*command, hours], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        record = json.loads((tmp_path / "record.json").read_text())
        assert (record["rounds"], record["amiss"]) == (rounds, [])
    assert record["befell"]
    assert record["starts of this script"] == 2
    assert not os.path.ismount(tmp_path / "disk")
