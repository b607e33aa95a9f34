"""Sets of classes that hold the true one with a chosen frequency: split conformal prediction.

The score of an example is 1 − the probability of its true class ("LAC"): Sadinle, Lei and Wasserman, "Least ambiguous set-valued
classifiers with bounded error levels", JASA 114 (2019); Angelopoulos and Bates, "A gentle introduction to conformal prediction"
(https://arxiv.org/abs/2107.07511), section 1. Over calibration sets and new images drawn alike, the sets hold the truth in at least a
share 1 − alpha of cases, whatever the classifier. The likeliest class is always put into the set, so that no set is empty; that can only
make the sets hold the truth more often.

A probe has no calibration set: its threshold comes from out-of-fold probabilities (cross-conformal prediction: Vovk, "Cross-conformal
predictors", Annals of Mathematics and Artificial Intelligence 74, 2015). Of sets that are made by the folds' own heads, CV+, at least
1 − 2 alpha hold the truth whatever the classifier (but for a term that vanishes with n; Barber, Candès, Ramdas and Tibshirani, "Predictive
inference with the jackknife+", Annals of Statistics 49, 2021), and about 1 − alpha in practice. Here one head stands for all of them, the
one that is solved on all images, so that even 1 − 2 alpha holds only as far as a fold more or less changes little.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Conformal:
    """A calibrated rule: a class is in the set if its score 1 − p is at most `threshold`; a threshold of 1 admits all classes."""

    alpha: float  # share of images whose set may miss the truth
    threshold: float
    n: int  # calibration examples

    @property
    def admits_all(self) -> bool:
        return self.threshold >= 1


def calibrate(probabilities: np.ndarray, labels: np.ndarray, alpha: float) -> Conformal:
    """Finds the threshold: the ⌈(n + 1)(1 − alpha)⌉-th smallest of the n scores, or 1 where n is too small for alpha.

    Args:
      probabilities: [n, C] of examples that the classifier was not trained on.
      labels: int [n].
      alpha: in (0, 1); n ≥ (1 − alpha) / alpha examples are needed for a threshold below 1.

    Raises:
      ValueError: if there are no examples, or alpha is not in (0, 1).
    """
    n = len(labels)
    if not n or not 0 < alpha < 1:
        raise ValueError(f"conformal: {n} examples, alpha {alpha}")
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 10 x 0.9 is 9, not 9.000000000000002
    if rank > n:
        return Conformal(alpha, 1.0, n)
    scores = 1.0 - np.take_along_axis(probabilities, np.asarray(labels)[:, None], 1)[:, 0].astype(np.float64)
    return Conformal(alpha, float(np.partition(scores, rank - 1)[rank - 1]), n)


def sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which classes are in each image's set, bool [N, C], for probabilities [N, C]."""
    members = 1.0 - probabilities.astype(np.float64) <= threshold
    np.put_along_axis(members, probabilities.argmax(1)[:, None], True, axis=1)
    return members


def cross_sets(probabilities: np.ndarray, labels: np.ndarray, fold: np.ndarray, alpha: float) -> np.ndarray:
    """Returns the sets of out-of-fold predictions, bool [N, C], each fold's by a threshold that comes from the others.

    Args:
      probabilities: [N, C], of each example by a classifier that was not trained on its fold.
      labels, fold: int [N].
      alpha: see `calibrate`.
    """
    members = np.ones(probabilities.shape, bool)
    for k in np.unique(fold):
        held = fold == k
        members[held] = sets(probabilities[held], calibrate(probabilities[~held], labels[~held], alpha).threshold)
    return members


def promise(alpha: float, *, crossed: bool) -> str:
    """What can be said of how often the sets hold the truth on new images drawn like those that they were calibrated on.

    Args:
      alpha: see `calibrate`.
      crossed: whether the calibration is on out-of-fold predictions.
    """
    if not crossed:
        return f"At least {1 - alpha:.0%} on average over calibration sets, whatever the classifier, for new images drawn like val."
    return (
        f"About {1 - alpha:.0%} for new images drawn like these; what is proven, for sets by the folds' own heads (CV+), is "
        f"{1 - 2 * alpha:.0%} in the worst case, and for the kept head as far as a fold more changes little."
    )
