"""Probes: the same solutions as scikit-learn's, honest choices, and whole runs."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import threadpoolctl
from digits_experiment import digits_config
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

import imgclf
from imgclf.config import default_config
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.methods.probe import _normalized, head_logits, linear_head
from imgclf.models.heads import NormHead
from imgclf.probes import features as features_lib
from imgclf.probes import logistic
from imgclf.probes.cross_validation import CrossValidation, assign_folds, fit_linear, out_of_fold
from imgclf.probes.logistic import fit_logistic
from imgclf.probes.ridge import fit_ridge
from imgclf.training.state import split_model
from imgclf.workflows import train as experiment


def blobs(n: int, width: int, classes: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    centres = rng.normal(size=(classes, width)) * spread
    return (centres[labels] + rng.normal(size=(n, width))).astype(np.float32), labels


def sklearn_logistic(x, labels, l2, weight) -> LogisticRegression:
    model = LogisticRegression(C=1 / (l2 * weight.sum()), tol=1e-5 * min(l2, 1), max_iter=50_000)
    with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):  # small products: threads only wait for each other
        warnings.simplefilter("ignore")  # lbfgs complains where float64 ends
        return model.fit(x.astype(np.float64), labels, sample_weight=weight)


def assert_same_solution(kernel, bias, model, classes) -> None:
    if classes == 2:
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    else:
        bias, model.intercept_ = bias - bias.mean(), model.intercept_ - model.intercept_.mean()
    assert np.linalg.norm(kernel.T - model.coef_) <= 1e-3 * np.linalg.norm(model.coef_)
    np.testing.assert_allclose(bias, model.intercept_, atol=3e-3 * max(1, np.abs(model.intercept_).max()))


@pytest.mark.parametrize(("n", "width", "classes"), [(60, 90, 4), (80, 12, 3), (50, 20, 2)])
def test_logistic_equals_scikit_learn(n, width, classes):
    @settings(max_examples=4, deadline=None)
    @given(seed=st.integers(0, 10**6), low=st.floats(-4, -1), spread=st.floats(0.1, 2))
    def check(seed, low, spread):
        x, labels = blobs(n, width, classes, seed, spread)
        rng = np.random.default_rng(seed)
        weights = np.stack([np.ones(n), rng.uniform(0.2, 3, n)])
        weights[1, labels.argsort()[::4]] = 0
        strengths = np.array([10.0**low, 1.0])  # in any order
        found = fit_logistic(x, labels, weights, strengths, classes)
        for k, weight in enumerate(weights):
            used = weight > 0
            for i, l2 in enumerate(strengths):
                model = sklearn_logistic(x[used], labels[used], l2, weight[used])
                assert_same_solution(found.kernel[k, i], found.bias[k, i], model, classes)
                ours = (x[~used] @ found.kernel[k, i] + found.bias[k, i]).argmax(1)
                assert (ours == model.predict(x[~used])).mean() > 0.98 if (~used).any() else True

    check()


def test_logistic_says_how_far_it_has_converged():
    x, labels = blobs(60, 90, 4, 0)
    weights, strengths = np.ones((2, 60)), np.array([1e-5, 0.1])  # of a shape that is compiled already
    found = fit_logistic(x, labels, weights, strengths, 4)
    wide = x.astype(np.float64)
    for i, l2 in enumerate(strengths):
        kernel = found.kernel[0, i].astype(np.float64)
        residual = scipy.special.softmax(wide @ kernel + found.bias[0, i], axis=1) - np.eye(4)[labels]
        gradient = np.concatenate([wide.T @ residual / 60 + l2 * kernel, residual.mean(0)[None]])
        assert found.gradient_norm[0, i] == pytest.approx(np.linalg.norm(gradient), rel=0.2)
        assert np.linalg.norm(gradient) <= 1.2e-3 * l2 * np.linalg.norm(kernel)


def test_subsets_in_parts_are_the_same_as_at_once(monkeypatch):
    x, labels = blobs(80, 12, 3, 1)
    weights = np.ones((2, 80))
    weights[1, ::2] = 0
    strengths = np.array([0.01, 1.0])
    together = fit_logistic(x, labels, weights, strengths, 3)
    monkeypatch.setattr(logistic, "_LOGITS", 80 * 3)
    apart = fit_logistic(x, labels, weights, strengths, 3)
    np.testing.assert_allclose(together.kernel, apart.kernel, atol=1e-3 * np.abs(apart.kernel).max())


def test_a_rotation_keeps_the_features(monkeypatch):
    monkeypatch.setattr(logistic, "_ROWS", 16)  # several blocks
    for n, width in ((40, 8), (20, 30)):
        x = blobs(n, width, 3, 2)[0]
        mean, deviation = x.mean(0), x.std(0)
        rotation = logistic.Rotation.of(x, mean, deviation)
        np.testing.assert_allclose(rotation.coordinates[:, :-1] @ rotation.axes.T, (x - mean) / deviation, atol=2e-5)
        np.testing.assert_allclose(rotation.axes.T @ rotation.axes, np.eye(rotation.axes.shape[1]), atol=1e-5)


@pytest.mark.parametrize(("n", "width"), [(30, 50), (60, 9)])
def test_ridge_equals_scikit_learn(n, width):
    x, labels = blobs(n, width, 3, 3)
    weights = np.stack([np.ones(n), np.random.default_rng(0).uniform(0, 2, n) * (np.arange(n) % 5 > 0)])
    mean, deviation = x.mean(0), x.std(0)
    strengths = np.array([1e-6, 0.01, 10.0])
    found = fit_ridge(x, labels, weights, strengths, 3, mean=mean, deviation=deviation)
    scaled = ((x - mean) / deviation).astype(np.float64)
    for k, weight in enumerate(weights):
        for i, l2 in enumerate(strengths):
            model = Ridge(alpha=l2 * weight.sum(), solver="cholesky").fit(scaled, np.eye(3)[labels], sample_weight=weight)
            np.testing.assert_allclose(found.kernel[k, i].T, model.coef_, atol=1e-4 * np.abs(model.coef_).max())
            np.testing.assert_allclose(found.bias[k, i], model.intercept_, atol=1e-4)
    assert found.gradient_norm.max() < 1e-4


def test_standardisation_is_folded_into_the_head():
    x, labels = blobs(60, 7, 3, 4)
    x = x * np.float32([1, 100, 0.01, 5, 1, 0, 1]) + np.float32([0, 1000, 3, 0, -5, 2, 0])  # one feature is constant
    plan = CrossValidation.plan(labels, None, "abc", (0.01,), 5, 0)
    found = fit_linear(x, labels, plan)
    model = sklearn_logistic(StandardScaler().fit_transform(x.astype(np.float64)), labels, 0.01, np.ones(60))
    expected = model.decision_function(StandardScaler().fit_transform(x.astype(np.float64)))
    logits = x @ found.kernel + found.bias
    np.testing.assert_allclose(logits - logits.mean(1, keepdims=True), expected, atol=0.02)
    assert np.isfinite(found.kernel).all()


def test_a_sigmoid_unit_gives_the_same_probabilities():
    x, labels = blobs(40, 6, 2, 5)
    found = fit_linear(x, labels, CrossValidation.plan(labels, None, "ab", (0.1,), 5, 0))
    head = linear_head(found, "sigmoid")
    unit = scipy.special.expit(x @ head["kernel"] + head["bias"])[:, 0]
    np.testing.assert_allclose(unit, scipy.special.softmax(x @ found.kernel + found.bias, axis=1)[:, 1], atol=1e-5)


# ---- choosing l2 ----


def test_the_strength_of_the_lowest_loss_is_chosen_and_refitted_on_all():
    x, labels = blobs(60, 90, 3, 6, spread=0.25)
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    plan = CrossValidation.plan(labels, None, "abc", strengths, 5, 0)
    for solver in ("logistic", "ridge"):
        found = fit_linear(x, labels, plan, solver=solver, standardize=False)
        table = found.about["cross_validation"]
        assert [row["l2"] for row in table] == list(strengths)
        assert found.about["l2"] == min(table, key=lambda row: row["loss"])["l2"]
    held = np.zeros((60, 3))
    for k in range(5):
        train = plan.fold != k
        model = sklearn_logistic(x[train], labels[train], 1.0, np.ones(train.sum()))
        held[~train] = model.predict_proba(x[~train])
    row = fit_linear(x, labels, plan, standardize=False).about["cross_validation"][2]
    assert row["top1"] == (held.argmax(1) == labels).mean()
    assert row["loss"] == pytest.approx(-np.log(held[np.arange(60), labels]).mean(), rel=1e-3)


def test_ridge_outputs_are_scaled_to_be_logits():
    x, labels = blobs(90, 5, 3, 7, spread=2)
    plan = CrossValidation.plan(labels, None, "abc", (0.01,), 5, 0, "ridge")
    found = fit_linear(x, labels, plan, solver="ridge")
    logits = x @ found.kernel + found.bias
    assert -np.log(scipy.special.softmax(logits, axis=1)[np.arange(90), labels]).mean() < 0.4  # unscaled: about 0.65


def test_views_train_but_only_plain_ones_are_scored():
    x, labels = blobs(40, 6, 2, 8)
    views = np.stack([x, np.full_like(x, 100.0)], axis=1)  # views that could not be told apart
    plan = CrossValidation.plan(labels, None, "ab", (0.01, 0.1), 4, 0)
    assert fit_linear(views, labels, plan).about["cross_validation"][0]["top1"] > 0.9
    twice = fit_linear(np.stack([x, x], axis=1), labels, plan)
    np.testing.assert_allclose(twice.kernel, fit_linear(x, labels, plan).kernel, atol=2e-3 * np.abs(twice.kernel).max())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), folds=st.integers(2, 5))
def test_folds_hold_every_class_evenly_and_every_group_whole(seed, folds):
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    groups = [f"{label}-{group}" for label, group in zip(labels, rng.integers(0, 14, 60), strict=True)]
    fold = assign_folds(labels, groups, folds, seed, "abc", "")
    assert all(len(set(fold[np.array(groups) == group])) == 1 for group in groups)
    assert all(set(fold[labels == label]) == set(range(folds)) for label in range(3))
    even = assign_folds(labels, None, folds, seed, "abc", "")
    counts = np.array([np.bincount(even[labels == label], minlength=folds) for label in range(3)])
    assert counts.max() - counts.min() <= 1


def test_more_folds_than_members_is_told_with_the_way_out():
    labels = np.array([0] * 56 + [1] * 3 + [2])
    with pytest.raises(UserError, match=r"Class 'b' has 3 examples, too few for 5 folds.*config\.probe\.folds.*one config\.probe\.l2"):
        CrossValidation.plan(labels[:59], None, "ab", (0.1, 1.0), 5, 0)
    with pytest.raises(UserError, match="Class 'c' has 1 example"):
        CrossValidation.plan(labels, None, "abc", (0.1, 1.0), 2, 0)
    with pytest.raises(UserError, match="in 2 groups that must stay whole"):
        CrossValidation.plan(np.zeros(10, int), ["a"] * 5 + ["b"] * 5, "a", (0.1, 1.0), 3, 0)
    found = fit_linear(blobs(60, 7, 3, 0)[0], labels, CrossValidation.plan(labels, None, "abc", (0.1,), 5, 0))  # needs no folds
    assert found.about["l2"] == 0.1


def test_out_of_fold_probabilities_equal_scikit_learns():
    x, labels = blobs(60, 20, 3, 9)
    found = out_of_fold(x, labels, None, 0.05, 4, 1)
    fold = assign_folds(labels, None, 4, 1, "abc", "")
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(4)]
    model = LogisticRegression(C=1 / (0.05 * 45), tol=1e-8, max_iter=10_000)
    np.testing.assert_allclose(found, cross_val_predict(model, scaled, labels, cv=splits, method="predict_proba"), atol=2e-3)


def test_a_head_with_a_norm_is_solved_behind_it():
    head = NormHead((1, 1), 8, 3, rngs=nnx.Rngs(0))
    head.norm.scale[...] = np.arange(1, 9, dtype=np.float32)
    rng = np.random.default_rng(0)
    pooled, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((20, 8), (8, 3), (3,)))
    solved = split_model(head)[1] | {"logits": {"kernel": kernel, "bias": bias}}
    expected = _normalized(head, pooled) @ kernel + bias
    np.testing.assert_allclose(head_logits(head, solved, {}, pooled), expected, atol=1e-5)


# ---- whole runs ----


def probe_config(**changes):
    """A probe of the digits: of a random network, the same for every fold."""
    neutral = {"augment.rotate": 0.0, "augment.shift": (0.0, 0.0), "train.ema": 0.0}
    return digits_config(**neutral, **{"train.method": "probe", "probe.l2": (0.001, 0.1), "probe.folds": 3, **changes})


@pytest.fixture(scope="module")
def probe_run(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "probe"
    return folder, experiment.train(probe_config(), folder, console=Console(quiet=True))


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    counts, compute = [], features_lib._compute

    def counted(config, model, dataset, rows, *rest):
        counts.append(len(rows))
        compute(config, model, dataset, rows, *rest)

    monkeypatch.setattr(features_lib, "_compute", counted)
    return counts


def test_a_probe_is_a_run_like_any_other(probe_run):
    folder, results = probe_run
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["top1"] > 0.6  # of eight features of a random network
    assert (results["method"], results["steps"], results["checkpoint"]) == ("probe", 0, "checkpoints/probe")
    assert results["params_trainable"] == 8 * 10 + 10 < results["params_total"]
    assert results["probe"]["l2"] in (0.001, 0.1)
    assert len(results["probe"]["cross_validation"]) == 2
    assert "Learning curves" not in (folder / "report.html").read_text()
    assert "top-1 accuracy" in (folder / "report.html").read_text().lower()


def test_the_kept_model_predicts_what_the_run_did_from_its_features(probe_run):
    folder, results = probe_run
    classifier = imgclf.load(folder)
    dataset = load_dataset(probe_config())
    told = pd.read_csv(folder / "predictions.csv", dtype={"predicted": str}).head(40)
    rows = pd.Index(dataset.table["id"]).get_indexer(told["id"])
    predicted = classifier.predict([dataset.reader[row] for row in rows])
    assert predicted["predicted"].astype(str).tolist() == told["predicted"].tolist()
    np.testing.assert_allclose(predicted["probability"], told["probability"], atol=2e-4)
    assert results["params_sha256"] == classifier_sha256(folder, results)


def classifier_sha256(folder: Path, results: dict) -> str:
    from imgclf.training.checkpoint import load_model
    from imgclf.training.state import tree_sha256

    return tree_sha256(load_model(folder / results["checkpoint"])[0]["params"])


def test_a_second_run_and_another_fold_extract_nothing(probe_run, computed, tmp_path):
    folder, results = probe_run
    assert experiment.train(probe_config(), folder, console=Console(quiet=True)) == results
    for fold in (0, 1):
        changes = {"data.split.method": "kfold", "data.split.fold": fold}
        told = Console(record=True, width=200)
        other = experiment.train(probe_config(**changes), tmp_path / str(fold), console=told)
        assert other["params_sha256"] != results["params_sha256"]
        assert "0 computed" in told.export_text()
    assert computed == []


def test_ridge_and_given_strength(probe_run, tmp_path):
    told = Console(record=True, width=200)
    results = experiment.train(probe_config(**{"probe.solver": "ridge", "probe.l2": (0.1,)}), tmp_path, console=told)
    assert results["top1"] > 0.45
    assert "Probe: ridge, l2 0.1, as given." in told.export_text()


def test_lp_ft_starts_from_the_probe(probe_run, tmp_path):
    changes = {"train.method": "lp_ft", "train.duration": "1 steps", "optimizer.learning_rate": 1e-9, "train.eval_every": "1 steps"}
    results = experiment.train(probe_config(**changes), tmp_path, console=Console(quiet=True))
    assert results["method"] == "lp_ft"
    assert results["probe"]["l2"] == probe_run[1]["probe"]["l2"]
    assert results["top1"] == pytest.approx(probe_run[1]["top1"], abs=0.02)  # BatchNorm's statistics have moved by a step


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_minibatch_head(kind, tmp_path):
    changes = {
        "probe.solver": "minibatch",
        "model.head.kind": kind,
        "model.head.dense": (16,),
        "model.head.dropout": 0.2,
        "train.duration": "400 steps",
        "train.eval_every": "100 steps",
    }
    folder = tmp_path / "run"
    results = experiment.train(probe_config(**changes), folder, console=Console(quiet=True))
    assert results["top1"] > {"linear": 0.45, "mlp": 0.6}[kind]
    assert results["best_value"] is not None
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "val_loss" in record] == [100, 200, 300, 400]
    assert list((folder / "tensorboard").iterdir())
    assert "Learning curves" in (folder / "report.html").read_text()
    assert experiment.train(probe_config(**changes), folder, console=Console(quiet=True)) == results
    classifier = imgclf.load(folder)
    dataset = load_dataset(probe_config())
    predicted = classifier.predict([dataset.reader[row] for row in range(100)])["predicted"].astype(str)
    assert (predicted.to_numpy() == dataset.table["class_name"][:100].to_numpy(str)).mean() > 0.4


def test_distortions_without_views_bypass_the_cache(computed, tmp_path):
    changes = {"probe.solver": "minibatch", "augment.rotate": 10.0, "train.duration": "3 steps", "train.eval_every": "3 steps"}
    results = experiment.train(
        digits_config(**{"train.method": "probe", "train.ema": 0.0, **changes}), tmp_path, console=Console(quiet=True)
    )
    assert computed == []
    assert results["method"] == "fit"
    assert results["params_trainable"] < results["params_total"]
    assert results["steps"] == 3


def test_views_come_from_the_cache(computed, tmp_path):
    changes = {"probe.solver": "minibatch", "augment.rotate": 10.0, "probe.views": 1, "train.duration": "30 steps", "train.ema": 0.0}
    results = experiment.train(digits_config(**{"train.method": "probe", **changes}), tmp_path, console=Console(quiet=True))
    assert results["method"] == "probe"
    train = (pd.read_parquet(tmp_path / "dataset.parquet")["split"] == "train").sum()
    assert computed[-1] == train  # the views of the training images; the plain ones are there already


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.head.kind": "mlp"}, "probe.solver='minibatch'"),
        ({"model.head.kind": "mlp", "model.head.flatten": True, "probe.solver": "minibatch"}, "train.method='fit'"),
        ({"model.head.kind": "avgmax"}, "head.kind='linear'"),
        ({"probe.l2": (0.1, -1.0)}, "config.probe.l2"),
        ({"probe.solver": "lbfgs"}, "logistic"),
        ({"probe.folds": 1}, "2 or more"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        experiment.train(probe_config(**changes), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_probe_on_real_features_equals_scikit_learns(shared, tmp_path):
    pytest.importorskip("h5py")
    config = default_config()
    config.data.path, config.data.image_size = str(shared / "data/clothing10"), (96, 96)
    config.data.split.fractions = (1.0, 0.0, 0.0)
    config.model.name = "mobilenet_v2_035"
    config.model.weights = f"path:{shared}/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
    config.train.method, config.probe.l2 = "probe", (1 / 600,)  # scikit-learn's C = 1
    results = experiment.train(config, tmp_path / "run", console=Console(quiet=True))
    dataset = load_dataset(config)
    from imgclf import models
    from imgclf.config import get_config

    saved = get_config(str(tmp_path / "run/config.json"))
    x = features_lib.extract(saved, models.create(saved, 10), dataset)
    train = (dataset.table["split"] == "train").to_numpy()
    labels = dataset.table["label"].to_numpy()
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    model = sklearn_logistic(scaler.transform(x[train].astype(np.float64)), labels[train], 1 / 600, np.ones(600))
    assert results["top1"] == pytest.approx(model.score(scaler.transform(x[~train].astype(np.float64)), labels[~train]), abs=1e-9)
    assert results["top1"] > 0.5
