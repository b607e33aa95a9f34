"""Linear heads on cached features, their penalty chosen by stratified, grouped cross-validation, and what the folds' heads say.

Every example is in one fold, and the head that was solved without this fold gives it its out-of-fold logits. They choose the penalty, and
they are an honest sample of what the final head, solved on all examples, says of new ones.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.errors import UserError
from imgclf.probes import nearest_mean, ties
from imgclf.probes.folds import assign_folds, possible_folds
from imgclf.probes.logistic import TOLERANCE, Examples, LogisticPath, Solutions, cross_entropy, few_threads
from imgclf.probes.ridge import RidgePath

# Strengths, for features of variance 1. A path goes from STRONG on to weaker ones, as far as they pay;
# where the strongest is chosen, it goes on to stronger ones.
STRONG, STRONGEST, WEAKEST = 1, 4, -7  # powers of ten
_DECADE = (0.0, -0.5)  # strengths are half a decade apart

_ROWS = 8192  # of features that are read at once
_TOLERANCE = 5e-3  # of the heads that are tried: their mean loss on what is held out is then within a few thousandths of the exact one


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Scaled features are (x − mean) / deviation, both float32 [D].

    "standardize" divides each feature by its own deviation, "none" all of them by one number, the root of their mean variance, so that
    strengths mean the same whatever the unit of the features is; "shrunk" is halfway: its variance is the mean of the two. A feature that
    is 0 in almost all photos varies little among a few of them, and standardisation blows up what it is in others. Over four data sets
    and two networks, with 5 or 20 photos a class and with four fifths of all, "shrunk" has 75.9 %, "none" 75.6 % and "standardize" 74.0 %
    right; to choose one of several by the folds has less than "shrunk" by itself (experiments/README.md).

    Attributes:
      mean: of the features.
      deviation: never 0.
      unit: what a strength for scaled features is multiplied by to be one for features as "none" leaves them; 1 for the others.
    """

    mean: np.ndarray
    deviation: np.ndarray
    unit: float = 1.0

    @classmethod
    def of(cls, features: np.ndarray, kind: str = "standardize") -> Self:
        """That of features float32 [N, D], read in blocks."""
        blocks = [features[start : start + _ROWS] for start in range(0, len(features), _ROWS)]
        mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / len(features)
        variance = sum(np.square(block - mean).sum(0) for block in blocks) / len(features)
        if kind == "standardize":
            deviation = np.sqrt(variance)
            return cls(mean.astype(np.float32), np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0).astype(np.float32))
        common = float(np.mean(variance)) or 1.0
        if kind == "shrunk":
            return cls(mean.astype(np.float32), np.sqrt((variance + common) / 2).astype(np.float32))
        return cls(mean.astype(np.float32), np.full(len(mean), np.sqrt(common), np.float32), common)

    def fold(self, solved: Solutions) -> Solutions:
        """The solutions that give on plain features what these give on scaled ones."""
        kernel = solved.kernel / self.deviation[:, None]
        bias = solved.bias - np.einsum("d,kldc->klc", self.mean.astype(np.float64), kernel)
        return Solutions(kernel, bias.astype(np.float32), solved.gradient_norm)


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Which strengths are tried, and which fold each example is held out in.

    Attributes:
      strengths: l2; () = a path of them, which goes as far as it pays.
      folds: how many; 0 = there is nothing to choose, and nobody asks for out-of-fold logits.
      fold: int64 [N], or None where there are no folds. The only example (or group) of a class is in no fold, −1: without it, the class
        would not be known.
      class_names: C.
      groups: int64 [N], numbers of the groups, for standard errors.
    """

    strengths: tuple[float, ...]
    folds: int
    fold: np.ndarray | None
    class_names: tuple[str, ...]
    groups: np.ndarray

    @classmethod
    def create(  # noqa: PLR0913  (all that the folds depend on)
        cls,
        labels: np.ndarray,
        groups: Sequence[str] | np.ndarray | None,
        class_names: Sequence[str],
        strengths: Sequence[float],
        folds: int,
        seed: int,
        solver: str = "logistic",
        *,
        wanted: bool = False,
    ) -> Self:
        """Deals the training examples into folds where there are strengths to choose from, and for solvers whose outputs must be scaled.

        A class of two members or more, but fewer than folds, is in as many folds as it has members.

        Args:
          labels: int [N].
          groups: N names, of what must stay in one fold; None = every row by itself.
          class_names, strengths, folds: see above.
          seed: another seed deals otherwise.
          solver: see `fit_linear`. The nearest class mean has no penalty.
          wanted: whether out-of-fold logits are wanted where nothing is chosen and nothing must be scaled.

        Raises:
          UserError: for strengths to choose from where every class has one member only.
        """
        numbers = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
        strengths, names = (0.0,) if solver == "nearest_mean" else tuple(strengths), tuple(class_names)
        choosing = len(strengths) != 1 or solver == "ridge"
        units = np.bincount(np.unique(np.stack([labels, numbers]), axis=1)[0], minlength=len(names))  # groups of each class
        several = units[labels] > 1
        if choosing and not several.any():
            raise UserError(
                "Every class has one training image (or group), so that none can be held out to choose a penalty by: use "
                "config.probe.solver='nearest_mean', or 'logistic' with one config.probe.l2; or add images."
            )
        if not (choosing or wanted or solver == "nearest_mean") or not several.any():
            return cls(strengths, 0, None, names, numbers)
        folds = possible_folds(labels, numbers, folds)
        only = " with config.probe.solver='logistic'" if solver == "ridge" else ""
        hint = f"lower config.probe.folds, or set one config.probe.l2{only}, which needs no folds"
        fold = np.full(len(labels), -1, np.int64)
        dealt = groups if groups is None else np.asarray(groups)[several]
        fold[several] = assign_folds(labels[several], dealt, folds, seed, class_names, hint)
        return cls(strengths, folds, fold, names, numbers)

    @property
    def held_out(self) -> np.ndarray:
        """The examples that are in a fold, int64 [M]."""
        return np.zeros(0, np.int64) if self.fold is None else np.flatnonzero(self.fold >= 0)

    @property
    def fold_of_held_out(self) -> np.ndarray:
        """The fold of each of these, int64 [M]."""
        return np.zeros(0, np.int64) if self.fold is None else self.fold[self.held_out]


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear head on plain features.

    Attributes:
      kernel, bias: float32 [D, C] and [C].
      about: what results.json's `probe` says of it.
      out_of_fold: float32 [M, C], the logits of each example of `CrossValidation.held_out` by the head that was solved likewise without
        its fold; None where there are no folds.
    """

    kernel: np.ndarray
    bias: np.ndarray
    about: dict[str, Any]
    out_of_fold: np.ndarray | None


