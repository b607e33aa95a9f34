"""Metrics against hand-worked examples, scikit-learn and scipy."""

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.evaluation import metrics
from imgclf.evaluation.calibration import expected_calibration_error
from imgclf.evaluation.intervals import wilson

NAMES = ("ant", "bee", "cat")
# true classes: ant ant ant bee bee cat; predicted: ant ant bee bee ant bee
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.2, 0.5, 0.3]], np.float32)
LABELS = np.array([0, 0, 0, 1, 1, 2])


def random_case(seed: int, n: int, classes: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + sharpness * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32), labels


def test_hand_worked_example():
    result = metrics.compute(PROBABILITIES, LABELS, NAMES)
    assert result["n"] == 6
    assert result["top1"] == pytest.approx(3 / 6)
    assert result["top5"] == 1.0
    assert result["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert result["per_class"] == {
        "ant": {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3},
        "bee": {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "support": 2},
        "cat": {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1},
    }
    assert result["macro_f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert result["loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.7, 0.4, 0.3]).mean(), rel=1e-6)
    # ant .8 .6 .3 above .2 .5 .2: 8 of 9 pairs; bee .7 .4 against .1 .3 .5 .5: 4 + 2 of 8; cat .3 above all five
    assert result["roc_auc"] == pytest.approx((8 / 9 + 6 / 8 + 1) / 3)
    assert result["roc_auc_note"] is None
    assert result["top1_ci95"] == pytest.approx([0.18761, 0.81239], abs=1e-5)  # 3 of 6: published Wilson interval 0.188 to 0.812


def test_balanced_accuracy_is_the_mean_of_the_recalls():
    result = metrics.compute(PROBABILITIES, LABELS, NAMES)
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    low, high = result["balanced_accuracy_ci95"]
    assert 0 <= low < result["balanced_accuracy"] < high <= 1


def test_lopsided_classes_have_both_accuracies_in_the_headline():
    labels = np.array([0] * 40 + [1] * 4)
    said = np.where(np.arange(44)[:, None] < 42, [0.9, 0.1], [0.2, 0.8]).astype(np.float32)
    result = metrics.compute(said, labels, "ab")
    assert metrics.headline(result).replace("\u00a0", " ").endswith("42 of 44 images right); balanced accuracy 75.0 % (57.0–92.5 %)")
    even = metrics.compute(said[36:], labels[36:], "ab")
    assert "balanced" not in metrics.headline(even)


def test_the_headline_claims_nothing_where_nothing_was_held_out():
    results = {"split": "train", "top1": 1.0, "n": 1, "top1_ci95": (0.2, 1.0)}
    told = "1 of 1 training image right, all of which it was trained on: none was held out, so that nothing is known of new ones"
    assert metrics.headline(results) == told


def test_the_headline_is_a_sentence():
    results = {"top1": 350 / 360, "n": 360, "top1_ci95": wilson(350, 360), "split": "test"}
    assert metrics.headline(results).replace("\u00a0", " ") == "97.2 % (95 % interval 95.0–98.5 %, 350 of 360 test images right)"


def test_calibration_hand_worked():
    # two bins: (0, .5] holds .4 (wrong), .5 (right): confidence .45, accuracy .5; (.5, 1] holds .9 .7 (both right): .8 against 1
    error, bins = expected_calibration_error(np.array([0.4, 0.5, 0.9, 0.7]), np.array([False, True, True, True]), bins=2)
    assert error == pytest.approx((2 * 0.05 + 2 * 0.2) / 4)
    assert bins[0] == {"lo": 0.0, "hi": 0.5, "n": 2, "confidence": pytest.approx(0.45), "accuracy": 0.5}
    assert bins[1] == {"lo": 0.5, "hi": 1.0, "n": 2, "confidence": pytest.approx(0.8), "accuracy": 1.0}
    empty = expected_calibration_error(np.array([0.99]), np.array([True]))[1][0]
    assert (empty["n"], empty["confidence"], empty["accuracy"]) == (0, None, None)


def test_top5_counts_the_first_five_of_more_classes():
    probabilities = np.array([[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]] * 7, np.float32)
    result = metrics.compute(probabilities, np.arange(7), [str(i) for i in range(7)])
    assert (result["top1"], result["top5"]) == (pytest.approx(1 / 7), pytest.approx(5 / 7))


def test_ties_go_to_the_lower_class_everywhere():
    probabilities = np.full((6, 6), 1 / 6, np.float32)
    names = list("abcdef")
    result = metrics.compute(probabilities, np.arange(6), names)
    assert (result["top1"], result["top5"]) == (pytest.approx(1 / 6), pytest.approx(5 / 6))
    assert result["roc_auc"] == 0.5
    frame = metrics.predictions([str(i) for i in range(6)], probabilities, np.arange(6), names, 6)
    assert frame.loc[0, [f"top{i}" for i in range(1, 7)]].tolist() == names


