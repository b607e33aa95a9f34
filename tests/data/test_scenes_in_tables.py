"""Bursts by their times, the names of scenes, and classes that are left apart."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data.capture import Captures
from imgclf.data.scenes import Scenes, bursts, components, leave_small_classes, named, with_scenes
from imgclf.data.scenes import given as given_scenes
from imgclf.data.table import Dataset

properties = settings(deadline=None, derandomize=True, max_examples=60)


def times(seconds: list[float], cameras: list[int] | None = None) -> Captures:
    none = np.full(len(seconds), -1)
    camera = np.zeros(len(seconds), np.int64) if cameras is None else np.array(cameras)
    return Captures(camera, np.array(seconds, float), none, none)


def test_a_burst_is_of_one_camera_and_one_class_within_seconds():
    found = times([0, 2, 4.5, 60, 61, 1, 62, np.nan], [0, 0, 0, 0, 0, 1, 0, -1])
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 0])
    cluster = components(bursts(labels, found), 8)
    joined = [set(np.flatnonzero(cluster == one).tolist()) for one in np.unique(cluster)]
    assert {frozenset(rows) for rows in joined if len(rows) > 1} == {frozenset({0, 1, 2}), frozenset({3, 4})}


@properties
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_names_depend_on_the_members_only(cluster, random):
    cluster = np.array(cluster)
    ids = [f"photo {row}" for row in range(len(cluster))]
    random.shuffle(ids)
    names = named(cluster, ids)
    for one in np.unique(cluster):
        rows = np.flatnonzero(cluster == one)
        assert set(names[rows]) == ({min(ids[row] for row in rows)} if len(rows) > 1 else {""})
    order = list(range(len(cluster)))
    random.shuffle(order)
    renumbered = (7 - cluster)[order]
    assert named(renumbered, [ids[row] for row in order]).tolist() == names[order].tolist()


def test_a_class_of_too_few_scenes_is_taken_apart():
    labels = np.array([0] * 8 + [1] * 4 + [2] * 3)
    cluster = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 10, 11])
    kept, apart = leave_small_classes(cluster, labels, 4)
    assert apart.tolist() == [1]
    assert named(kept, [f"{row:02}" for row in range(15)]).tolist() == ["00", "00"] + [""] * 13
    assert leave_small_classes(cluster, labels, 2)[1].tolist() == []


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a", "a", "b", "b", "b", ""], "Found 2 scenes of 2 to 3 shots among 6 photos (5 of them); the shots of each stay on one side."),
        (["a", "a"], "Found 1 scene of 2 shots among 2 photos (all of them); its shots stay on one side."),
        (["", ""], "Found no scenes of several shots among 2 photos."),
    ],
)
def test_what_was_found_is_one_sentence(names, sentence):
    assert Scenes(np.array(names, object), {}).sentence() == sentence


def test_scenes_that_the_data_name():
    found = given_scenes(["x", "x", "alone", ""])
    assert found.names.tolist() == ["x", "x", "", ""]
    assert found.why == {"x": ("given",)}


def test_the_column_stands_beside_the_group():
    table = pd.DataFrame({"id": ["a", "b"], "group": ["", ""], "sha256": ["0", "1"]})
    found = with_scenes(Dataset(table, (), pd.DataFrame(), {}, None), ["s", "s"])  # type: ignore[arg-type]
    assert list(found.table) == ["id", "group", "scene", "sha256"]
    assert list(with_scenes(found, ["", "s"]).table["scene"]) == ["", "s"]
    assert list(table) == ["id", "group", "sha256"]
