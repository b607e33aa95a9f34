"""Linear heads and the honest choice of their penalty."""

import numpy as np
import pytest
import scipy.special
from blobs import blobs, sklearn_logistic
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from imgclf.probes import ties
from imgclf.probes.cross_validation import CrossValidation, Scaling, fit_linear
from imgclf.probes.folds import assign_folds


def test_standardisation_is_folded_into_the_head():
    x, labels = blobs(60, 7, 3, 4)
    x = x * np.float32([1, 100, 0.01, 5, 1, 0, 1]) + np.float32([0, 1000, 3, 0, -5, 2, 0])  # one feature is constant
    validation = CrossValidation.create(labels, None, "abc", (0.01,), 5, 0)
    found = fit_linear(x, labels, validation)
    model = sklearn_logistic(StandardScaler().fit_transform(x.astype(np.float64)), labels, 0.01, np.ones(60))
    expected = model.decision_function(StandardScaler().fit_transform(x.astype(np.float64)))
    logits = x @ found.kernel + found.bias
    np.testing.assert_allclose(logits - logits.mean(1, keepdims=True), expected, atol=0.02)
    assert np.isfinite(found.kernel).all()


def test_the_strongest_penalty_near_the_lowest_loss_is_chosen_and_refitted_on_all():
    x, labels = blobs(60, 90, 3, 6, spread=0.25)
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    validation = CrossValidation.create(labels, None, "abc", strengths, 5, 0)
    for solver in ("logistic", "ridge"):
        found = fit_linear(x, labels, validation, solver=solver, scaling="none")
        table = found.about["cross_validation"]
        assert [row["l2"] for row in table] == list(strengths)
        assert found.about["l2"] >= min(table, key=lambda row: row["loss"])["l2"]
        logits = found.out_of_fold
        row = next(row for row in table if row["l2"] == found.about["l2"])
        assert row["top1"] == (logits.argmax(1) == labels).mean()
        assert row["loss"] == pytest.approx(-np.log(scipy.special.softmax(logits, axis=1)[np.arange(60), labels]).mean(), rel=1e-4)
    held = np.zeros((60, 3))
    for k in range(5):
        train = validation.fold != k
        model = sklearn_logistic(x[train], labels[train], 1.0, np.ones(train.sum()))
        held[~train] = model.predict_proba(x[~train])
    row = fit_linear(x, labels, validation, scaling="none").about["cross_validation"][2]
    assert row["top1"] == (held.argmax(1) == labels).mean()
    assert row["loss"] == pytest.approx(-np.log(held[np.arange(60), labels]).mean(), rel=3e-3)


def test_a_path_ends_where_it_no_longer_pays_and_goes_on_where_its_end_wins():
    rng = np.random.default_rng(0)
    x, labels = blobs(90, 20, 3, 1, spread=0.5)
    found = fit_linear(x, labels, CrossValidation.create(labels, None, "abc", (), 5, 0), scaling="none")
    table = found.about["cross_validation"]
    losses = [row["loss"] for row in table]
    assert 0 < int(np.argmin(losses)) < len(losses) - 1  # neither end wins, and a weaker penalty brought nothing
    assert [row["l2"] for row in table] == sorted(row["l2"] for row in table)
    assert table[0]["l2"] > 1e-6 * table[-1]["l2"]
    noise = rng.permutation(labels)  # nothing to be learnt: the strongest penalty there is
    found = fit_linear(x, noise, CrossValidation.create(noise, None, "abc", (), 5, 0), scaling="none")
    assert found.about["l2"] == found.about["cross_validation"][-1]["l2"]
    assert found.about["l2"] >= 1e3 * Scaling.of(x, "none").unit
    clean = blobs(90, 200, 3, 2, spread=5)
    found = fit_linear(*clean, CrossValidation.create(clean[1], None, "abc", (), 5, 0), scaling="none")
    assert found.about["cross_validation"][0]["l2"] < 1e-4 * Scaling.of(clean[0], "none").unit  # weaker ones win, as far as they do


