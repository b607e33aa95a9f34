"""Scores that are computed a batch at a time, beside those of all logits together."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.config import default_config
from imgclf.data.table import Dataset
from imgclf.evaluation import metrics, results, streamed
from imgclf.training import evaluate
from imgclf.training.trained_model import TrainedModel, TrainProgress

AUDIT = {"dropped": [], "in_training": {}}


def problem(seed: int, sizes: dict[str, int], classes: int) -> tuple[Dataset, np.ndarray]:
    """A table with these splits, in a mixed order, and logits of all its rows, some of them equal."""
    rng = np.random.default_rng(seed)
    split = rng.permutation([name for name, size in sizes.items() for _ in range(size)])
    labels = rng.integers(0, classes, len(split)).astype(np.int32)
    names = tuple(f"class {label}" for label in range(classes))
    ids = [f"{row}.jpg" for row in range(len(split))]
    table = pd.DataFrame({"id": ids, "class_name": [names[label] for label in labels], "label": labels, "split": split, "group": ""})
    logits = np.round(2 * rng.normal(size=(len(split), classes)) + 2 * np.eye(classes)[labels], 1).astype(np.float32)
    return Dataset(table, names, pd.DataFrame(columns=["id", "reason", "detail"]), {}, None), logits


def model(dataset: Dataset, logits: np.ndarray, batch: int) -> TrainedModel:
    split = dataset.table["split"].to_numpy()

    def logits_of(name):
        rows = np.flatnonzero(split == name)
        return rows, logits[rows]

    def blocks_of(name, only):
        rows = np.flatnonzero(split == name) if only is None else only
        for first in range(0, len(rows), batch):
            yield rows[first : first + batch], logits[rows[first : first + batch]]

    progress = TrainProgress(best_value=0.5, kept="best")
    return TrainedModel({}, {}, {"params_sha256": ""}, progress, 3, logits_of, blocks_of=blocks_of)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 7), st.sampled_from(["test", "val"]), st.integers(1, 50), st.booleans())
def test_a_streamed_score_is_the_dense_one(seed, classes, split, batch, adjusted):
    dataset, logits = problem(seed, {"train": 5, "val": 30, "test": 40}, classes)
    config = default_config()
    config.eval.split, config.eval.logit_adjustment = split, float(adjusted)
    trained = model(dataset, logits, batch)
    expected, table = results.score(config, dataset, trained, AUDIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "LARGE", 30 * classes)  # all of val fits
        if split == "val":
            patch.setattr(evaluate, "is_large", lambda examples, classes: True)
        found, streamed_table = results.score(config, dataset, trained, AUDIT)
    assert found["roc_auc"] is None
    assert found["roc_auc_note"] == streamed.NO_ROC
    for name, value in expected.items():
        if not name.startswith("roc_auc"):
            assert found[name] == value, name
    pd.testing.assert_frame_equal(streamed_table, table)


def test_temperature_and_threshold_are_fitted_on_as_many_as_fit_evenly_spaced(monkeypatch):
    dataset, logits = problem(0, {"train": 5, "val": 100, "test": 300}, 5)
    monkeypatch.setattr(evaluate, "LARGE", 5 * 25)
    monkeypatch.setattr(streamed, "FITTED", 5 * 25)
    found, _ = results.score(default_config(), dataset, model(dataset, logits, 16), AUDIT)
    assert found["calibration"]["n"] == found["conformal"]["n"] == 25
    assert found["n"] == 300
    fitted = streamed.fitted(model(dataset, logits, 16).blocks_of, dataset, np.zeros(5, np.float32))
    rows = np.flatnonzero(dataset.table["split"] == "val")
    np.testing.assert_array_equal(fitted.logits[[0, -1]], logits[rows[[0, -1]]])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_the_pairs_of_many_classes_are_those_of_the_matrix(said):
    labels, predicted = np.array(said).T
    dense = np.array(metrics.confusion(labels, predicted, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "DENSE_CLASSES", 4)
        sparse = metrics.confusion(labels, predicted, 5)
    again = np.zeros((5, 5), int)
    again[sparse["true"], sparse["predicted"]] = sparse["count"]
    np.testing.assert_array_equal(again, dense)
    assert list(zip(sparse["true"], sparse["predicted"], strict=True)) == sorted(set(said))


def test_judgements_of_blocks_are_those_of_all_together():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 50).astype(np.float32)
    labels = rng.integers(0, 4, 50)
    whole = metrics.judge(probabilities, labels)
    blocks = metrics.Judgement.joined([metrics.judge(probabilities[i : i + 7], labels[i : i + 7]) for i in range(0, 50, 7)])
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(blocks, field.name), getattr(whole, field.name))
