"""What is told of a trained model: results.json and predictions.csv."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.evaluation import confidence, metrics
from imgclf.training import loop

LogitsOf = Callable[[str], tuple[np.ndarray, np.ndarray]]  # a split's name → rows of the table, int64 [N], and logits, float32 [N, C]


def evaluate(
    config: Config, dataset: Dataset, fit: loop.Fit, logits_of: LogitsOf, audit_report: dict[str, Any]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores the kept model on the split of the headline, calibrated on val.

    Args:
      config: the whole config.
      dataset: with its splits.
      fit: the kept model.
      logits_of: gives its logits; asked for the headline's split, and for val where something is fitted on it.
      audit_report: for the remarks.

    Returns:
      results.json as far as evaluation goes, and the table of predictions.
    """
    present = set(dataset.table["split"])
    split = next(name for name in (config.eval.split, "val", "train") if name in present)
    label_of = dataset.table["label"].to_numpy()
    rows, logits = logits_of(split)
    labels = label_of[rows]
    val = None
    if "val" in present and (config.eval.temperature or config.eval.conformal):
        val_rows, val_logits = (rows, logits) if split == "val" else logits_of("val")
        val = val_logits, label_of[val_rows]
    probabilities, calibrated = confidence.calibrate(
        split,
        logits,
        labels,
        val,
        temperature=config.eval.temperature,
        alpha=config.eval.conformal,
        val_chose_epoch=fit.progress.best_value is not None,
    )
    results = {"split": split, **metrics.evaluate(probabilities, labels, dataset.class_names, index=rows), **calibrated}
    results |= {
        "steps": fit.steps,
        "train_seconds": round(fit.progress.seconds, 2),
        "params_sha256": fit.about["params_sha256"],
        "class_names": list(dataset.class_names),
        "checkpoint": f"checkpoints/{fit.progress.kept}",
        "best_metric": config.train.best_metric if fit.progress.best_value is not None else None,
        "best_value": fit.progress.best_value,
        "best_epoch": fit.progress.best_epoch,
        "notes": _notes(config, dataset, fit, split, audit_report),
    }
    ids = dataset.table["id"].to_numpy()[rows]
    return results, metrics.predictions(ids, probabilities, labels, dataset.class_names, config.eval.top_k)


def _notes(config: Config, dataset: Dataset, fit: loop.Fit, split: str, audit_report: dict[str, Any]) -> list[str]:
    """Honest remarks that belong beside the headline."""
    notes = []
    if split != config.eval.split:
        notes.append(f"There is no {config.eval.split} split; the score is on {split}.")
    if split == "val" and fit.progress.best_value is not None:
        notes.append("The val split also chose which epoch's parameters are kept, so that its score is optimistic.")
    if split == "train":
        notes.append("The score is on the training images themselves; it says nothing about new ones.")
    if fit.progress.stopped_early:
        notes.append(f"Stopped early: {formatting.count(config.train.early_stopping.patience, 'evaluation')} without improvement.")
    if audit_report["dropped"]:
        dropped = formatting.count(len(audit_report["dropped"]), "copy", "copies")
        notes.append(f"{dropped} of evaluation images dropped before training; see the audit.")
    if (count := relabeled(dataset)) > 0:
        notes.append(f"{formatting.count(count, 'label')} corrected by config.data.label_patch; dataset.parquet keeps the original_class.")
    if len(dataset.quarantine):
        notes.append(f"{formatting.count(len(dataset.quarantine), 'file')} could not be used; see the quarantine.")
    return notes


def relabeled(dataset: Dataset) -> int:
    """How many labels `config.data.label_patch` has changed."""
    table = dataset.table
    return int((table["class_name"] != table["original_class"]).sum()) if "original_class" in table else 0