@pytest.mark.parametrize(("seed", "n", "classes", "sharpness"), [(0, 200, 2, 1.0), (1, 300, 7, 0.5), (2, 500, 12, 2.0), (3, 40, 3, 8.0)])
def test_agrees_with_scikit_learn(seed, n, classes, sharpness):
    probabilities, labels = random_case(seed, n, classes, sharpness)
    names = [f"class {i}" for i in range(classes)]
    result = metrics.compute(probabilities, labels, names)
    predicted = probabilities.argmax(1)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for i, name in enumerate(names):
        row = result["per_class"][name]
        assert (row["precision"] or 0.0, row["recall"], row["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
        assert row["support"] == support[i]
    assert result["top1"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert result["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predicted, average="macro"))
    assert result["confusion"] == sklearn.metrics.confusion_matrix(labels, predicted).tolist()
    exact = probabilities.astype(np.float64)
    assert result["loss"] == pytest.approx(sklearn.metrics.log_loss(labels, exact / exact.sum(1, keepdims=True)), rel=1e-5)
    scores = probabilities[:, 1] if classes == 2 else exact / exact.sum(1, keepdims=True)
    assert result["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-9)
    if classes > 5:
        assert result["top5"] == pytest.approx(sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5))


def test_classes_without_examples_are_none_and_leave_the_averages():
    labels = np.array([0, 0, 0, 1, 1, 1])
    result = metrics.compute(PROBABILITIES[:, [0, 1, 2]], labels, NAMES)
    assert result["per_class"]["cat"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert result["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, PROBABILITIES.argmax(1), labels=[0, 1], average="macro"))
    assert "1 of 3 classes" in result["roc_auc_note"]


def test_roc_auc_is_none_with_the_reason_for_one_class():
    result = metrics.compute(PROBABILITIES, np.zeros(6, int), NAMES)
    assert result["roc_auc"] is None
    assert "'ant'" in result["roc_auc_note"]


def test_zero_probability_of_the_truth_gives_a_finite_loss():
    result = metrics.compute(np.array([[1.0, 0.0]], np.float32), np.array([1]), ["a", "b"])
    assert result["loss"] == pytest.approx(87.3365, abs=1e-3)  # -log of float32's smallest normal number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y, n: (p[:0], y[:0], n), "no examples"),
        (lambda p, y, n: (p, y[:5], n), "fit together"),
        (lambda p, y, n: (p[:, :2], y, n), "fit together"),
        (lambda p, y, n: (np.log(p), y, n), "logits"),
        (lambda p, y, n: (p * np.nan, y, n), "logits"),
        (lambda p, y, n: (p, y + 1, n), "lie in"),
        (lambda p, y, n: (p, y - 1, n), "lie in"),
        (lambda p, y, n: (p, y, ["ant", "bee", "ant"]), "distinct"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        metrics.compute(*change(PROBABILITIES, LABELS, NAMES))


def test_an_example_counted_twice_is_refused():
    metrics.compute(PROBABILITIES, LABELS, NAMES, index=np.arange(6))
    with pytest.raises(ValueError, match="already counted"):
        metrics.compute(PROBABILITIES, LABELS, NAMES, index=np.array([0, 1, 2, 3, 4, 0]))
    with pytest.raises(ValueError, match="'x' was predicted twice"):
        metrics.predictions(["x", "a", "b", "c", "d", "x"], PROBABILITIES, LABELS, NAMES, 2)


def test_predictions_frame_and_its_round_trip(tmp_path):
    names = ("NA", "null", 'a "b", c')
    frame = metrics.predictions([f"{i}.jpg" for i in range(6)], PROBABILITIES, LABELS, names, 5)
    assert list(frame.columns)[:6] == ["id", "true", "predicted", "probability", "top1", "top1_probability"]
    assert list(frame.columns)[-2:] == ["top3", "top3_probability"]  # top_k is cut to the number of classes
    assert frame.loc[2, ["true", "predicted", "top2", "top3"]].tolist() == ["NA", "null", "NA", names[2]]
    frame.to_csv(tmp_path / "predictions.csv", index=False)
    back = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    assert back[["id", "true", "predicted", "top3"]].to_numpy().tolist() == frame[["id", "true", "predicted", "top3"]].to_numpy().tolist()
    np.testing.assert_array_equal(back["probability"].astype(np.float32), frame["probability"])
    assert (metrics.predictions(list("abcdef"), PROBABILITIES, None, names, 1)["true"] == "").all()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 9), st.floats(0, 5))
def test_properties_of_any_result(seed, n, classes, sharpness):
    probabilities, labels = random_case(seed, n, classes, sharpness)
    names = [str(i) for i in range(classes)]
    result = metrics.compute(probabilities, labels, names)
    assert np.sum(result["confusion"]) == n == sum(row["support"] for row in result["per_class"].values())
    assert np.trace(result["confusion"]) / n == pytest.approx(result["top1"])
    low, high = result["top1_ci95"]
    assert 0 <= low <= result["top1"] <= high <= 1
    assert result["top1"] <= result["top5"] <= 1
    assert 0 <= result["ece"] <= 1
    assert sum(b["n"] for b in result["ece_bins"]) == n
    assert all(b["lo"] < b["confidence"] + 1e-6 and b["confidence"] <= b["hi"] + 1e-6 for b in result["ece_bins"] if b["n"])
    assert sum(b["n"] * b["accuracy"] for b in result["ece_bins"] if b["n"]) / n == pytest.approx(result["top1"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result  # plain values, no NaN
    # the order of the examples does not matter
    order = np.random.default_rng(seed).permutation(n)
    again = metrics.compute(probabilities[order], labels[order], names)
    assert again["confusion"] == result["confusion"]
    assert (again["loss"], again["ece"]) == pytest.approx((result["loss"], result["ece"]))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000))
def test_the_likeliest_are_those_of_a_stable_sort(n, classes, k, seed):
    probabilities = np.random.default_rng(seed).integers(0, 4, (n, classes)).astype(np.float32)  # many equal ones
    k = min(k, classes)
    np.testing.assert_array_equal(metrics.likeliest(probabilities, k), np.argsort(-probabilities, axis=1, kind="stable")[:, :k])
