"""The nearest class mean: a head for classes of a few photos, which has nothing to fit but one scale.

Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero cost" (TPAMI 2013); Snell et al.,
"Prototypical networks for few-shot learning" (NeurIPS 2017). An image goes to the class whose mean, of features of length 1, points most
nearly its way:

    logit of class c = scale · x·m_c,        m_c = Σ x_i/‖x_i‖ over the class, brought to length 1

As every m_c has length 1, the nearest mean does not depend on the length of x: the head is a linear one, and prediction needs nothing new.
"""

import dataclasses
from typing import Self

import numpy as np
import scipy.optimize

from imgclf.probes.logistic import Solutions

# The scale times the usual length of a feature, where it can't be estimated, and the middle of its prior where it can: the best on new
# photos was 8 to 39 with one photo a class, 15 to 50 with two to five (MobileNetV2 of two widths; clothes, film figures, CIFAR-10).
SHARPNESS, PRIOR_SD = 20.0, 0.5
_ROWS = 8192  # of features that are read at once


def fit_nearest_mean(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int) -> Solutions:
    """Finds the class means of every subset; there is no penalty, so that the solutions have one strength (L = 1).

    The outputs are x·m_c over the mean length of all features, which is a cosine for a feature of that length; `scale_of` makes logits
    of them.

    Args:
      features: float32 [N, D].
      labels: int [N], below `classes`.
      weights: float [K, N], 0 where a row is not in the subset. A class without a row in a subset has a kernel of zeros there.
      classes: C.
    """
    subsets, width = len(weights), features.shape[1]
    sums, lengths = np.zeros((subsets, classes, width)), 0.0
    member = labels[:, None] == np.arange(classes)
    for start in range(0, len(features), _ROWS):
        rows = slice(start, start + _ROWS)
        x = features[rows].astype(np.float64)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        lengths += length.sum()
        shares = np.asarray(weights, np.float64)[:, rows, None] * member[rows]  # [K, n, C]
        sums += np.einsum("knc,nd->kcd", shares, x / np.maximum(length, 1e-12), optimize=True)
    sizes = np.linalg.norm(sums, axis=-1, keepdims=True)
    kernel = sums / np.maximum(sizes, 1e-300) / max(lengths / len(features), 1e-12)
    kernel = kernel.transpose(0, 2, 1)[:, None].astype(np.float32)
    return Solutions(kernel, np.zeros((subsets, 1, classes), np.float32), np.zeros((subsets, 1)))


@dataclasses.dataclass(frozen=True)
class NearestMeanPath:
    """The class means of K subsets, as `LogisticPath` has its solutions; there is one for all strengths. Attributes as in `create`."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    classes: int

    @classmethod
    def create(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        classes: int,
        *,
        mean: np.ndarray | float = 0.0,
        deviation: np.ndarray | float = 1.0,
    ) -> Self:
        """Takes what `fit_nearest_mean` takes; features are not scaled."""
        del mean, deviation
        return cls(features, labels, weights, classes)

    def on(self, weights: np.ndarray) -> Self:
        """The same features for other subsets."""
        return dataclasses.replace(self, weights=weights)

    def solve(self, strengths: np.ndarray, *, start: Solutions | None = None) -> Solutions:
        """The means; they need no start."""
        del strengths, start
        return fit_nearest_mean(self.features, self.labels, self.weights, self.classes)


def scale_of(outputs: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """The factor that makes the outputs the best logits of examples that were held out, with a log-normal prior around `SHARPNESS`.

    Without the prior, the four photos of two classes that are all on the right side would claim certainty.

    Args:
      outputs: float32 [N, C], of each example by means that it is no part of.
      labels: int [N].
      weight: float [N].
    """

    def cost(log_scale: float) -> float:
        logits = np.exp(log_scale) * outputs.astype(np.float64)
        losses = scipy.special.logsumexp(logits, axis=1) - np.take_along_axis(logits, labels[:, None], 1)[:, 0]
        mean = float(losses @ weight / weight.sum())
        return len(labels) * mean + 0.5 * float((log_scale - np.log(SHARPNESS)) / PRIOR_SD) ** 2

    found = scipy.optimize.minimize_scalar(cost, bounds=(-2, 8), method="bounded")
    return float(np.exp(found.x))
