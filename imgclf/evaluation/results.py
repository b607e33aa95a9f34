"""Scores a trained model: the entries of results.json and the rows of predictions.csv.

The headline is of the test split; where there is none, of val; and where there is none either, of a probe's cross-validation: every
training image is judged by a head that was solved without its fold, and the kept head, solved on all of them, is the better for it.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.config import Config
from imgclf.data import late_audit
from imgclf.data.splits import groups_of
from imgclf.data.table import Dataset
from imgclf.evaluation import calibration, conformal, metrics, streamed
from imgclf.evaluation.intervals import clustered, wilson
from imgclf.training import evaluate
from imgclf.training.class_weights import class_counts
from imgclf.training.trained_model import TrainedModel

CROSS_VALIDATION = "cross_validation"  # in the place of a split's name


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a classifier says of images that it was not trained on, and the truth.

    Attributes:
      split: its name, or `CROSS_VALIDATION`.
      logits: float32 [N, C].
      labels: int [N].
      fold: int [N], where each fold was judged by a model of its own; else None.
    """

    split: str
    logits: np.ndarray
    labels: np.ndarray
    fold: np.ndarray | None = None


def score(config: Config, dataset: Dataset, trained: TrainedModel, audit_report: dict[str, Any]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores the kept model on the split of the headline, calibrated on val, or on out-of-fold predictions where there is no val.

    Args:
      config: the whole config.
      dataset: with its splits.
      trained: the kept model; its logits are asked for of the headline's split, and of val where something is fitted on it.
      audit_report: for the remarks.

    Returns:
      the contents of results.json, and the table of predictions.
    """
    offset = logit_offset(config, dataset)
    scored = _scored_streamed(config, dataset, trained, offset) or _scored(config, dataset, trained, offset)
    split, results = scored.split, {"split": scored.split, **scored.figures}
    if "scene" in dataset.table or (dataset.table["group"] != "").any():  # else each of a million images is a group of its own
        results |= _interval(scored.correct, groups_of(dataset.table)[scored.rows])
    results["estimates"] = _estimates(results, dataset, trained, offset) if split == CROSS_VALIDATION else None
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
    if "scenes" in audit_report:
        results["scenes"] = audit_report["scenes"]
    return results | trained.results, scored.predictions


@dataclasses.dataclass(frozen=True)
class _Scored:
    """The figures of the headline's images.

    Attributes:
      split: its name, or `CROSS_VALIDATION`.
      rows: int64 [N], of the table.
      figures: the metrics and what calibration did, for results.json.
      correct: bool [N].
      predictions: the table of predictions.
    """

    split: str
    rows: np.ndarray
    figures: dict[str, Any]
    correct: np.ndarray
    predictions: pd.DataFrame


def _scored(config: Config, dataset: Dataset, trained: TrainedModel, offset: np.ndarray) -> _Scored:
    rows, judged, fitted_on = _judged(config, dataset, trained, offset)
    labels = judged.labels
    probabilities, calibrated = calibrate(
        judged,
        fitted_on,
        temperature=config.eval.temperature,
        alpha=config.eval.conformal,
        val_chose_epoch=trained.progress.best_value is not None,
    )
    figures = metrics.compute(probabilities, labels, dataset.class_names, index=rows) | calibrated
    ids = dataset.table["id"].to_numpy()[rows]
    table = metrics.predictions(ids, probabilities, labels, dataset.class_names, config.eval.top_k)
    return _Scored(judged.split, rows, figures, probabilities.argmax(1) == labels, table)


def _scored_streamed(config: Config, dataset: Dataset, trained: TrainedModel, offset: np.ndarray) -> _Scored | None:
    """What `_scored` returns where the split's logits don't fit in memory, see `streamed`; None where they do."""
    sizes = dataset.table["split"].value_counts()
    split = next((name for name in (config.eval.split, "val") if name in sizes), "train")
    if trained.blocks_of is None or trained.out_of_fold is not None or not evaluate.is_large(int(sizes[split]), len(dataset.class_names)):
        return None
    fitted = streamed.fitted(trained.blocks_of, dataset, offset) if "val" in sizes else None
    scaled_on = fitted if config.eval.temperature else None
    scale = 1.0 if scaled_on is None else calibration.fit_temperature(scaled_on.logits, scaled_on.labels)
    entry = None
    if config.eval.conformal and fitted is not None:
        of_fitted = calibration.probabilities(fitted.logits, scale)
        entry = _conformal_entry(conformal.calibrate(of_fitted, fitted.labels, config.eval.conformal), "val")
    threshold = entry["threshold"] if entry is not None and split == "test" else None
    found = streamed.stream(trained.blocks_of, dataset, config, split, offset=offset, temperature=scale, threshold=threshold)
    if entry is not None and threshold is not None:
        entry |= streamed.coverage(found)
    plain = found.uncalibrated
    chose = trained.progress.best_value is not None
    about = {
        "split": None if scaled_on is None else "val",
        "n": 0 if scaled_on is None else len(scaled_on.labels),
        "ece_uncalibrated": calibration.expected_calibration_error(plain.confidence, plain.correct)[0],
        "loss_uncalibrated": float(plain.loss.mean()),
        "note": _note(split, config.eval.temperature, None if scaled_on is None else "val", chose),
    }
    figures = metrics.summary(found.judged, dataset.class_names, None, streamed.NO_ROC)
    figures |= {"temperature": scale, "calibration": about, "conformal": entry}
    return _Scored(split, found.rows, figures, found.judged.correct, found.predictions)


def logit_offset(config: Config, dataset: Dataset) -> np.ndarray:
    """What is added to the logits, float32 [C], so that they know less of how frequent the classes are in training.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, section 4.1: −tau · log(share of the class).
    """
    shares = np.maximum(class_counts(dataset), 1) / max(1, class_counts(dataset).sum())
    return (-config.eval.logit_adjustment * np.log(shares)).astype(np.float32)


def _judged(config: Config, dataset: Dataset, trained: TrainedModel, offset: np.ndarray) -> tuple[np.ndarray, Judged, Judged | None]:
    """The rows of the headline's images, what is said of them, and what the calibration is fitted on, if anything is.

    `offset`, float32 [C], is added to all logits.
    """
    present, label_of = set(dataset.table["split"]), dataset.table["label"].to_numpy()
    held, folds = trained.out_of_fold, None
    if held is not None:
        folds = Judged(CROSS_VALIDATION, held.logits + offset, label_of[held.rows], held.fold)
    split = next((name for name in (config.eval.split, "val") if name in present), "")
    if not split and held is not None and folds is not None:
        rows, judged = held.rows, folds
    else:
        rows, logits = trained.logits_of(split or "train")
        judged = Judged(split or "train", logits + offset, label_of[rows])
    if "val" not in present or not (config.eval.temperature or config.eval.conformal):
        return rows, judged, folds if "val" not in present else None
    if split == "val":
        return rows, judged, judged
    val_rows, val_logits = trained.logits_of("val")
    return rows, judged, Judged("val", val_logits + offset, label_of[val_rows])


def _interval(correct: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """The interval of top-1 where images come in groups, which tell less than as many single ones; nothing where they don't."""
    if len(set(groups)) == len(groups):
        return {}
    return {"top1_ci95": list(clustered(correct, groups)), "top1_groups": len(set(groups))}


def _estimates(results: dict[str, Any], dataset: Dataset, trained: TrainedModel, offset: np.ndarray) -> dict[str, Any] | None:
    """What to expect on new scenes, which is the headline, and where scenes repeat; None where images are not shots of scenes.

    Returns:
      `new_scenes` and `scenes_repeat`: {top1, top1_ci95}.
    """
    held = trained.out_of_fold
    if held is None or held.repeats is None:
        return None
    right = (held.repeats + offset).argmax(1) == dataset.table["label"].to_numpy()[held.rows]
    bounds = clustered(right, groups_of(dataset.table, scenes=False)[held.rows])
    new = {name: results[name] for name in ("top1", "top1_ci95")}
    return {"new_scenes": new, "scenes_repeat": {"top1": float(right.mean()), "top1_ci95": list(bounds)}}


def _notes(config: Config, dataset: Dataset, trained: TrainedModel, split: str, audit_report: dict[str, Any]) -> list[str]:
    """Remarks that a reader of the headline has to know."""
    notes = []
    if split == CROSS_VALIDATION:
        notes.append(
            "All images train. The score is of cross-validation: each image is judged by a head that was solved without its fold; the head "
            "that is kept was solved on all of them."
        )
    elif split != config.eval.split:
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
    notes += [*late_audit.remarks(audit_report, split), *_of_scenes(audit_report, split)]
    if (count := relabeled(dataset)) > 0:
        notes.append(f"{formatting.count(count, 'label')} corrected by config.data.label_patch; dataset.parquet keeps the original_class.")
    if len(dataset.quarantine):
        notes.append(f"{formatting.count(len(dataset.quarantine), 'file')} could not be used; see the quarantine.")
    return [*notes, *dataset.notes]


def _of_scenes(audit_report: dict[str, Any], split: str) -> list[str]:
    """Says whether the headline is a score on new scenes."""
    found = audit_report.get("scenes")
    if found is None or split not in (*found["in_training"], CROSS_VALIDATION):
        return []
    if split == CROSS_VALIDATION:
        return ["The score is one on new scenes: all shots of a scene are held out together."] if found["scenes"] else []
    shots, of = found["in_training"][split]["shots"], found["in_training"][split]["of"]
    if shots:
        are = "is a shot" if shots == 1 else "are shots"
        return [f"{shots:,} of {of:,} {split} photos {are} of a scene that training has, too: on new scenes the score would be lower."]
    return ["The score is one on new scenes: no scene has shots both in training and in it."] if found["scenes"] else []


def relabeled(dataset: Dataset) -> int:
    """Counts the labels that `config.data.label_patch` has changed."""
    table = dataset.table
    return int((table["class_name"] != table["original_class"]).sum()) if "original_class" in table else 0


def calibrate(
    judged: Judged, fitted_on: Judged | None, *, temperature: bool, alpha: float, val_chose_epoch: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Calibrates, and says what it did to the headline's images.

    Where both are the out-of-fold predictions, each fold is calibrated by the others: no image's own label touches its probabilities.

    Args:
      judged: the images of the headline.
      fitted_on: what temperature and conformal rule are fitted on, val or the out-of-fold predictions; None = nothing is.
      temperature: whether to fit one; else it is 1.
      alpha: the share of conformal sets that may miss the truth; 0 = no sets.
      val_chose_epoch: whether val also chose the parameters that are kept.

    Returns:
      The calibrated probabilities of the headline's images, float32 [N, C], and entries of results.json:
      `temperature`; `calibration` {split and n that it was fitted on (None and 0 where it was not), ece_uncalibrated, loss_uncalibrated
      (at temperature 1), note}; `conformal` {alpha, threshold, split, n, on new images coverage, coverage_ci95 (Wilson) and mean_size of
      the sets, else None; promise, note}, or None.
    """
    scaled_on = fitted_on if temperature else None
    scale = 1.0 if scaled_on is None else calibration.fit_temperature(scaled_on.logits, scaled_on.labels)
    labels, plain = judged.labels, calibration.probabilities(judged.logits)
    calibrated = calibration.probabilities(judged.logits, scale)
    if scaled_on is not None and judged.fold is not None:
        for k in np.unique(judged.fold):
            held, others = judged.fold == k, judged.fold != k
            calibrated[held] = calibration.probabilities(
                judged.logits[held], calibration.fit_temperature(judged.logits[others], labels[others])
            )
    about = {
        "split": None if scaled_on is None else scaled_on.split,
        "n": 0 if scaled_on is None else len(scaled_on.labels),
        "ece_uncalibrated": calibration.expected_calibration_error(plain.max(1), plain.argmax(1) == labels)[0],
        "loss_uncalibrated": float(metrics.losses(plain, labels).mean()),
        "note": _note(judged.split, temperature, None if scaled_on is None else scaled_on.split, val_chose_epoch),
    }
    return calibrated, {"temperature": scale, "calibration": about, "conformal": _conformal(judged, calibrated, fitted_on, scale, alpha)}


def _note(split: str, temperature: bool, fitted_on: str | None, val_chose_epoch: bool) -> str:
    if not temperature:
        return "Not fitted: config.eval.temperature is False."
    if fitted_on is None:
        return "Not fitted: there is no val split."
    if fitted_on == CROSS_VALIDATION:
        fitted = "Fitted on out-of-fold predictions of the training images"
        return f"{fitted}; for the score, each fold by the others." if split == CROSS_VALIDATION else f"{fitted}."
    if split == "val":
        return "Fitted on the very images of the score, so that the calibration error is optimistic."
    return "Fitted on val, which also chose the epoch, so that it may be a little too low." if val_chose_epoch else "Fitted on val."


def _conformal(
    judged: Judged, probabilities: np.ndarray, fitted_on: Judged | None, temperature: float, alpha: float
) -> dict[str, Any] | None:
    if not alpha or fitted_on is None:
        return None
    of_fitted = probabilities if fitted_on is judged else calibration.probabilities(fitted_on.logits, temperature)
    entry = _conformal_entry(conformal.calibrate(of_fitted, fitted_on.labels, alpha), fitted_on.split)
    threshold = entry["threshold"]
    if judged.split == "test" or judged.fold is not None:
        members = conformal.sets(probabilities, threshold)
        if judged.fold is not None:
            members = conformal.cross_sets(probabilities, judged.labels, judged.fold, alpha)
        covered = int(np.take_along_axis(members, judged.labels[:, None], 1).sum())
        entry |= {"coverage": covered / len(members), "coverage_ci95": list(wilson(covered, len(members)))}
        entry["mean_size"] = float(members.sum(1).mean())
    return entry


def _conformal_entry(rule: conformal.Conformal, split: str) -> dict[str, Any]:
    """What results.json says of a conformal rule that was fitted on a split, before it is tried on new images."""
    crossed = split == CROSS_VALIDATION
    entry: dict[str, Any] = {"alpha": rule.alpha, "threshold": rule.threshold, "split": split, "n": rule.n}
    entry |= {
        "coverage": None,
        "coverage_ci95": None,
        "mean_size": None,
        "promise": conformal.promise(rule.alpha, crossed=crossed),
        "note": None,
    }
    if rule.admits_all:
        images = "out-of-fold images" if crossed else "val images"
        entry["note"] = f"{rule.n} {images} are too few for alpha {rule.alpha:g}: every set holds all classes."
    return entry
