"""Sets of classes that hold the true one with a chosen frequency: split conformal prediction.

The score of an example is 1 − the probability of its true class ("LAC"): Sadinle, Lei and Wasserman, "Least ambiguous set-valued
classifiers with bounded error levels", JASA 114 (2019); Angelopoulos and Bates, "A gentle introduction to conformal prediction"
(https://arxiv.org/abs/2107.07511), section 1. Over calibration sets and new images drawn alike, the sets hold the truth in at least a
share 1 − alpha of cases, whatever the classifier. The likeliest class is always put into the set, so that no set is empty; that can only
make the sets hold the truth more often.
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