class _Path(Protocol):
    """Solves for some subsets of scaled features; `LogisticPath`, `RidgePath`, `NearestMeanPath`."""

    def along(self, strengths: Iterable[float], *, start: Solutions | None = None, tolerance: float) -> Iterator[Solutions]: ...


@dataclasses.dataclass(frozen=True)
class _Tried:
    """A strength, by the folds."""

    l2: float
    losses: np.ndarray  # float64 [M], of `scale` · `logits`
    logits: np.ndarray  # float32 [M, C], out of fold
    scale: float  # that makes logits of outputs
    gradient_norm: float
    solved: Solutions  # of scaled features, the mean over folds: where the fit to all examples starts


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    validation: CrossValidation,
    *,
    solver: str = "logistic",
    scaling: str = "standardize",
    class_weight: np.ndarray | None = None,
    console: Console | None = None,
) -> Linear:
    """Solves the head for every strength without each fold, chooses one, and solves the head on all examples.

    It is the strongest penalty whose mean cross-entropy on held-out examples is within one standard error of the lowest (`ties`). Over the
    data that `Scaling` speaks of this has 0.1 points more right than the lowest loss itself.

    Means and deviations are those of all of `features`: they know no labels, and so the folds share one rotation of the features. Augmented
    views count as examples in training; the plain ones (the first) are what is held out and scored.

    Args:
      features: float32 [N, D] or [N, V, D].
      labels: int [N].
      validation: the strengths, and the folds in which they are tried.
      solver: "logistic", "ridge" or "nearest_mean", which has no penalty, and knows neither `scaling` nor `class_weight`.
      scaling: of the features whose weights the penalty is on, see `Scaling`.
      class_weight: float32 [C], or None.
      console: for the progress.
    """
    problem = _Problem.create(features, labels, validation, solver, class_weight)
    with few_threads(problem.features.size):
        return problem.solved(scaling, console or Console(quiet=True))


