"""Linear heads on cached features, and the choice of their penalty by stratified, grouped cross-validation."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.special

from imgclf.data.splits import stratify
from imgclf.training.logistic import fit_logistic

DEFAULT_STRENGTHS = tuple(float(f"{10.0**exponent:.2g}") for exponent in np.arange(-4, 1.1, 0.5))  # of features with unit variance


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The standardisation of features: (x − mean) / deviation, 1 where a feature is constant. Both float32 [D]."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Scaling":
        mean = features.mean(0, dtype=np.float64)
        deviation = features.std(0, dtype=np.float64)
        return cls(mean.astype(np.float32), np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0).astype(np.float32))

    def apply(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) / self.deviation

    def fold(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kernel [D, C] and bias [C] that give on plain features what these give on standardised ones."""
        kernel = kernel / self.deviation[:, None].astype(np.float64)
        return kernel.astype(np.float32), (bias - self.mean.astype(np.float64) @ kernel).astype(np.float32)


def assign_folds(
    labels: np.ndarray, groups: Sequence[str] | None, folds: int, seed: int, class_names: Sequence[str], hint: str
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


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | None,
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
    x = Scaling.of(features).apply(features)
    weights = (fold != np.arange(folds)[:, None]).astype(np.float32)
    solved = fit_logistic(x, labels, weights, np.array([l2]), len(names))
    logits = np.zeros((len(labels), len(names)), np.float32)
    for k in range(folds):
        held = fold == k
        logits[held] = x[held] @ solved.kernel[k, 0] + solved.bias[k, 0]
    return scipy.special.softmax(logits, axis=1)
