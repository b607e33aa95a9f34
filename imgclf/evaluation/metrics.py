"""The figures of results.json and the rows of predictions.csv, from class probabilities.

What is undefined is None, never 0: everything about a class that has no example in the split, and the precision of a class that
was never predicted. Averages over classes ("macro") are over the classes that the split has examples of.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.evaluation.calibration import expected_calibration_error
from imgclf.evaluation.intervals import mean_of_proportions, wilson

LOPSIDED = 10  # the largest class's images over the smallest's, from which on a mean over images says little of the small ones
DENSE_CLASSES = 1_000  # of more, the confusion is given by its pairs

NAMES = (  # of what `compute` returns
    *(
        "n",
        "top1",
        "top1_ci95",
        "balanced_accuracy",
        "balanced_accuracy_ci95",
        "top5",
        "loss",
        "macro_f1",
        "per_class",
        "confusion",
        "roc_auc",
        "roc_auc_note",
        "ece",
        "ece_bins",
    ),
)


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each example, float64 [N], in nats, of probabilities floored at float32's smallest normal number, 1.2e-38.

    Args:
      probabilities: float [N, C].
      labels: int [N].
    """
    of_true = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0].astype(np.float64)
    found: np.ndarray = -np.log(np.maximum(of_true, np.finfo(np.float32).tiny))
    return found