@pytest.mark.parametrize(("scaling", "solver"), [("shrunk", "logistic"), ("none", "ridge"), ("standardize", "ridge")])
def test_the_choice_does_not_depend_on_the_unit_of_the_features(scaling, solver):
    x, labels = blobs(60, 20, 3, 4, spread=0.6)
    validation = CrossValidation.create(labels, None, "abc", (), 4, 0)
    plain = fit_linear(x, labels, validation, scaling=scaling, solver=solver)
    tenfold = fit_linear(10 * x, labels, validation, scaling=scaling, solver=solver)
    np.testing.assert_allclose(tenfold.out_of_fold, plain.out_of_fold, atol=0.02)
    np.testing.assert_allclose(10 * x @ tenfold.kernel + tenfold.bias, x @ plain.kernel + plain.bias, atol=0.02)


def test_a_feature_that_few_photos_have_is_not_blown_up():
    x = np.zeros((50, 3), np.float32)
    x[:, 0], x[:, 1], x[0, 2] = np.arange(50), np.arange(50) % 7, 0.001
    assert Scaling.of(x, "standardize").deviation[2] < 1e-3
    assert Scaling.of(x, "shrunk").deviation[2] > 1
    assert len(set(Scaling.of(x, "none").deviation.tolist())) == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), candidates=st.integers(1, 6), repeats=st.integers(1, 4))
def test_ties_hold_the_best_and_count_groups_not_copies(seed, candidates, repeats):
    losses = np.random.default_rng(seed).exponential(size=(candidates, 20))
    tied = ties.with_best(losses)
    assert tied[losses.mean(1).argmin()]
    np.testing.assert_array_equal(ties.with_best(losses + 3.0), tied)
    copies = np.repeat(losses, repeats, axis=1)
    np.testing.assert_array_equal(ties.with_best(copies, groups=np.repeat(np.arange(20), repeats)), tied)
    np.testing.assert_allclose(ties.standard_error(losses[0]), losses[0].std(ddof=1) / np.sqrt(20))
    assert ties.with_best(losses, groups=np.zeros(20, int)).all()  # of one scene nothing is known


def test_ridge_outputs_are_scaled_to_be_logits():
    x, labels = blobs(90, 5, 3, 7, spread=2)
    validation = CrossValidation.create(labels, None, "abc", (0.01,), 5, 0, "ridge")
    found = fit_linear(x, labels, validation, solver="ridge")
    logits = x @ found.kernel + found.bias
    assert -np.log(scipy.special.softmax(logits, axis=1)[np.arange(90), labels]).mean() < 0.4  # unscaled: about 0.65


def test_views_train_but_only_plain_ones_are_scored():
    x, labels = blobs(40, 6, 2, 8)
    views = np.stack([x, np.full_like(x, 100.0)], axis=1)  # views that could not be told apart
    validation = CrossValidation.create(labels, None, "ab", (0.01, 0.1), 4, 0)
    assert fit_linear(views, labels, validation).about["cross_validation"][0]["top1"] > 0.9
    twice = fit_linear(np.stack([x, x], axis=1), labels, validation)
    np.testing.assert_allclose(twice.kernel, fit_linear(x, labels, validation).kernel, atol=2e-3 * np.abs(twice.kernel).max())


def test_classes_of_fewer_members_than_folds_are_held_out_too():
    labels = np.array([0] * 56 + [1] * 3 + [2])
    several = CrossValidation.create(labels, None, "abc", (0.1, 1.0), 5, 0)
    assert (several.folds, several.fold[-1]) == (5, -1)  # without its only example, class c would not be known
    assert len(set(several.fold[56:59])) == 3
    few = CrossValidation.create(np.zeros(10, int), ["a"] * 5 + ["b"] * 5, "a", (0.1, 1.0), 3, 0)
    assert few.folds == 2  # no more than groups
    assert fit_linear(blobs(60, 7, 3, 0)[0], labels, CrossValidation.create(labels, None, "abc", (0.1,), 5, 0)).about["folds"] is None


def test_out_of_fold_probabilities_equal_scikit_learns():
    x, labels = blobs(60, 20, 3, 9)
    validation = CrossValidation.create(labels, None, "abc", (0.05,), 4, 1, wanted=True)
    found = scipy.special.softmax(fit_linear(x, labels, validation).out_of_fold, axis=1)
    fold = assign_folds(labels, None, 4, 1, "abc", "")
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(4)]
    model = LogisticRegression(C=1 / (0.05 * 45), tol=1e-8, max_iter=10_000)
    np.testing.assert_allclose(found, cross_val_predict(model, scaled, labels, cv=splits, method="predict_proba"), atol=2e-3)
