"""Linear heads on cached features, and the choice of their penalty by stratified, grouped cross-validation."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special

from imgclf.data.splits import stratify
from imgclf.errors import UserError
from imgclf.probes import nearest_mean
from imgclf.probes.logistic import Solutions, fit_logistic
from imgclf.probes.ridge import fit_ridge

DEFAULT_STRENGTHS = tuple(float(f"{10.0**exponent:.2g}") for exponent in np.arange(-4, 1.1, 0.5))  # of features with unit variance

_ROWS = 8192  # of features that are read at once


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The standardisation of features: (x − mean) / deviation, 1 where a feature is constant. Both float32 [D]."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Scaling":
        """That of features float32 [N, D], read in blocks."""
        blocks = [features[start : start + _ROWS] for start in range(0, len(features), _ROWS)]
        mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / len(features)
        deviation = np.sqrt(sum(np.square(block - mean).sum(0) for block in blocks) / len(features))
        return cls(mean.astype(np.float32), np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0).astype(np.float32))

    def fold(self, solved: Solutions) -> Solutions:
        """The solutions that give on plain features what these give on standardised ones."""
        kernel = solved.kernel / self.deviation[:, None]
        bias = solved.bias - np.einsum("d,kldc->klc", self.mean.astype(np.float64), kernel)
        return Solutions(kernel, bias.astype(np.float32), solved.gradient_norm)


def assign_folds(
    labels: np.ndarray, groups: Sequence[str] | np.ndarray | None, folds: int, seed: int, class_names: Sequence[str], hint: str
) -> np.ndarray:
    """Deals rows into folds, each class evenly, each group into one of them; the result does not depend on the order of the rows.

    Args:
      labels: int [N].
      groups: N names; None = every row by itself.
      folds: how many.
      seed: another seed deals otherwise.
      class_names: for the error.
      hint: the way out that the error names, after "add images, remove the class, or".

    Returns:
      int64 [N].

    Raises:
      UserError: for a class with fewer members (groups) than folds.
    """
    ids = [str(row) for row in range(len(labels))]
    groups = ids if groups is None else [str(group) for group in groups]
    table = pd.DataFrame({"id": ids, "label": labels, "group": groups, "sha256": ids}, dtype=object)
    parts = {f"fold {fold}": 1 / folds for fold in range(folds)}
    drawn = stratify(table, class_names, parts, seed, hint)
    return np.array([int(name.removeprefix("fold ")) for name in drawn], np.int64)


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Which strengths are tried, and which fold each example is held out in; `fold` is None where there is nothing to choose.

    The only example (or group) of a class is in no fold, −1: without it, the class would not be known.
    """

    strengths: tuple[float, ...]
    folds: int
    fold: np.ndarray | None  # int64 [N]
    class_names: tuple[str, ...]

    @classmethod
    def create(
        cls,
        labels: np.ndarray,
        groups: Sequence[str] | np.ndarray | None,
        class_names: Sequence[str],
        strengths: Sequence[float],
        folds: int,
        seed: int,
        solver: str = "logistic",
    ) -> "CrossValidation":
        """Deals the training examples into folds where there are several strengths, and for solvers whose outputs must be scaled.

        The nearest class mean has no penalty, and takes no more folds than its smallest class has members.

        Raises:
          UserError: for a class with fewer members than folds, and for strengths to choose from where every class has one member only.
        """
        scaled = solver in ("ridge", "nearest_mean")
        if solver == "nearest_mean":
            strengths = (0.0,)
        if len(strengths) == 1 and not scaled:
            return cls(tuple(strengths), folds, None, tuple(class_names))
        units = _units_of_class(labels, groups, len(class_names))
        several = units[labels] > 1
        if not several.any():
            if solver == "nearest_mean":
                return cls(tuple(strengths), folds, None, tuple(class_names))
            raise UserError(
                "Every class has one training image (or group), so that none can be held out to choose a penalty by: use "
                "config.probe.solver='nearest_mean', or 'logistic' with one config.probe.l2; or add images."
            )
        if solver == "nearest_mean":
            folds = int(min(folds, units[units > 1].min()))
        only = " with config.probe.solver='logistic'" if scaled else ""
        hint = f"lower config.probe.folds, or set one config.probe.l2{only}, which needs no folds"
        fold = np.full(len(labels), -1, np.int64)
        dealt = groups if groups is None else np.asarray(groups)[several]
        fold[several] = assign_folds(labels[several], dealt, folds, seed, class_names, hint)
        return cls(tuple(strengths), folds, fold, tuple(class_names))


