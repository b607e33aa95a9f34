"""What a report shows of thousands of classes: the worst and the best, and all of them by a search, in a few bytes each."""

import json
from typing import Any

import numpy as np
import pandas as pd

from imgclf.reporting import pages

MANY = 1_000  # classes; of more the report has no table of all, whose markup would be 15 MB for 15,000
EXTREMES = 15  # of the worst and of the best classes


def section(table: pd.DataFrame | None, per_class: list[dict[str, Any]], confusion: Any, names: list[str]) -> dict[str, Any] | None:
    """The worst and best classes, and what the search needs; None where there are few classes.

    The script gets counts, compressed: it works out shares and intervals itself.

    Args:
      table: the run's, for the training images of each class; None = it is not there.
      per_class: a row per class: name, support, recall, precision, f1, bounds; lowest recall first.
      confusion: see `metrics.confusion`.
      names: of the classes, in the order of their numbers.
    """
    if len(names) <= MANY:
        return None
    trained = pd.Series(0, index=names)
    if table is not None:
        trained = table.loc[table["split"] == "train", "class_name"].value_counts().reindex(names, fill_value=0)
    taken, times, right, support, said = _counts(confusion, len(names))
    data = {
        "name": names,
        "trained": trained.tolist(),
        "support": support.tolist(),
        "right": right.tolist(),
        "said": said.tolist(),
        "taken": taken.tolist(),
        "times": times.tolist(),
    }
    judged = [row for row in per_class if row["support"]]
    return {
        "data": pages.packed(json.dumps(data, separators=(",", ":")).encode()),
        "worst": sorted(judged, key=lambda row: (row["recall"], -row["support"], row["name"]))[:EXTREMES],
        "best": sorted(judged, key=lambda row: (-row["recall"], -row["support"], row["name"]))[:EXTREMES],
        "unjudged": len(names) - len(judged),
    }


def pairs(confusion: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The true and the predicted class of each pair that occurs, and its count, int64 each, of either form of `metrics.confusion`."""
    if isinstance(confusion, dict):
        true, predicted, counts = (np.array(confusion[name], np.int64) for name in ("true", "predicted", "count"))
        return true, predicted, counts
    matrix = np.array(confusion, np.int64)
    true, predicted = np.nonzero(matrix)
    return true, predicted, matrix[true, predicted]


def _counts(confusion: Any, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For which class each is most often taken wrongly and how often (−1 and 0 where never); how often it was found, there, and said.

    All int64 [C].
    """
    taken, times = np.full(classes, -1), np.zeros(classes, np.int64)
    true, predicted, counts = pairs(confusion) if confusion else (np.zeros(0, np.int64),) * 3
    support, said = (np.bincount(of, counts, classes).astype(np.int64) for of in (true, predicted))
    found = true == predicted
    right = np.bincount(true[found], counts[found], classes).astype(np.int64)
    order = np.lexsort((-predicted, counts))  # the most frequent one last, of equals the lower number
    order = order[~found[order]]
    taken[true[order]], times[true[order]] = predicted[order], counts[order]
    return taken, times, right, support, said
