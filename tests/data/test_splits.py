"""Splits: partition, fractions, whole groups, independence of row order and additions."""

import pickle
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgclf.config import Config, default_config
from imgclf.data.readers import RowsReader
from imgclf.data.splits import assign_splits, groups_of, limit_per_class, subset
from imgclf.data.table import Dataset
from imgclf.errors import UserError

SPLITS = ["train", "val", "test"]
properties = settings(deadline=None, derandomize=True, max_examples=40)


class NumberReader:
    """Every pixel of row i is i."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        return np.full((4, 6, 3), row, np.uint8)

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        return np.full((*min_size, 3), row, np.uint8)


def dataset(
    labels: Sequence[int], splits: Sequence[str] | None = None, groups: Sequence[str] | None = None, sha256: Sequence[str] | None = None
) -> Dataset:
    count = len(labels)
    classes = tuple(f"class{label}" for label in range(max(labels) + 1))
    ids = [f"{classes[label]}/{row:04d}.jpg" for row, label in enumerate(labels)]
    table = pd.DataFrame(
        {
            "id": ids,
            "source": "/photos",
            "class_name": [classes[label] for label in labels],
            "label": np.array(labels, np.int32),
            "split": list(splits) if splits is not None else [""] * count,
            "group": list(groups) if groups is not None else [""] * count,
            "sha256": list(sha256) if sha256 is not None else [f"{row:064x}" for row in range(count)],
            "width": np.full(count, 6, np.int32),
            "height": np.full(count, 4, np.int32),
            "phash": np.zeros(count, np.int64),
        }
    )
    return Dataset(table, classes, pd.DataFrame(columns=["id", "reason", "detail"]), {}, NumberReader(count))


def config(**fields) -> Config:
    config = default_config()
    config.data.split.update(fields)
    return config


def split_of(data: Dataset, **fields) -> pd.Series:
    table = assign_splits(data, config(**fields)).table
    assert set(table["split"]) <= set(SPLITS)
    assert table["split"].dtype == data.table["split"].dtype
    pd.testing.assert_frame_equal(table.drop(columns="split"), data.table.drop(columns="split"))
    return table.set_index("id")["split"]


def counts(split: pd.Series, data: Dataset) -> np.ndarray:
    """Rows per class and split, int [C, 3]."""
    return np.array(
        [[((split == name).to_numpy() & (data.table["label"] == label)).sum() for name in SPLITS] for label in range(len(data.class_names))]
    )


fractions = st.tuples(st.floats(0.3, 1), st.floats(0.1, 0.5), st.floats(0.1, 0.5)).map(lambda f: tuple(share / sum(f) for share in f))
class_sizes = st.lists(st.integers(3, 60), min_size=2, max_size=8)


@properties
@given(class_sizes, fractions, st.integers(0, 99))
def test_stratified_is_exact_per_class(sizes, shares, seed):
    data = dataset(np.repeat(np.arange(len(sizes)), sizes).tolist())
    found = counts(split_of(data, method="stratified", fractions=shares, seed=seed), data)
    ideal = np.outer(sizes, shares)
    assert (found.sum(axis=1) == sizes).all()
    assert (found >= 1).all()
    ample = ideal.min(axis=1) >= 1  # elsewhere the one that every split gets may cost another split more than rounding
    assert (np.abs(found - ideal)[ample] < 1).all()
    assert (np.abs(found - ideal) < 2).all()


def test_equal_remainders_are_shared_between_splits():
    data = dataset(np.repeat(np.arange(40), 10).tolist())
    found = counts(split_of(data, method="stratified"), data)  # 10 rows: 7, 1.5, 1.5
    assert found.sum(axis=0).tolist() == [280, 60, 60]


def test_the_largest_split_gives_where_rounding_leaves_none():
    for seed in range(5):
        data = dataset([0] * 5 + [1] * 5)
        found = counts(split_of(data, method="stratified", fractions=(0.5, 0.4, 0.1), seed=seed), data)
        assert found.tolist() == [[2, 2, 1], [2, 2, 1]]  # 2.5, 2, 0.5


@st.composite
def grouped(draw):
    """Labels and groups: most groups of one class, some of several, some rows without one."""
    rows = []
    for group in range(draw(st.integers(12, 40))):
        label = draw(st.integers(0, 2))
        size = draw(st.integers(1, 5))
        mixed = draw(st.integers(0, 5)) == 0
        rows += [((label + i * mixed) % 3, f"photo{group}" if size > 1 else "") for i in range(size)]
    labels, groups = zip(*rows, strict=True)
    return list(labels), list(groups)


@properties
@given(grouped(), st.sampled_from(["stratified", "kfold", "hash"]), st.integers(0, 9))
def test_groups_stay_whole(rows, method, seed):
    labels, groups = rows
    assume(set(labels) == {0, 1, 2})
    data = dataset(labels, groups=groups)
    try:
        split = split_of(data, method=method, seed=seed, folds=3)
    except UserError:
        assume(False)
    for _, sides in split.groupby(np.where(data.table["group"] == "", data.table["id"], data.table["group"])):
        assert sides.nunique() == 1
    if method != "hash":
        assert (counts(split, data)[np.unique(labels)] > 0).all()


def test_grouped_fractions_are_near():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 300)
    groups = np.repeat([f"photo{i}" for i in range(300)], sizes).tolist()
    labels = np.repeat(rng.integers(0, 3, 300), sizes).tolist()
    data = dataset(labels, groups=groups)
    found = counts(split_of(data, method="stratified"), data)
    ideal = np.outer(np.bincount(labels), (0.7, 0.15, 0.15))
    assert (np.abs(found - ideal) < 1).all()  # rows without a group of their own even out what large groups leave


def test_a_class_of_few_large_groups_is_still_in_every_split():
    groups = ["a"] * 30 + ["b"] + ["c"] + [""] * 20
    data = dataset([0] * 32 + [1] * 20, groups=groups)
    assert (counts(split_of(data, method="stratified"), data) > 0).all()


@pytest.mark.parametrize("method", ["stratified", "kfold"])
def test_exact_copies_never_straddle(method):
    sha256 = [f"{row // 2:064x}" for row in range(120)]  # every image twice
    groups = [f"photo{row}" if 40 <= row < 50 else "" for row in range(120)]
    data = dataset([0, 0, 1, 1] * 30, sha256=sha256, groups=groups)
    for seed in range(5):
        split = split_of(data, method=method, seed=seed)
        assert split.groupby(sha256).nunique().max() == 1
    sha256[0] = sha256[119]  # joins two units of different classes
    split = split_of(dataset([0, 0, 1, 1] * 30, sha256=sha256, groups=groups), method=method)
    assert split.groupby(sha256).nunique().max() == 1


@properties
@given(class_sizes, st.integers(0, 99), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(sizes, seed, random):
    data = dataset(np.repeat(np.arange(len(sizes)), sizes).tolist(), groups=[random.choice(["", "x", "y"]) for _ in range(sum(sizes))])
    order = list(range(sum(sizes)))
    random.shuffle(order)
    for method in ("stratified", "hash"):
        try:
            split = split_of(data, method=method, seed=seed)
        except UserError:
            continue
        pd.testing.assert_series_equal(split_of(subset(data, order), method=method, seed=seed).sort_index(), split.sort_index())


@properties
@given(st.integers(60, 150), st.integers(0, 99), st.integers(1, 50))
def test_hash_keeps_everyone_in_place_when_files_come_and_the_folder_moves(count, seed, added):
    everyone = dataset([row % 2 for row in range(count + added)])
    split = split_of(everyone, method="hash", seed=seed)
    before = subset(everyone, np.arange(added, count + added))
    before.table["source"] = "/elsewhere"
    pd.testing.assert_series_equal(split_of(before, method="hash", seed=seed), split.iloc[added:])


def test_hash_fractions_hold_on_average_and_groups_share_their_hash():
    data = dataset([row % 2 for row in range(4000)])
    share = split_of(data, method="hash").value_counts(normalize=True)
    assert [share[name] for name in SPLITS] == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    one = split_of(dataset([0, 1] * 50 + [0, 1], groups=["photo"] * 100 + ["", ""]), method="hash", fractions=(1.0, 0.0, 0.0))
    assert set(one) == {"train"}


def test_hash_is_the_same_for_ever():
    data = dataset([0, 1] * 30)
    letters = split_of(data, method="hash").map({"train": ".", "val": "v", "test": "t"})
    assert "".join(letters) == "..t.v....tvvtt.v...tv.............v.....t.tv..v..t........vt"


@properties
@given(class_sizes, st.integers(2, 3), st.integers(0, 99))
def test_folds_cover_everything_once(sizes, folds, seed):
    sizes = [size + 3 for size in sizes]
    data = dataset(np.repeat(np.arange(len(sizes)), sizes).tolist())
    splits = [split_of(data, method="kfold", folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    tested = np.sum([(split == "test").to_numpy() for split in splits], axis=0)
    assert (tested == 1).all()
    for split in splits:
        found = counts(split, data)
        assert (np.abs(found[:, 2] - np.array(sizes) / folds) < 1).all()
        assert (found[:, :2] > 0).all()


def test_kfold_without_val():
    split = split_of(dataset([0, 1] * 10), method="kfold", fractions=(0.8, 0.0, 0.2))
    assert split.value_counts().to_dict() == {"train": 16, "test": 4}


def test_given_splits_are_kept():
    splits = ["train", "train", "val", "test"] * 5
    for method in ("auto", "given"):
        assert split_of(dataset([0, 1, 0, 1] * 5, splits), method=method).tolist() == splits


def test_missing_val_is_carved_out_of_train():
    splits = ["train"] * 160 + ["test"] * 20
    groups = [f"photo{row // 4}" for row in range(160)] + [""] * 20
    data = dataset([0] * 80 + [1] * 80 + [0, 1] * 10, splits, groups)
    split = split_of(data, fractions=(0.6, 0.2, 0.2))
    assert counts(split, data).tolist() == [[60, 20, 10], [60, 20, 10]]
    assert split.iloc[:160].groupby(groups[:160]).nunique().max() == 1
    assert split_of(data, fractions=(0.8, 0.0, 0.2)).tolist() == splits
    assert (split_of(data, fractions=(0.6, 0.2, 0.2), seed=1) != split).any()


def test_missing_test_stays_missing():
    split = split_of(dataset([0, 1] * 10, (["train"] * 2 + ["val"] * 2) * 5))
    assert split.value_counts().to_dict() == {"train": 10, "val": 10}


def test_auto_draws_splits_where_there_are_none():
    data = dataset([0, 1] * 20)
    pd.testing.assert_series_equal(split_of(data), split_of(data, method="stratified"))


def test_seed_draws_another_split():
    data = dataset([0, 1] * 30)
    for method in ("stratified", "hash", "kfold"):
        assert (split_of(data, method=method) != split_of(data, method=method, seed=1)).any()


@pytest.mark.parametrize(
    ("data", "fields", "words"),
    [
        (dataset([0, 1] * 5, ["test", "val"] * 5), {}, ["test and val", "no train", "stratified"]),
        (dataset([0, 1] * 5, ["train", ""] * 5), {}, ["5 of 10", "class1/0001.jpg", "stratified"]),
        (dataset([0, 1] * 5), {"method": "given"}, ["no splits", "'hash'"]),
        (dataset([0, 1] * 5, ["train", "holdout"] * 5), {}, ["'holdout'", "rename"]),
        (dataset([0] * 9 + [1] * 2), {}, ["'class1'", "2 examples", "train and val and test", "fractions"]),
        (dataset([0] * 9 + [1] * 9, groups=[""] * 9 + ["a"] * 8 + ["b"]), {}, ["'class1'", "9 examples in 2 groups", "whole"]),
        (dataset([0] * 9 + [1] * 4), {"method": "kfold"}, ["'class1'", "4 examples", "5 folds", "lower config.data.split.folds"]),
        (dataset([0] * 9 + [1], ["train"] * 10), {}, ["'class1'", "1 example,", "train and val", "(0.85, 0, 0.15)"]),
        (dataset([0] * 9 + [1], ["train"] * 4 + ["val"] * 6), {}, ["No training example of 'class1'", "1 in other"]),
        (dataset([0, 1]), {"method": "hash"}, ["hashes into", "config.data.split.seed"]),
        # a, b, c must part, as must c, d, e and a, b, d: no place is left for d
        (dataset([0, 0, 0, 1, 1, 1, 2, 2, 2], groups=list("abccdeabd")), {"method": "stratified"}, ["several classes", "remove the class"]),
    ],
)
def test_errors_name_what_is_wrong_and_the_way_out(data, fields, words):
    with pytest.raises(UserError) as error:
        assign_splits(data, config(**fields))
    for word in words:
        assert word in str(error.value)


def test_groups_of_several_classes_are_spread():
    data = dataset([0, 1, 0, 1, 0, 1], groups=["a", "a", "b", "b", "c", "c"])
    assert (counts(split_of(data, method="stratified"), data) == 1).all()


def test_subset_renumbers_table_and_reader():
    data = subset(subset(dataset([0, 1] * 5), [9, 3, 5, 7]), [2, 0])
    assert data.table["id"].tolist() == ["class1/0005.jpg", "class1/0009.jpg"]
    assert data.table.index.tolist() == [0, 1]
    reader = pickle.loads(pickle.dumps(data.reader))
    assert isinstance(reader, RowsReader)
    assert isinstance(reader.reader, NumberReader)  # not nested
    assert len(reader) == 2
    assert [int(reader[row][0, 0, 0]) for row in range(2)] == [5, 9]
    assert reader.read(1, (2, 3)).shape == (2, 3, 3)
    assert int(reader.read(1, (2, 3))[0, 0, 0]) == 9


@properties
@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.integers(1, 12), st.integers(0, 3), st.data())
def test_subsets_per_class_are_nested_and_leave_evaluation_alone(labels, size, seed, drawn):
    assume(len(set(labels)) == max(labels) + 1)
    splits = [("train", "train", "test")[row % 3] for row in range(len(labels))]
    data = dataset(labels, splits)

    def limited(data: Dataset, per_class: int) -> pd.DataFrame:
        asked = config(seed=seed)
        asked.data.per_class = per_class
        return limit_per_class(data, asked).table

    small, large = limited(data, size), limited(data, size + drawn.draw(st.integers(0, 5)))
    assert set(small["id"]) <= set(large["id"])
    assert small.loc[small["split"] == "test", "id"].tolist() == data.table.loc[data.table["split"] == "test", "id"].tolist()
    available = np.bincount(data.table.loc[data.table["split"] == "train", "label"], minlength=3)
    assert np.bincount(small.loc[small["split"] == "train", "label"], minlength=3).tolist() == np.minimum(available, size).tolist()
    shuffled = subset(data, drawn.draw(st.permutations(range(len(labels)))))
    assert set(limited(shuffled, size)["id"]) == set(small["id"])
    assert len(limited(data, 0)) == len(data.table)


def test_groups_and_scenes_that_touch_are_one_group():
    table = dataset([0] * 7, groups=["g", "g", "", "", "h", "", ""]).table
    assert groups_of(table).tolist() == ["g", "g", table["id"][2], table["id"][3], "h", table["id"][5], table["id"][6]]
    seen = table.assign(scene=["", "s", "s", "t", "t", "", "alone"])
    smallest = table["id"][3]  # of "class0/0003.jpg" and "h"
    first = min("g", table["id"][2])
    assert groups_of(seen).tolist() == [first, first, first, smallest, smallest, table["id"][5], table["id"][6]]
    assert groups_of(seen, scenes=False).tolist() == groups_of(table).tolist()


@properties
@given(
    scenes=st.lists(st.sampled_from(["", "", "a", "b", "c", "d", "e"]), min_size=30, max_size=60),
    seed=st.integers(0, 5),
    method=st.sampled_from(["stratified", "hash", "kfold"]),
)
def test_scenes_stay_whole_in_every_drawn_split(scenes, seed, method):
    data = dataset([row % 2 for row in range(len(scenes))])
    scenes = [f"{row % 2}{scene}" if scene else "" for row, scene in enumerate(scenes)]
    seen = Dataset(data.table.assign(scene=scenes), data.class_names, data.quarantine, {}, data.reader)
    config = default_config()
    config.data.split.method, config.data.split.seed = method, seed
    config.data.split.folds, config.data.split.fractions = 3, (0.6, 0.2, 0.2)
    try:
        split = assign_splits(seen, config).table["split"]
    except UserError:  # too few scenes
        assume(False)
    sides = split[seen.table["scene"] != ""].groupby(seen.table["scene"]).nunique()
    assert (sides == 1).all()


def test_no_scene_at_all_changes_no_split():
    data = dataset([row % 3 for row in range(90)])
    empty = Dataset(data.table.assign(scene=""), data.class_names, data.quarantine, {}, data.reader)
    config = default_config()
    assert assign_splits(empty, config).table["split"].tolist() == assign_splits(data, config).table["split"].tolist()