@dataclasses.dataclass(frozen=True)
class _Problem:
    """What `fit_linear` was given; V views of N examples."""

    features: np.ndarray  # [N · V, D]
    labels: np.ndarray  # [N]
    views: int
    validation: CrossValidation
    solver: str
    weight: np.ndarray  # float64 [N]

    @classmethod
    def create(
        cls, features: np.ndarray, labels: np.ndarray, validation: CrossValidation, solver: str, class_weight: np.ndarray | None
    ) -> Self:
        views = features.shape[1] if features.ndim == 3 else 1
        weight = np.ones(len(labels)) if class_weight is None else class_weight[labels].astype(np.float64)
        return cls(features.reshape(-1, features.shape[-1]), labels, views, validation, solver, weight)

    @property
    def everything(self) -> np.ndarray:
        """The weights of all examples, [1, N · V]."""
        return np.repeat(self.weight[None], self.views, axis=1)

    @property
    def without_each_fold(self) -> np.ndarray:
        """The weights of the subsets that lack a fold, [K, N · V]."""
        subsets = [np.where(self.validation.fold == k, 0, self.weight) for k in range(self.validation.folds)]
        return np.repeat(np.stack(subsets), self.views, axis=1)

    @property
    def width(self) -> int:
        """D."""
        return self.features.shape[1]

    @property
    def held_labels(self) -> np.ndarray:
        return self.labels[self.validation.held_out]

    @property
    def held_weight(self) -> np.ndarray:
        return self.weight[self.validation.held_out]

    @property
    def never_held_out(self) -> list[str]:
        """Names of the classes of which an example is in no fold."""
        fold = self.validation.fold
        return [] if fold is None else sorted({self.validation.class_names[label] for label in self.labels[fold < 0]})

    def solved(self, scaling: str, console: Console) -> Linear:
        """See `fit_linear`."""
        means = self.solver == "nearest_mean"
        scales = Scaling(np.zeros(self.width, np.float32), np.ones(self.width, np.float32)) if means else Scaling.of(self.features, scaling)
        table, l2, scale, start, held = None, self.validation.strengths[0] if self.validation.strengths else 0.0, 1.0, None, None
        weights = self.everything if self.validation.fold is None else self.without_each_fold
        examples, solver_of = self.examples(scales), _PATHS[self.solver]
        if self.validation.fold is not None:
            with progress.bar(console, "{task.fields[note]}") as bar:
                task = bar.add_task("penalties", total=None, note="")
                tried = []
                for one in self.tried(scales, solver_of(examples, weights)):
                    tried.append(one)
                    bar.update(task, advance=1, note=f"l2 {one.l2:.2g}")
            chosen = self.strongest_tied(tried)
            table = [self.row(one) for one in sorted(tried, key=self._place)]
            l2, scale, start, held = chosen.l2, chosen.scale, chosen.solved, np.float32(chosen.scale) * chosen.logits
        elif means:
            scale = nearest_mean.SHARPNESS
        solved = scales.fold(next(solver_of(examples, self.everything).along([l2 / scales.unit], start=start, tolerance=TOLERANCE)))
        about = {
            "scaling": None if means else scaling,
            "l2": None if means else l2,
            "folds": self.validation.folds or None,
            "gradient_norm": float(solved.gradient_norm[0, 0]),
            "cross_validation": table,
            "never_held_out": self.never_held_out,
        }
        return Linear(scale * solved.kernel[0, 0], scale * solved.bias[0, 0], about, held)

    def examples(self, scaling: Scaling) -> Examples:
        """All views, scaled."""
        labels = np.repeat(self.labels, self.views)
        return Examples(self.features, labels, len(self.validation.class_names), scaling.mean, scaling.deviation)

    def tried(self, scaling: Scaling, path: _Path) -> Iterator[_Tried]:
        """Tries the strengths that are given, or those of a path."""
        if self.validation.strengths:
            yield from self._along(scaling, path, sorted(self.validation.strengths, reverse=True))
            return
        found: list[_Tried] = []
        for one in self._along(scaling, path, _decades(range(STRONG, WEAKEST - 1, -1), scaling.unit)):
            found.append(one)
            yield one
            if self._turned(found):
                break
        for exponent in range(STRONG + 1, STRONGEST + 1):
            if self.strongest_tied(found).l2 < max(one.l2 for one in found):
                break
            for one in self._along(scaling, path, _decades([exponent], scaling.unit)):
                found.append(one)
                yield one

    def _along(self, scaling: Scaling, path: _Path, strengths: Sequence[float]) -> Iterator[_Tried]:
        """Tries one strength after another, in descending order, as many as are asked for."""
        solved = path.along((l2 / scaling.unit for l2 in strengths), tolerance=_TOLERANCE)
        return (self._scored(scaling, *one) for one in zip(strengths, solved, strict=True))

    def _scored(self, scaling: Scaling, l2: float, solved: Solutions) -> _Tried:
        plain, held, fold = scaling.fold(solved), self.validation.held_out, self.validation.fold_of_held_out
        logits = np.zeros((len(held), len(self.validation.class_names)), np.float32)
        for k in range(self.validation.folds):
            at = np.flatnonzero(fold == k)
            logits[at] = self.features[held[at] * self.views] @ plain.kernel[k, 0] + plain.bias[k, 0]
        scale = _SCALES[self.solver](logits, self.held_labels, self.held_weight)
        start = Solutions(solved.kernel.mean(0)[None], solved.bias.mean(0)[None], np.zeros((1, 1)))
        losses = cross_entropy(scale * logits.astype(np.float64), self.held_labels)
        return _Tried(float(l2), losses, logits, scale, float(solved.gradient_norm.max()), start)

    def _place(self, one: _Tried) -> float:
        """Where results.json names a strength: as they were given, and those of a path from the weakest on."""
        return self.validation.strengths.index(one.l2) if self.validation.strengths else one.l2

    def _means(self, tried: Sequence[_Tried]) -> np.ndarray:
        return ties.mean(np.stack([one.losses for one in tried]), self.held_weight)

    def _turned(self, tried: Sequence[_Tried]) -> bool:
        """Whether weaker penalties no longer pay: the last is worse by more than a standard error, or a decade brought no lower loss."""
        since = len(tried) - 1 - int(np.argmin(self._means(tried)))
        return since >= len(_DECADE) or (since > 0 and not self._tied(tried)[-1])

    def _tied(self, tried: Sequence[_Tried]) -> np.ndarray:
        """Which are as good as the best, bool [M]."""
        groups = self.validation.groups[self.validation.held_out]
        return ties.with_best(np.stack([one.losses for one in tried]), self.held_weight, groups)

    def strongest_tied(self, tried: Sequence[_Tried]) -> _Tried:
        """The strongest penalty that is as good as the best one."""
        return max(itertools.compress(tried, self._tied(tried)), key=lambda one: one.l2)

    def row(self, one: _Tried) -> dict[str, Any]:
        """What results.json says of it."""
        top1 = float(np.mean(one.logits.argmax(1) == self.held_labels))
        return {"l2": one.l2, "loss": float(ties.mean(one.losses, self.held_weight)), "top1": top1, "gradient_norm": one.gradient_norm}


def _decades(exponents: Iterable[int], unit: float) -> list[float]:
    return [float(f"{unit * 10.0 ** (exponent + step):.2g}") for exponent in exponents for step in _DECADE]


def _best_scale(outputs: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """The factor that makes a regression's outputs the best logits."""
    from scipy.optimize import minimize_scalar  # slow to import

    found = minimize_scalar(
        lambda log_scale: ties.mean(cross_entropy(np.exp(log_scale) * outputs.astype(np.float64), labels), weight),
        bounds=(-7, 7),
        method="bounded",
    )
    return float(np.exp(found.x))


_PATHS: dict[str, Callable[[Examples, np.ndarray], _Path]] = {
    "logistic": LogisticPath,
    "ridge": RidgePath,
    "nearest_mean": nearest_mean.NearestMeanPath,
}
_SCALES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "logistic": lambda outputs, labels, weight: 1.0,
    "ridge": _best_scale,
    "nearest_mean": nearest_mean.scale_of,
}
