"""Images of none of the classes."""

import json
import shutil

import numpy as np
import pytest
from blobs import blobs
from hypothesis import given, settings
from hypothesis import strategies as st

import imgclf
from imgclf.errors import UserError
from imgclf.evaluation.open_set import FILE, OpenSet, references, write


def of(features, groups=None, classes=3):
    return OpenSet.create(features, np.arange(len(features)) if groups is None else groups, classes, "sha")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(4, 60))
def test_scores_are_the_distances_to_the_nearest_others_of_other_groups(seed, n):
    features, _ = blobs(n, 6, 2, seed)
    groups = np.array([f"g{i // 2}" for i in range(n)])
    found = of(features, groups, 2)
    unit = found.features.astype(np.float64)
    expected = []
    for i in range(n):
        others = sorted(1 - unit[i] @ unit[j] for j in range(n) if groups[j] != groups[i])
        expected.append(others[found.neighbors - 1])
    np.testing.assert_allclose(found.scores, np.sort(expected), atol=1e-5)


@pytest.mark.parametrize(("n", "cautious"), [(12, 0.15), (99, 0.05)])
def test_false_alarms_are_no_more_than_promised(n, cautious):
    rates = {0.1: [], 0.3: []}
    for seed in range(150):
        features, _ = blobs(n + 40, 5, 3, seed, spread=2)
        p = of(features[:n]).p_values(features[n:])
        for alpha, found in rates.items():
            found.append(np.mean(p <= alpha))
    for alpha, found in rates.items():
        assert alpha - cautious < np.mean(found) < alpha + 0.01 + 2 * np.std(found) / np.sqrt(len(found))


def test_what_is_unlike_all_training_images_gets_the_smallest_p_value():
    features, _ = blobs(60, 16, 3, 0)
    features[:, :8] += 6
    found = of(features)
    assert found.p_values(-features[:5]).tolist() == pytest.approx([found.smallest] * 5)
    assert (found.p_values(features) > found.smallest).all()
    assert found.p_values(features[:0]).shape == (0,)
    assert of(features[:3]).p_values(-features[:1]).tolist() == [0.25]  # three images can't speak of 5 %


def test_a_large_set_is_sampled_whatever_its_order():
    ids = np.array([f"{i}.jpg" for i in range(50)])
    kept = references(ids, 20)
    assert len(kept) == 20
    assert set(ids[kept]) == set(ids[::-1][references(ids[::-1], 20)])
    assert references(ids, 100).tolist() == list(range(50))
    assert references(ids, 0).tolist() == []


def test_predictions_tell_what_is_none_of_the_classes(color_classifier, tmp_path):
    classifier, (_, test) = color_classifier
    said = json.loads((classifier.folder / "results.json").read_text())["open_set"]
    assert said == {"n": 60, "neighbors": 3, "smallest_p": pytest.approx(1 / 61)}
    known = classifier.predict(test)
    assert known["none_of_these"].between(1 / 55, 1).all()
    strange = [np.full((40, 40, 3), grey, np.uint8) for grey in (0, 255)]  # plain black and white
    assert (classifier.predict(strange)["none_of_these"] < known["none_of_these"].median()).all()
    mixed = classifier.predict([strange[0], b"no image"], on_error="row")
    assert np.isnan(mixed["none_of_these"][1])

    moved = imgclf.load(classifier.save(tmp_path / "model"))
    assert moved.sha256 == classifier.sha256
    assert moved.predict(strange).equals(classifier.predict(strange))

    old = tmp_path / "old"  # a run from before there were such features
    shutil.copytree(classifier.folder, old)
    (old / FILE).unlink()
    before = imgclf.load(old).predict(test)
    assert "none_of_these" not in before
    np.testing.assert_allclose(before["probability"], known["probability"], rtol=1e-5)

    (old / FILE).write_bytes((classifier.folder / FILE).read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        imgclf.load(old)
    write(of(blobs(9, 5, 3, 0)[0]), old)
    with pytest.raises(UserError, match="of another model than the run's"):
        imgclf.load(old)
