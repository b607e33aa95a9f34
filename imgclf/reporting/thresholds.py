"""What a report shows of answering only where the classifier is sure enough: the scores of all evaluated images, in a few bytes each."""

import json
from typing import Any

import numpy as np
import pandas as pd

from imgclf.reporting import pages

STEPS = 200  # a probability is kept as the highest of so many thresholds that it reaches: at these, nothing is lost by rounding
ON_PAPER = (0, 100, 140, 180, 190, 198)  # of `STEPS`: the thresholds of the table for paper, and for browsers that run no scripts


def section(predictions: pd.DataFrame | None, names: list[str]) -> dict[str, Any] | None:
    """The scores for `thresholds.js`, and the rows of a table for paper; None where no image whose class is known was predicted.

    The script gets, compressed, of each class how many images it has (uint32 [C]), then of all images, those of the first class first, the
    predicted class (uint32 [N]) and the threshold reached (uint8 [N]), all little-endian.

    Args:
      predictions: the rows of predictions.csv.
      names: of the classes, in the order of their numbers.
    """
    if predictions is None or "probability" not in predictions:
        return None
    number = {name: label for label, name in enumerate(names)}
    true, said = (predictions[column].map(number) for column in ("true", "predicted"))
    known = (true.notna() & said.notna()).to_numpy()
    if not known.any():
        return None
    labels, answers = true[known].to_numpy(np.int64), said[known].to_numpy(np.int64)
    reached = levels(predictions["probability"].to_numpy(np.float64)[known])
    order = np.lexsort((reached, answers, labels))
    counts = np.bincount(labels, minlength=len(names))
    blocks = (counts.astype("<u4"), answers[order].astype("<u4"), reached[order])
    return {
        "names": pages.packed(json.dumps(names).encode()),
        "scores": pages.packed(b"".join(block.tobytes() for block in blocks)),
        "images": int(known.sum()),
        "rows": [_row(k, reached, answers == labels) for k in ON_PAPER],
    }


def _row(k: int, reached: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """What answering from the threshold k / `STEPS` on gives, of all classes."""
    answered = reached >= k
    count, hits = int(answered.sum()), int((answered & right).sum())
    precision = hits / count if count else None
    return {"threshold": k / STEPS, "answered": count, "share": count / len(right), "right": hits, "precision": precision}


def levels(probability: np.ndarray) -> np.ndarray:
    """The highest threshold k / `STEPS` that each probability reaches, uint8 [N]; one that a float32 has rounded down reaches it, too."""
    reached: np.ndarray = np.clip(np.floor(probability * STEPS + 1e-5), 0, STEPS).astype(np.uint8)
    return reached