def compute(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, index: np.ndarray | None = None
) -> dict[str, Any]:
    """Computes every metric of results.json over one split.

    Args:
      probabilities: float32 [N, C], rows summing to 1.
      labels: int [N], in [0, C).
      class_names: C distinct names.
      index: int [N], optional: the examples' rows in the table, to check that each came once.

    Returns:
      A dict of plain Python values, ready for JSON:
      `n`; `top1` and `top1_ci95` (Wilson, [lo, hi]); `balanced_accuracy`, the mean of the classes' recalls, and its `_ci95`; `top5`
      (top-min(5, C)); `loss` (the mean of `losses`, no label smoothing or class weights); `macro_f1`;
      `per_class` {name: {precision, recall, f1, support}}; `confusion`, see the function; `roc_auc`
      (mean of one-vs-rest areas) with `roc_auc_note` (why it is None, or which classes it leaves out; else None); `ece` and
      `ece_bins` (see `calibration`). Among equal probabilities the class with the lower number is predicted.

    Raises:
      ValueError: if shapes disagree, there is no example, an example came twice, or a row is not a distribution.
    """
    probabilities, labels, names = _checked(probabilities, labels, class_names)
    if index is not None:
        check_once(index)
    return summary(judge(probabilities, labels), names, *roc_auc(probabilities, labels, names))


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the metrics need of each example: the probabilities themselves may be gone.

    Attributes:
      labels: int64 [N], the true classes.
      predicted: int64 [N].
      confidence: float [N], the predicted class's probability.
      rank: int64 [N], of the true class; 0 = predicted.
      loss: float64 [N], see `losses`.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    loss: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """bool [N]."""
        return self.predicted == self.labels

    def take(self, rows: np.ndarray) -> "Judgement":
        """Those of these examples, int [M]."""
        return Judgement(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Judgement"]) -> "Judgement":
        """The judgements of one block of examples after another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(cls)))


def judge(probabilities: np.ndarray, labels: np.ndarray) -> Judgement:
    """Judges examples; what is said of one does not depend on the others.

    Args:
      probabilities: float32 [N, C], rows summing to 1.
      labels: int [N], in [0, C).
    """
    of_true = np.take_along_axis(probabilities, labels[:, None], 1)
    before = (probabilities > of_true) | ((probabilities == of_true) & (np.arange(probabilities.shape[1]) < labels[:, None]))
    predicted = probabilities.argmax(1)
    return Judgement(np.asarray(labels, np.int64), predicted, probabilities.max(1), before.sum(1), losses(probabilities, labels))


def summary(judged: Judgement, class_names: Sequence[str], area: float | None, note: str | None) -> dict[str, Any]:
    """The metrics of examples that were judged; what `compute` returns.

    Args:
      judged: at least one example.
      class_names: C distinct names.
      area, note: `roc_auc` and `roc_auc_note`, which need the probabilities.
    """
    labels, correct, n, classes = judged.labels, judged.correct, len(judged.labels), len(class_names)
    support, said = (np.bincount(values, minlength=classes) for values in (labels, judged.predicted))
    right = np.bincount(labels[correct], minlength=classes)
    per_class = _per_class(right, support, said, class_names)
    present = [row for row in per_class.values() if row["support"]]
    error, bins = expected_calibration_error(judged.confidence, correct)
    return {
        "n": n,
        "top1": float(correct.mean()),
        "top1_ci95": list(wilson(int(correct.sum()), n)),
        "balanced_accuracy": float(np.mean([row["recall"] for row in present])),
        "balanced_accuracy_ci95": list(mean_of_proportions(right[support > 0].tolist(), support[support > 0].tolist())),
        "top5": float((judged.rank < min(5, classes)).mean()),
        "loss": float(judged.loss.mean()),
        "macro_f1": float(np.mean([row["f1"] for row in present])),
        "per_class": per_class,
        "confusion": confusion(labels, judged.predicted, classes),
        "roc_auc": area,
        "roc_auc_note": note,
        "ece": error,
        "ece_bins": bins,
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]] | dict[str, list[int]]:
    """Counts of (true, predicted) pairs, both int [N]: a matrix, rows = true; of more than `DENSE_CLASSES` the pairs that occur, in order.

    The matrix of 15,000 classes has 225 million counts, of which 115,000 images fill less than a thousandth.

    Returns:
      [[int]], or {"true": [...], "predicted": [...], "count": [...]} with the classes' numbers.
    """
    if classes <= DENSE_CLASSES:
        dense: list[list[int]] = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).tolist()
        return dense
    pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
    return {"true": (pairs // classes).tolist(), "predicted": (pairs % classes).tolist(), "count": counts.tolist()}


def check_once(index: np.ndarray) -> None:
    """Raises a ValueError if an example, told by its row in the table, was counted twice."""
    if len(np.unique(index)) != len(index):
        raise ValueError(f"{len(index) - len(np.unique(index))} of {len(index)} rows stand for an example that was already counted")


def headline(results: Mapping[str, Any]) -> str:
    """Returns top-1 as a sentence: `97.2 % (95 % interval 95.0–98.5 %, 350 of 360 test images right)`.

    Where the classes are lopsided, their balanced accuracy follows.

    Args:
      results: what `compute` returned, with `split` (such as "test") where it is known.
    """
    right, split = round(results["top1"] * results["n"]), results.get("split", "")
    if split == "train":
        images = formatting.count(results["n"], "training image")
        return f"{right:,} of {images} right, all of which it was trained on: none was held out, so that nothing is known of new ones"
    crossed = split == "cross_validation"
    images = f"{'' if crossed else split} image{'' if results['n'] == 1 else 's'}".strip()
    how, repeats = " in cross-validation" if crossed else "", ""
    if estimates := results.get("estimates"):
        how += " on new scenes"
        repeats = f"; {formatting.percent(estimates['scenes_repeat']['top1'])} where scenes may repeat"
    balanced = ""
    if is_lopsided(results):
        bounds = formatting.interval(results["balanced_accuracy_ci95"])
        balanced = f"; balanced accuracy {formatting.percent(results['balanced_accuracy'])} ({bounds})"
    return (
        f"{formatting.percent(results['top1'])} (95{formatting.NBSP}% interval {formatting.interval(results['top1_ci95'])}, "
        f"{right:,} of {results['n']:,} {images} right{how}){repeats}{balanced}"
    )


def is_lopsided(results: Mapping[str, Any]) -> bool:
    """Whether the largest class of the split has `LOPSIDED` times the images of the smallest; False of runs that don't tell."""
    support = [row["support"] for row in results.get("per_class", {}).values() if row["support"]]
    return "balanced_accuracy" in results and max(support) >= LOPSIDED * min(support)


def roc_auc(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> tuple[float | None, str | None]:
    """Returns the mean over classes of the area under the one-vs-rest ROC curve, and a remark where it leaves something out.

    The area is the Mann-Whitney statistic: the chance that an example of the class scores above one of the others, ties counting half.

    Args:
      probabilities: [N, C].
      labels: int [N].
      class_names: C names, for the remark.
    """
    n, classes = probabilities.shape
    counts = np.bincount(labels, minlength=classes)
    if counts.max() == n:
        return None, f"all {n} examples are {class_names[int(counts.argmax())]!r}: an ROC curve needs a second class"
    areas = []
    for label in np.flatnonzero(counts):
        positive = int(counts[label])
        ranks = pd.Series(probabilities[:, label]).rank().to_numpy()  # scipy.stats has this, too, and takes half a second to import
        areas.append((ranks[labels == label].sum() - positive * (positive + 1) / 2) / (positive * (n - positive)))
    absent = int((counts == 0).sum())
    note = f"left out for want of examples: {absent:,} of {classes:,} classes" if absent else None
    return float(np.mean(areas)), note


def predictions(
    ids: Iterable[object], probabilities: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str], top_k: int
) -> pd.DataFrame:
    """Returns the rows of predictions.csv, in the order given.

    Args:
      ids: N distinct example ids.
      probabilities: float32 [N, C].
      labels: int [N], or None where the truth is unknown: the column `true` is then empty.
      class_names: C distinct names.
      top_k: how many of the likeliest classes to list; at most C are.

    Returns:
      Columns `id`, `true`, `predicted`, `probability` (of the predicted class), then `top1`, `top1_probability`, `top2`, ... Read the
      file back with `keep_default_na=False`, lest a class named "NA" or "null" vanish.

    Raises:
      ValueError: if shapes disagree, an id stands twice, or a row is not a distribution.
    """
    series = pd.Series(list(ids), dtype=object)
    true = np.zeros(len(series), np.int64) if labels is None else labels
    probabilities, true, names = _checked(probabilities, true, class_names)
    if len(series) != len(probabilities):
        raise ValueError(f"{len(series)} ids for {len(probabilities)} rows of probabilities")
    if series.duplicated().any():
        raise ValueError(f"example {series[series.duplicated()].iloc[0]!r} was predicted twice")
    order = likeliest(probabilities, min(top_k, probabilities.shape[1]))
    sorted_probabilities = np.take_along_axis(probabilities, order, 1)
    name_of = np.array(names, dtype=object)
    columns = {
        "id": series,
        "true": "" if labels is None else name_of[true],
        "predicted": name_of[order[:, 0]],
        "probability": sorted_probabilities[:, 0],
    }
    for place in range(min(top_k, probabilities.shape[1])):
        columns[f"top{place + 1}"] = name_of[order[:, place]]
        columns[f"top{place + 1}_probability"] = sorted_probabilities[:, place]
    return pd.DataFrame(columns)


def likeliest(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Returns the numbers of the k likeliest classes, int [N, k], the likeliest first and of equal ones the lower number first.

    With thousands of classes this takes a tenth of the time of sorting them all.
    """
    n, classes = probabilities.shape
    chosen = np.argpartition(-probabilities, k - 1, axis=1)[:, :k] if k < classes else np.tile(np.arange(classes), (n, 1))
    values = np.take_along_axis(probabilities, chosen, 1)
    order = np.take_along_axis(chosen, np.lexsort((chosen, -values), axis=1), 1)
    least = values.min(1, keepdims=True)
    cut = np.flatnonzero((probabilities == least).sum(1) > (values == least).sum(1))  # here argpartition chose among equal ones at will
    order[cut] = np.argsort(-probabilities[cut], axis=1, kind="stable")[:, :k]
    return order


def _per_class(right: np.ndarray, support: np.ndarray, said: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, hits, of, times in zip(names, right.tolist(), support.tolist(), said.tolist(), strict=True):
        rows[name] = {
            "precision": hits / times if of and times else None,
            "recall": hits / of if of else None,
            "f1": 2 * hits / (of + times) if of else None,
            "support": of,
        }
    return rows


def _checked(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    probabilities, labels, names = np.asarray(probabilities), np.asarray(labels), list(class_names)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(names) or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape}, labels {labels.shape} and {len(names)} class names do not fit together")
    if len(set(names)) != len(names):
        raise ValueError("class names must be distinct")
    if not len(labels):
        raise ValueError("no examples: the metrics of nothing are undefined")
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"labels must lie in [0, {len(names)}), got {labels.min()} to {labels.max()}")
    # Written so that NaN fails, too. A deviation of 1e-2 allows for the rounding of half precision, and not for logits.
    if not (probabilities.min() >= 0 and np.abs(probabilities.sum(1) - 1).max() <= 1e-2):
        raise ValueError("each row of probabilities must be ≥ 0 and sum to 1; were logits passed?")
    return probabilities, labels.astype(np.int64), names
