"""What the val split says about a classifier's probabilities: its temperature and its conformal threshold."""

from typing import Any

import numpy as np

from imgclf.evaluation import calibration, conformal
from imgclf.evaluation.metrics import wilson


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
    fitted = temperature and val is not None
    scale = calibration.fit_temperature(*val) if fitted else 1.0
    plain, calibrated = calibration.probabilities(logits), calibration.probabilities(logits, scale)
    of_true = np.take_along_axis(plain, labels[:, None], 1)[:, 0].astype(np.float64)
    about = {
        "split": "val" if fitted else None,
        "n": len(val[1]) if fitted else 0,
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
