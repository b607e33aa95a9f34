"""Planted label errors are found, the most suspicious first."""

import numpy as np
import pytest

from imgclf.errors import UserError
from imgclf.evaluation import calibration, label_errors
from imgclf.probes.cross_validation import CrossValidation, fit_linear


def test_planted_errors_are_found():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    features = np.eye(3)[labels] * 2 + rng.normal(0, 0.7, (300, 3))
    given = labels.copy()
    planted = rng.choice(300, 15, replace=False)
    given[planted] = (given[planted] + 1) % 3
    validation = CrossValidation.create(given, None, "abc", (0.01,), 5, 0, wanted=True)
    solved = fit_linear(features.astype(np.float32), given, validation)
    found = label_errors.find(calibration.probabilities(solved.out_of_fold), given)
    assert len(found.rows) <= 30
    assert np.isin(planted, found.rows).mean() >= 0.9
    hit = np.isin(found.rows, planted)
    assert (found.suggested[hit] == labels[found.rows[hit]]).mean() > 0.9
    assert (found.suggested != given[found.rows]).all()
    assert (np.diff(found.given_probability) >= 0).all()  # the most suspicious first


def test_the_limit_and_what_is_decided():
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet(np.ones(3), 200).astype(np.float32)
    labels = rng.integers(0, 3, 200)
    all_of_them = label_errors.find(probabilities, labels, limit=1.0)
    few = label_errors.find(probabilities, labels, limit=0.05)
    np.testing.assert_array_equal(few.rows, all_of_them.rows[:10])
    assert few.estimated == all_of_them.estimated == len(all_of_them.rows)
    decided = np.zeros(200, bool)
    decided[few.rows[:4]] = True
    np.testing.assert_array_equal(label_errors.find(probabilities, labels, 0.05, decided).rows, all_of_them.rows[4:14])


def test_without_cleanlab_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"cleanlab: python -m pip install 'imgclf\[labels\]'"):
        label_errors.find(np.full((4, 2), 0.5, np.float32), np.array([0, 1, 0, 1]))
