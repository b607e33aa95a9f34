"""Scenes from features: planted ones are found, none where there are none, whatever the order, the scale and other photos."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data.capture import Captures
from imgclf.probes.scenes import CUT, find

DIMENSIONS = 24


def planted(seed: int, classes: int = 4, scenes: int = 24, shots: int = 1, spread: float = 0.25, looks: int = 1):
    """Features of `scenes` scenes a class, of `shots` shots each, and the scene of each; scenes lie around one of a class's `looks`."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(0, 1, (classes, 1, DIMENSIONS)) + rng.normal(0, 0.7, (classes, looks, DIMENSIONS))
    look = rng.integers(0, looks, (classes, scenes))
    scene = np.take_along_axis(middle, look[..., None], 1) + rng.normal(0, 0.7, (classes, scenes, DIMENSIONS))
    shot = scene[:, :, None] + rng.normal(0, spread, (classes, scenes, shots, DIMENSIONS))
    features = (shot + 3).reshape(-1, DIMENSIONS).astype(np.float32)
    number = np.repeat(np.arange(classes * scenes), shots)
    return features, np.repeat(np.arange(classes), scenes * shots), number, [f"{row:05d}.jpg" for row in rng.permutation(len(number))]


def pairs(one: np.ndarray) -> int:
    return int((np.unique(one, return_counts=True)[1] * (np.unique(one, return_counts=True)[1] - 1) // 2).sum())


def precision_and_recall(names: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Of pairs of photos."""
    own = np.unique([name or f"#{row}" for row, name in enumerate(names)], return_inverse=True)[1]
    both = pairs(own * (truth.max() + 1) + truth)
    return both / max(1, pairs(own)), both / max(1, pairs(truth))


@pytest.mark.parametrize("shots", [2, 3, 5, 9])
@pytest.mark.parametrize("spread", [0.05, 0.2])
@pytest.mark.parametrize("looks", [1, 3])
def test_planted_scenes_are_found(shots, spread, looks):
    features, labels, truth, ids = planted(shots, shots=shots, spread=spread, looks=looks)
    found = find(features, labels, ids)
    precision, recall = precision_and_recall(found.names, truth)
    assert precision > 0.9
    assert recall > 0.9
    assert set(found.why) == set(found.distance) == set(found.names) - {""}
    assert {reason for why in found.why.values() for reason in why} == {"similarity"}


@pytest.mark.parametrize("looks", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_where_no_photo_repeats_none_is_found_and_looks_are_no_scenes(seed, looks):
    features, labels, _, ids = planted(seed, scenes=60, looks=looks)
    found = find(features, labels, ids)
    shots = np.unique(found.names[found.names != ""], return_counts=True)[1]
    assert shots.max(initial=0) <= 3  # of looks of 15 to 60 photos
    assert shots.sum() / len(ids) < (0.08 if looks < 4 else 0.25)  # 15 photos are few to tell a look from a scene by


def test_random_features_have_no_scenes():
    rng = np.random.default_rng(0)
    found = find(rng.normal(0, 1, (400, 16)).astype(np.float32), np.repeat(np.arange(4), 100), [f"{row}" for row in range(400)])
    assert (found.names != "").mean() < 0.02


def test_bursts_in_one_class_only_are_found_there():
    features, labels, truth, ids = planted(1, shots=4, spread=0.1)
    keep = (labels == 2) | (np.arange(len(labels)) % 4 == 0)  # other classes keep one shot of each scene
    found = find(features[keep], labels[keep], np.array(ids)[keep].tolist())
    assert precision_and_recall(found.names, truth[keep])[1] > 0.95
    assert (labels[keep][found.names != ""] == 2).mean() > 0.95


@settings(deadline=None, derandomize=True, max_examples=12)
@given(seed=st.integers(0, 1000), shots=st.integers(1, 5), factor=st.sampled_from([1e-3, 1.0, 2.0**10]), order=st.permutations(range(60)))
def test_neither_the_order_nor_the_scale_changes_anything(seed, shots, factor, order):
    features, labels, _, ids = planted(seed, classes=2, scenes=12, shots=5)
    features, labels, ids = features[:: 5 // shots][:60], labels[:: 5 // shots][:60], ids[:: 5 // shots][:60]
    order = [row for row in order if row < len(ids)]
    names = find(features, labels, ids).names
    again = find(factor * features[order], labels[order], [ids[row] for row in order]).names
    if factor != 1e-3:  # a power of two changes no digit
        assert again.tolist() == names[order].tolist()
    else:
        assert np.mean(again == names[order]) > 0.95


def test_small_and_odd_data():
    none = find(np.zeros((0, 4), np.float32), np.zeros(0, int), [])
    assert len(none.names) == 0
    assert find(np.ones((3, 4), np.float32), np.array([0, 0, 1]), ["a", "b", "c"]).names.tolist() == ["", "", ""]
    same = find(np.ones((20, 4), np.float32), np.repeat([0, 1], 10), [f"{row:02}" for row in range(20)])
    assert set(same.names) in ({""}, {"00", "10"})  # copies of one photo: all of a class, or nothing that can be told
    blank = find(np.zeros((20, 4), np.float32), np.repeat([0, 1], 10), [f"{row:02}" for row in range(20)])
    assert len(blank.names) == 20


def taken(count: int, camera: np.ndarray | None = None, seconds: np.ndarray | None = None, number: np.ndarray | None = None) -> Captures:
    none = np.full(count, -1)
    return Captures(
        none if camera is None else camera,
        np.full(count, np.nan) if seconds is None else seconds,
        none if number is None else np.zeros(count, int),
        none if number is None else number,
    )


def test_times_join_bursts_and_draw_similar_photos_nearer():
    features, labels, truth, ids = planted(3, scenes=30, shots=3, spread=0.55)
    count = len(truth)
    plain = precision_and_recall(find(features, labels, ids).names, truth)
    minute = taken(count, np.zeros(count, int), truth * 3600.0 + np.tile([0.0, 20.0, 40.0], count // 3))
    closer = find(features, labels, ids, minute)
    assert precision_and_recall(closer.names, truth)[1] > plain[1] + 0.1
    assert any(why == ("similarity", "time") for why in closer.why.values())
    burst = taken(count, np.zeros(count, int), truth * 3600.0 + np.tile([0.0, 2.0, 4.0], count // 3))
    assert precision_and_recall(find(features, labels, ids, burst).names, truth)[1] == 1.0
    alone = taken(count, np.arange(count), np.zeros(count))  # each by a camera of its own
    assert find(features, labels, ids, alone).names.tolist() == find(features, labels, ids).names.tolist()


def test_photos_of_one_minute_that_look_different_stay_apart():
    features, labels, _, ids = planted(4, scenes=60)
    count = len(labels)
    walk = taken(count, np.zeros(count, int), np.arange(count) * 20.0)  # along a shelf: a photo of another thing every 20 seconds
    assert (find(features, labels, ids, walk).names != "").mean() < 0.1


def test_numbers_count_only_where_neighbours_look_alike():
    features, labels, truth, ids = planted(5, scenes=30, shots=3, spread=0.55)
    count = len(truth)
    plain = find(features, labels, ids)
    series = find(features, labels, ids, taken(count, number=np.arange(count)))
    assert series.about["numbers"]
    assert precision_and_recall(series.names, truth)[1] > precision_and_recall(plain.names, truth)[1]
    shuffled = np.random.default_rng(0).permutation(count)
    without = find(features, labels, ids, taken(count, number=shuffled))
    assert not without.about["numbers"]
    assert without.names.tolist() == plain.names.tolist()


def test_a_class_of_one_scene_is_left_apart():
    features, labels, truth, ids = planted(6, shots=3, spread=0.1)
    lonely = (labels != 0) | (truth < 2)
    features[truth == 0] = features[0] + np.random.default_rng(0).normal(0, 0.05, (3, DIMENSIONS))
    extra = np.tile(features[:1], (9, 1)) + np.random.default_rng(1).normal(0, 0.05, (9, DIMENSIONS))
    features = np.concatenate([features[lonely], extra]).astype(np.float32)
    labels, ids = np.concatenate([labels[lonely], np.zeros(9, int)]), [*np.array(ids)[lonely], *(f"x{row}" for row in range(9))]
    found = find(features, labels, ids, least=4)
    if found.about["classes_left_apart"]:
        assert set(found.names[labels == 0]) == {""}
    assert (found.names[labels != 0] != "").all()


@pytest.mark.slow
def test_15_000_photos_take_seconds_and_little_memory():
    features, labels, truth, ids = planted(7, classes=3, scenes=1000, shots=5, spread=0.1)
    wide = np.concatenate([features, np.random.default_rng(0).normal(0, 0.01, (len(features), 1000)).astype(np.float32)], axis=1)
    tracemalloc.start()
    start = time.process_time()
    found = find(wide, labels, ids)
    seconds, memory = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(precision_and_recall(found.names, truth)) > 0.9
    assert found.about["cut"] >= CUT / 2
    assert seconds < 120
    assert memory < 1.5e9
