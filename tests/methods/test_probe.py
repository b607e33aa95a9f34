"""Probes as whole runs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from blobs import sklearn_logistic
from digits_experiment import digits_config
from networks import created
from rich.console import Console
from sklearn.preprocessing import StandardScaler

import imgclf
from imgclf.config import default_config
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.probes import features as features_lib
from imgclf.workflows import train as experiment


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

    def counted(request, *rest):
        counts.append(len(request.rows))
        compute(request, *rest)

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


@pytest.mark.parametrize(
    "changes",
    [
        {"model.head.normalize": True, "model.head.kind": "linear"},
        pytest.param({"probe.solver": "minibatch"}, marks=pytest.mark.slow),
        {"train.method": "fit", "model.head.kind": "auto"},
    ],
)
def test_several_views_count_in_training_and_in_use_alike(probe_run, changes, tmp_path):
    """A probe on mean features, a head trained in minibatches and a trained network predict what they did in their own evaluation."""
    changes = {"eval.views": "crops", "train.duration": "20 steps", "train.eval_every": "20 steps", **changes}
    results = experiment.train(probe_config(**changes), tmp_path / "run", console=Console(quiet=True))
    assert results["top1"] != probe_run[1]["top1"]
    dataset = load_dataset(probe_config())
    told = pd.read_csv(tmp_path / "run" / "predictions.csv", dtype={"predicted": str}).head(40)
    rows = pd.Index(dataset.table["id"]).get_indexer(told["id"])
    classifier, photos = imgclf.load(tmp_path / "run"), [dataset.reader[row] for row in rows]
    np.testing.assert_allclose(classifier.predict(photos)["probability"], told["probability"], atol=2e-4)
    config = classifier.config.copy_and_resolve_references()
    config.eval.views = "plain"
    plain = dataclasses.replace(classifier, config=config)
    assert np.abs(plain.predict_probabilities(photos) - classifier.predict_probabilities(photos)).max() > 1e-3
    assert plain.sha256 != classifier.sha256


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
        assert "Features of 1,797 images: 1,797 from the cache." in told.export_text()
    assert computed == []


def test_ridge_and_given_strength(probe_run, tmp_path):
    told = Console(record=True, width=200)
    results = experiment.train(probe_config(**{"probe.solver": "ridge", "probe.l2": (0.1,)}), tmp_path, console=told)
    assert results["top1"] > 0.45
    assert "Probe: ridge, l2 0.1, as given." in told.export_text()


def test_lp_ft_starts_from_the_probe(probe_run, tmp_path):
    changes = {"train.method": "lp_ft", "train.duration": "1 steps", "optimizer.learning_rate": 1e-9, "train.eval_every": "1 steps"}
    told = Console(record=True, width=200)
    results = experiment.train(probe_config(**changes, **{"augment.flip": 0.5}), tmp_path, console=told)
    assert "does nothing" not in told.export_text()  # the training that follows the probe flips
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


@pytest.mark.slow  # tests/probes/test_logistic.py compares with scikit-learn at every run
def test_a_probe_on_real_features_equals_scikit_learns(shared, tmp_path):
    config = default_config()
    config.data.path, config.data.image_size = str(shared / "data/clothing10"), (96, 96)
    config.data.split.fractions = (1.0, 0.0, 0.0)
    config.model.name = "mobilenet_v2_035"
    config.model.weights = f"path:{shared}/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
    config.train.method, config.probe.scaling, config.probe.l2 = "probe", "standardize", (1 / 600,)  # scikit-learn's C = 1
    results = experiment.train(config, tmp_path / "run", console=Console(quiet=True))
    dataset = load_dataset(config)
    from imgclf import config as config_lib

    saved = config_lib.from_json((tmp_path / "run/config.json").read_text())
    x = features_lib.extract(saved, created(saved, 10), dataset)
    train = (dataset.table["split"] == "train").to_numpy()
    labels = dataset.table["label"].to_numpy()
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    model = sklearn_logistic(scaler.transform(x[train].astype(np.float64)), labels[train], 1 / 600, np.ones(600))
    assert results["top1"] == pytest.approx(model.score(scaler.transform(x[~train].astype(np.float64)), labels[~train]), abs=1e-9)
    assert results["top1"] > 0.5
