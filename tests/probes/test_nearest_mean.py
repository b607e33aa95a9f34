"""The nearest class mean as a linear head."""

import numpy as np
import pytest
import scipy.special
from blobs import blobs
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.probes.cross_validation import CrossValidation, fit_linear
from imgclf.probes.nearest_mean import SHARPNESS, scale_of


def head(x, labels, names, folds=5):
    return fit_linear(x, labels, CrossValidation.create(labels, None, names, (1.0, 2.0), folds, 0, "nearest_mean"), solver="nearest_mean")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), per_class=st.integers(1, 4), classes=st.integers(2, 5), lengths=st.floats(0.1, 50))
def test_an_image_goes_to_the_class_whose_mean_points_its_way(seed, per_class, classes, lengths):
    x, labels = blobs(per_class * classes, 12, classes, seed)
    x *= lengths
    found = head(x, labels, "abcde"[:classes])
    new = np.random.default_rng(seed).normal(size=(50, 12)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([unit[labels == label].mean(0) for label in range(classes)])
    cosine = new @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    np.testing.assert_array_equal((new @ found.kernel + found.bias).argmax(1), cosine.argmax(1))
    np.testing.assert_array_equal(((7 * new) @ found.kernel + found.bias).argmax(1), cosine.argmax(1))


def test_one_image_a_class_needs_no_folds_and_has_the_usual_sharpness():
    x, labels = blobs(3, 8, 3, 0, spread=3)
    found = head(x, labels, "abc")
    assert (found.about["l2"], found.about["folds"], found.about["cross_validation"]) == (None, None, None)
    length = np.linalg.norm(x, axis=1).mean()
    np.testing.assert_allclose(np.linalg.norm(found.kernel, axis=0) * length, SHARPNESS, rtol=1e-5)


def test_held_out_images_set_the_scale_and_tell_the_accuracy():
    x, labels = blobs(60, 30, 3, 1, spread=0.6)
    (row,) = head(x, labels, "abc").about["cross_validation"]
    unit, right, outputs = x / np.linalg.norm(x, axis=1, keepdims=True), 0, []
    validation = CrossValidation.create(labels, None, "abc", (1.0,), 5, 0, "nearest_mean")
    for fold in range(5):
        held = validation.fold == fold
        means = np.stack([unit[~held & (labels == label)].mean(0) for label in range(3)])
        cosine = x[held] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        right += (cosine.argmax(1) == labels[held]).sum()
        outputs.append(-np.log(scipy.special.softmax(10 * cosine, axis=1)[np.arange(held.sum()), labels[held]]))
    assert row["top1"] == pytest.approx(right / 60)
    assert row["loss"] < np.concatenate(outputs).mean()


def test_a_few_images_that_are_all_right_claim_no_certainty():
    outputs, labels = np.float32([[0.9, 0.1], [0.8, 0.1], [0.1, 0.9], [0.1, 0.8]]), np.array([0, 0, 1, 1])
    assert SHARPNESS <= scale_of(outputs, labels, np.ones(4)) < 1.5 * SHARPNESS
    many = np.tile(outputs[:, ::-1], (25, 1))  # all wrong
    assert scale_of(many, np.tile(labels, 25), np.ones(100)) < 2


def test_the_only_image_of_a_class_is_in_no_fold():
    x, labels = blobs(40, 10, 2, 3, spread=2)
    x, labels = np.concatenate([x, -5 * np.ones((1, 10), np.float32)]), np.append(labels, 2)
    for solver in ("nearest_mean", "logistic", "ridge"):
        validation = CrossValidation.create(labels, None, "abc", (0.1, 1.0), 4, 0, solver)
        assert (validation.fold[:40] >= 0).all()
        assert validation.fold[40] == -1
        found = fit_linear(x, labels, validation, solver=solver)
        assert found.about["never_held_out"] == ["c"]
        assert found.about["cross_validation"][0]["top1"] > 0.8
        assert (x[40] @ found.kernel + found.bias).argmax() == 2
    with pytest.raises(UserError, match=r"one training image.*solver='nearest_mean'"):
        CrossValidation.create(np.arange(3), None, "abc", (0.1, 1.0), 5, 0)
    with pytest.raises(UserError, match=r"one training image"):
        CrossValidation.create(np.arange(3).repeat(2), list("aabbcc"), "abc", (0.1, 1.0), 5, 0)  # copies of one picture each
