"""Scores a split whose logits don't fit in memory: a batch at a time, keeping of each example what the metrics need.

The figures are those of `results.score` on all logits together, but for three: temperature and conformal threshold are fitted on as many
examples of val as make 256 MiB of logits, evenly spaced in the table (4,488 of 14,951 classes, for one number each), and the area under
the ROC curve, which compares every example's probability of every class, is left out.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.evaluation import calibration, conformal, metrics
from imgclf.evaluation.intervals import wilson
from imgclf.training.trained_model import BlocksOf

FITTED = 2**26  # logits of val, examples times classes, that temperature and threshold are fitted on at most: 256 MiB
NO_ROC = "left out: it needs the probabilities of all images and classes together, which are more than fit in memory"


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Examples that temperature and threshold are fitted on.

    Attributes:
      logits: float32 [N, C].
      labels: int64 [N].
    """

    logits: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What is kept of a split.

    Attributes:
      rows: int64 [N], of the table, ascending.
      judged: by the calibrated probabilities.
      uncalibrated: by the plain ones.
      predictions: see `metrics.predictions`.
      covered: of how many the conformal set holds the true class.
      set_sizes: the number of classes in all sets together.
    """

    rows: np.ndarray
    judged: metrics.Judgement
    uncalibrated: metrics.Judgement
    predictions: pd.DataFrame
    covered: int
    set_sizes: int


def fitted(blocks_of: BlocksOf, dataset: Dataset, offset: np.ndarray) -> Fitted:
    """The logits of as many val images as `FITTED` allows, evenly spaced in the table.

    Args:
      blocks_of: see `TrainedModel`.
      dataset: with its splits.
      offset: float32 [C], added to all logits.
    """
    rows = np.flatnonzero((dataset.table["split"] == "val").to_numpy())
    most = max(1, FITTED // len(dataset.class_names))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    logits, taken = np.empty((len(rows), len(offset)), np.float32), list[np.ndarray]()
    done = 0
    for block, values in blocks_of("val", rows):
        logits[done : done + len(block)] = values + offset
        taken.append(block.astype(np.int64))
        done += len(block)
    return Fitted(logits[:done], dataset.table["label"].to_numpy(np.int64)[np.concatenate(taken)])


def stream(
    blocks_of: BlocksOf, dataset: Dataset, config: Config, split: str, *, offset: np.ndarray, temperature: float, threshold: float | None
) -> Streamed:
    """Runs the model over a split and keeps what the metrics need.

    Args:
      blocks_of: see `TrainedModel`.
      dataset: with its splits.
      config: its `eval.top_k` counts.
      split: its name.
      offset: float32 [C], added to all logits.
      temperature: that the logits are divided by.
      threshold: of the conformal sets; None = there are none.
    """
    labels_of, ids_of = dataset.table["label"].to_numpy(np.int64), dataset.table["id"].array
    rows, judged, plain, tables, covered, sizes = [], list[metrics.Judgement](), list[metrics.Judgement](), list[pd.DataFrame](), 0, 0
    for block, logits in blocks_of(split, None):
        if not len(block):
            continue
        block, labels = block.astype(np.int64), labels_of[block]
        probabilities = calibration.probabilities(logits + offset, temperature)
        rows.append(block)
        judged.append(metrics.judge(probabilities, labels))
        plain.append(metrics.judge(calibration.probabilities(logits + offset), labels))
        tables.append(metrics.predictions(ids_of[block], probabilities, labels, dataset.class_names, config.eval.top_k))
        if threshold is not None:
            members = conformal.sets(probabilities, threshold)
            covered += int(np.take_along_axis(members, labels[:, None], 1).sum())
            sizes += int(members.sum())
    all_rows = np.concatenate(rows)
    metrics.check_once(all_rows)
    order = np.argsort(all_rows, kind="stable")
    return Streamed(
        all_rows[order],
        metrics.Judgement.joined(judged).take(order),
        metrics.Judgement.joined(plain).take(order),
        pd.concat(tables, ignore_index=True).iloc[order].reset_index(drop=True),
        covered,
        sizes,
    )


def coverage(streamed: Streamed) -> dict[str, Any]:
    """What results.json says of the conformal sets on new images."""
    n = len(streamed.rows)
    found = {"coverage": streamed.covered / n, "coverage_ci95": list(wilson(streamed.covered, n))}
    return found | {"mean_size": streamed.set_sizes / n}