def _units_of_class(labels: np.ndarray, groups: Sequence[str] | np.ndarray | None, classes: int) -> np.ndarray:
    """How many examples, or groups of them, each class has, int64 [C]."""
    pairs = pd.DataFrame({"label": labels, "unit": range(len(labels)) if groups is None else groups}).drop_duplicates()
    return np.bincount(pairs["label"], minlength=classes)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear head on plain features: kernel float32 [D, C], bias float32 [C], and what results.json's `probe` says of it."""

    kernel: np.ndarray
    bias: np.ndarray
    about: dict[str, Any]


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    validation: CrossValidation,
    *,
    solver: str = "logistic",
    standardize: bool = True,
    class_weight: np.ndarray | None = None,
) -> Linear:
    """Solves the head for every strength, on all examples and without each fold, at once; keeps that of the best strength.

    The best has the lowest mean cross-entropy on the examples held out. The standardisation is that of all of `features`: it knows no
    labels. Augmented views count as examples in training; the plain ones (the first) are what is held out and scored.

    Args:
      features: float32 [N, D] or [N, V, D].
      labels: int [N].
      validation: the strengths, and the folds in which they are tried.
      solver: "logistic", "ridge" or "nearest_mean", which has no penalty, and knows neither `standardize` nor `class_weight`.
      standardize: whether the penalty is on the weights of standardised features.
      class_weight: float32 [C], or None.
    """
    views = features.shape[1] if features.ndim == 3 else 1
    flat = features.reshape(-1, features.shape[-1])
    scaling = Scaling.of(flat) if standardize else Scaling(np.zeros(flat.shape[1], np.float32), np.ones(flat.shape[1], np.float32))
    example_weight = np.ones(len(labels)) if class_weight is None else class_weight[labels].astype(np.float64)
    subsets = [example_weight]
    if validation.fold is not None:
        subsets += [np.where(validation.fold == k, 0, example_weight) for k in range(validation.folds)]
    weights = np.repeat(np.stack(subsets), views, axis=1)
    strengths, classes = np.array(validation.strengths), len(validation.class_names)
    repeated = np.repeat(labels, views)
    if solver == "nearest_mean":
        solved = nearest_mean.fit_nearest_mean(flat, repeated, weights, classes)
    else:
        fit = {"logistic": fit_logistic, "ridge": fit_ridge}[solver]
        solved = scaling.fold(fit(flat, repeated, weights, strengths, classes, mean=scaling.mean, deviation=scaling.deviation))
    chosen, table, scale = 0, None, nearest_mean.SHARPNESS if solver == "nearest_mean" else 1.0
    if validation.fold is not None:
        held = _held_out_logits(flat[::views], validation, solved)
        dealt = validation.fold >= 0
        held, of, weight = held[:, dealt], labels[dealt], example_weight[dealt]
        scales = [_SCALES[solver](logits, of, weight) for logits in held]
        tried = zip(held, scales, validation.strengths, solved.gradient_norm.max(0), strict=True)
        table = [_score(logits, of, weight, *rest) for logits, *rest in tried]
        chosen = int(np.argmin([row["loss"] for row in table]))
        scale = scales[chosen]
    kernel, bias = scale * solved.kernel[0, chosen], scale * solved.bias[0, chosen]
    about = {
        "l2": validation.strengths[chosen] if solver != "nearest_mean" else None,
        "folds": validation.folds if validation.fold is not None else None,
        "gradient_norm": float(solved.gradient_norm[0, chosen]),
        "cross_validation": table,
        "never_held_out": [] if validation.fold is None else sorted({validation.class_names[k] for k in labels[validation.fold < 0]}),
    }
    return Linear(kernel, bias, about)


def _held_out_logits(features: np.ndarray, validation: CrossValidation, solved: Solutions) -> np.ndarray:
    """Logits float32 [L, N, C] of each example by the fit without its fold; fit 0 is that of all."""
    held = np.zeros((len(validation.strengths), len(features), len(validation.class_names)), np.float32)
    for k in range(validation.folds):
        at = validation.fold == k
        held[:, at] = features[at] @ solved.kernel[k + 1] + solved.bias[k + 1][:, None]
    return held


def _loss(logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    losses = scipy.special.logsumexp(logits, axis=1) - np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return float(losses @ weight / weight.sum())


def _best_scale(outputs: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """The factor that makes a regression's outputs the best logits."""
    found = scipy.optimize.minimize_scalar(
        lambda log_scale: _loss(np.exp(log_scale) * outputs.astype(np.float64), labels, weight), bounds=(-7, 7), method="bounded"
    )
    return float(np.exp(found.x))


_SCALES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "logistic": lambda outputs, labels, weight: 1.0,
    "ridge": _best_scale,
    "nearest_mean": nearest_mean.scale_of,
}


def _score(held: np.ndarray, labels: np.ndarray, weight: np.ndarray, scale: float, l2: float, gradient_norm: float) -> dict[str, float]:
    loss = _loss(scale * held.astype(np.float64), labels, weight)
    return {"l2": l2, "loss": loss, "top1": float(np.mean(held.argmax(1) == labels)), "gradient_norm": float(gradient_norm)}


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None,
    l2: float,
    folds: int,
    seed: int,
    *,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Returns each example's probabilities by the logistic probe of the folds that it is not in, on standardised features.

    Args:
      features: float32 [N, D].
      labels: int [N].
      groups: N names, of what must stay in one fold; None = every row by itself.
      l2, folds, seed: see `fit_logistic`, `assign_folds`.
      class_names: C names; None = "0" … by the largest label.

    Returns:
      float32 [N, C].

    Raises:
      UserError: for a class with fewer members (groups) than folds.
    """
    names = [str(label) for label in range(int(labels.max()) + 1)] if class_names is None else class_names
    fold = assign_folds(labels, groups, folds, seed, names, "ask for fewer folds")
    scaling = Scaling.of(features)
    weights = (fold != np.arange(folds)[:, None]).astype(np.float32)
    solved = fit_logistic(features, labels, weights, np.array([l2]), len(names), mean=scaling.mean, deviation=scaling.deviation)
    solved = scaling.fold(solved)
    logits = np.zeros((len(labels), len(names)), np.float32)
    for k in range(folds):
        held = fold == k
        logits[held] = features[held] @ solved.kernel[k, 0] + solved.bias[k, 0]
    return scipy.special.softmax(logits, axis=1)
