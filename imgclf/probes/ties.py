"""Which of several candidates are as good as the best, by the examples that they were all judged on: the rule of one standard error.

Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3: of the candidates whose loss is within one standard error of the
lowest, take the simplest. Here the standard error is that of the *paired* difference to the best, over the same examples: candidates that
err on the same images differ by less than their losses vary. Examples of one group (a scene, copies) count as one.
"""

import numpy as np


def mean(losses: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The weighted mean over examples: [..., N] to [...]."""
    return np.average(losses, axis=-1, weights=weight)


def standard_error(differences: np.ndarray, weight: np.ndarray | None = None, groups: np.ndarray | None = None) -> float:
    """The standard error of a weighted mean of [N] values that are alike within groups.

    Args:
      differences: float [N].
      weight: float [N]; None = all alike.
      groups: int [N], numbers of the groups; None = every example by itself. With a single group nothing is known: infinity.
    """
    weight = np.ones(len(differences)) if weight is None else weight
    groups = np.arange(len(differences)) if groups is None else np.unique(groups, return_inverse=True)[1]
    residual = weight * (differences - mean(differences, weight))
    of_group = np.bincount(groups, residual)
    if len(of_group) < 2:
        return float("inf")
    return float(np.sqrt(len(of_group) / (len(of_group) - 1) * np.sum(of_group**2)) / weight.sum())


def with_best(losses: np.ndarray, weight: np.ndarray | None = None, groups: np.ndarray | None = None) -> np.ndarray:
    """Tells which candidates are no worse than the best by more than one standard error.

    Args:
      losses: float [M, N], of each candidate on each example.
      weight, groups: see `standard_error`.

    Returns:
      bool [M]; the candidate of the lowest mean loss (the first of equal ones) is always among them.
    """
    means = mean(losses, weight)
    best = int(np.argmin(means))
    errors = [standard_error(row - losses[best], weight, groups) for row in losses]
    tied = means - means[best] <= errors
    tied[best] = True
    return tied
