"""Scores a trained model: the entries of results.json and the rows of predictions.csv."""

from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.evaluation import calibration, conformal, metrics
from imgclf.evaluation.intervals import wilson
from imgclf.training.class_weights import class_counts
from imgclf.training.trained_model import TrainedModel


def score(config: Config, dataset: Dataset, trained: TrainedModel, audit_report: dict[str, Any]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores the kept model on the split of the headline, calibrated on val.

    Args:
      config: the whole config.
      dataset: with its splits.
      trained: the kept model; its logits are asked for of the headline's split, and of val where something is fitted on it.
      audit_report: for the remarks.

    Returns:
      the contents of results.json, and the table of predictions.
    """
    present = set(dataset.table["split"])
    split = next(name for name in (config.eval.split, "val", "train") if name in present)
    label_of = dataset.table["label"].to_numpy()
    offset = logit_offset(config, dataset)
    rows, logits = trained.logits_of(split)
    logits, labels = logits + offset, label_of[rows]
    val = None
    if "val" in present and (config.eval.temperature or config.eval.conformal):
        val_rows, val_logits = (rows, logits) if split == "val" else trained.logits_of("val")
        val = (val_logits if split == "val" else val_logits + offset), label_of[val_rows]
    probabilities, calibrated = calibrate(
        split,
        logits,
        labels,
        val,
        temperature=config.eval.temperature,
        alpha=config.eval.conformal,
        val_chose_epoch=trained.progress.best_value is not None,
    )
    results = {"split": split, **metrics.compute(probabilities, labels, dataset.class_names, index=rows), **calibrated}
    results |= {
        "logit_offset": offset.tolist() if config.eval.logit_adjustment else None,
        "steps": trained.steps,
        "train_seconds": round(trained.progress.seconds, 2),
        "train_flops": trained.progress.flops,
        "params_sha256": trained.about["params_sha256"],
        "class_names": list(dataset.class_names),
        "checkpoint": f"checkpoints/{trained.progress.kept}",
        "best_metric": config.train.best_metric if trained.progress.best_value is not None else None,
        "best_value": trained.progress.best_value,
        "best_epoch": trained.progress.best_epoch,
        "notes": [*_notes(config, dataset, trained, split, audit_report), *trained.notes],
    }
    ids = dataset.table["id"].to_numpy()[rows]
    return results | trained.results, metrics.predictions(ids, probabilities, labels, dataset.class_names, config.eval.top_k)


def logit_offset(config: Config, dataset: Dataset) -> np.ndarray:
    """What is added to the logits, float32 [C], so that they know less of how frequent the classes are in training.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, section 4.1: −tau · log(share of the class).
    """
    shares = np.maximum(class_counts(dataset), 1) / max(1, class_counts(dataset).sum())
    return (-config.eval.logit_adjustment * np.log(shares)).astype(np.float32)


def _notes(config: Config, dataset: Dataset, trained: TrainedModel, split: str, audit_report: dict[str, Any]) -> list[str]:
    """Remarks that a reader of the headline has to know."""
    notes = []
    if split != config.eval.split:
        notes.append(f"There is no {config.eval.split} split; the score is on {split}.")
    if split == "val" and trained.progress.best_value is not None:
        notes.append("The val split also chose which epoch's parameters are kept, so that its score is optimistic.")
    if split == "train":
        notes.append("The score is on the training images themselves; it says nothing about new ones.")
    counts = class_counts(dataset)
    even = config.eval.logit_adjustment or config.train.class_weights != "none" or config.loader.sampling != "natural"
    if counts.max() >= metrics.LOPSIDED * max(1, counts.min()) and not even:
        notes.append(
            f"The largest class has {counts.max() / max(1, counts.min()):,.0f} times the training images of the smallest. Where the small "
            "ones matter as much, eval.logit_adjustment=1 favours them, in this run too: it needs no training."
        )
    if config.eval.logit_adjustment and (config.train.class_weights != "none" or config.loader.sampling != "natural"):
        notes.append("eval.logit_adjustment and train.class_weights or loader.sampling correct the classes' sizes twice; one is enough.")
    if trained.progress.stopped_early:
        notes.append(f"Stopped early: {formatting.count(config.train.early_stopping.patience, 'evaluation')} without improvement.")
    if audit_report["dropped"]:
        dropped = formatting.count(len(audit_report["dropped"]), "copy", "copies")
        notes.append(f"{dropped} of evaluation images dropped before training; see the audit.")
    if (count := relabeled(dataset)) > 0:
        notes.append(f"{formatting.count(count, 'label')} corrected by config.data.label_patch; dataset.parquet keeps the original_class.")
    if len(dataset.quarantine):
        notes.append(f"{formatting.count(len(dataset.quarantine), 'file')} could not be used; see the quarantine.")
    return [*notes, *dataset.notes]


def relabeled(dataset: Dataset) -> int:
    """Counts the labels that `config.data.label_patch` has changed."""
    table = dataset.table
    return int((table["class_name"] != table["original_class"]).sum()) if "original_class" in table else 0


def calibrate(
    split: str,
    logits: np.ndarray,
    labels: np.ndarray,
    val: tuple[np.ndarray, np.ndarray] | None,
    *,
    temperature: bool,
    alpha: float,
    val_chose_epoch: bool,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Calibrates on val, and says what it did to the split of the headline.

    Args:
      split: of the headline.
      logits, labels: float32 [N, C] and int [N] of that split.
      val: the same of val, or None where there is no val or nothing is to be fitted.
      temperature: whether to fit one; else it is 1.
      alpha: the share of conformal sets that may miss the truth; 0 = no sets.
      val_chose_epoch: whether val also chose the parameters that are kept.

    Returns:
      The calibrated probabilities of the headline's split, float32 [N, C], and entries of results.json:
      `temperature`; `calibration` {split and n that it was fitted on (None and 0 where it was not), ece_uncalibrated, loss_uncalibrated
      (at temperature 1), note}; `conformal` {alpha, threshold, n, and on a test split coverage, coverage_ci95 (Wilson) and mean_size of
      the sets, else None; note}, or None.
    """
    fitted_on = val if temperature else None
    scale = 1.0 if fitted_on is None else calibration.fit_temperature(*fitted_on)
    plain, calibrated = calibration.probabilities(logits), calibration.probabilities(logits, scale)
    of_true = np.take_along_axis(plain, labels[:, None], 1)[:, 0].astype(np.float64)
    about = {
        "split": None if fitted_on is None else "val",
        "n": 0 if fitted_on is None else len(fitted_on[1]),
        "ece_uncalibrated": calibration.expected_calibration_error(plain.max(1), plain.argmax(1) == labels)[0],
        "loss_uncalibrated": float(-np.log(np.maximum(of_true, np.finfo(np.float32).tiny)).mean()),
        "note": _note(split, temperature, val, val_chose_epoch),
    }
    return calibrated, {"temperature": scale, "calibration": about, "conformal": _conformal(split, calibrated, labels, val, scale, alpha)}


def _note(split: str, temperature: bool, val: tuple[np.ndarray, np.ndarray] | None, val_chose_epoch: bool) -> str:
    if not temperature:
        return "Not fitted: config.eval.temperature is False."
    if val is None:
        return "Not fitted: there is no val split."
    if split == "val":
        return "Fitted on the very images of the score, so that the calibration error is optimistic."
    return "Fitted on val, which also chose the epoch, so that it may be a little too low." if val_chose_epoch else "Fitted on val."


def _conformal(
    split: str, probabilities: np.ndarray, labels: np.ndarray, val: tuple[np.ndarray, np.ndarray] | None, temperature: float, alpha: float
) -> dict[str, Any] | None:
    if not alpha or val is None:
        return None
    rule = conformal.calibrate(calibration.probabilities(val[0], temperature), val[1], alpha)
    entry: dict[str, Any] = {"alpha": alpha, "threshold": rule.threshold, "n": rule.n}
    entry |= {"coverage": None, "coverage_ci95": None, "mean_size": None, "note": None}
    if rule.admits_all:
        entry["note"] = f"{rule.n} val images are too few for alpha {alpha:g}: every set holds all classes."
    if split == "test":
        members = conformal.sets(probabilities, rule.threshold)
        covered = int(np.take_along_axis(members, labels[:, None], 1).sum())
        entry |= {"coverage": covered / len(labels), "coverage_ci95": list(wilson(covered, len(labels)))}
        entry["mean_size"] = float(members.sum(1).mean())
    return entry
