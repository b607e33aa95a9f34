"""The nearest class mean: a head for classes of a few photos, which has nothing to fit but one scale.

Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero cost" (TPAMI 2013); Snell et al.,
"Prototypical networks for few-shot learning" (NeurIPS 2017). An image goes to the class whose mean, of features of length 1, points most
nearly its way:

    logit of class c = scale · x·m_c,        m_c = Σ x_i/‖x_i‖ over the class, brought to length 1

As every m_c has length 1, the nearest mean does not depend on the length of x: the head is a linear one, and prediction needs nothing new.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from imgclf.probes.logistic import Examples, Solutions, cross_entropy

# The scale times the usual length of a feature, where it can't be estimated, and the middle of its prior where it can: the best on new
# photos was 8 to 39 with one photo a class, 15 to 50 with two to five (MobileNetV2 of two widths; clothes, film figures, CIFAR-10).
SHARPNESS, PRIOR_SD = 20.0, 0.5
_ROWS = 8192  # of features that are read at once


@dataclasses.dataclass(frozen=True)
class NearestMeanPath:
    """The class means of K subsets, one solution for all strengths (L = 1). Attributes as `LogisticPath` has them; nothing is scaled."""

    examples: Examples
    weights: np.ndarray

    def along(self, strengths: Iterable[float], *, start: Solutions | None = None, tolerance: float = 0.0) -> Iterator[Solutions]:
        """The class means once for each strength; see `LogisticPath.along`. There is nothing to start from or to converge to."""
        del start, tolerance
        return (self.solve() for _ in strengths)

    def solve(self) -> Solutions:
        """Finds the class means of every subset; there is no penalty.

        The outputs are x·m_c over the mean length of all features, which is a cosine for a feature of that length; `scale_of` makes logits
        of them. A class without a row in a subset has a kernel of zeros there.
        """
        features, labels, classes = self.examples.features, self.examples.labels, self.examples.classes
        subsets, width = len(self.weights), features.shape[1]
        sums, lengths = np.zeros((subsets, classes, width)), 0.0
        member = labels[:, None] == np.arange(classes)
        for begin in range(0, len(features), _ROWS):
            rows = slice(begin, begin + _ROWS)
            x = features[rows].astype(np.float64)
            length = np.linalg.norm(x, axis=1, keepdims=True)
            lengths += length.sum()
            shares = np.asarray(self.weights, np.float64)[:, rows, None] * member[rows]  # [K, n, C]
            sums += np.einsum("knc,nd->kcd", shares, x / np.maximum(length, 1e-12), optimize=True)
        sizes = np.linalg.norm(sums, axis=-1, keepdims=True)
        kernel = sums / np.maximum(sizes, 1e-300) / max(lengths / len(features), 1e-12)
        kernel = kernel.transpose(0, 2, 1)[:, None].astype(np.float32)
        return Solutions(kernel, np.zeros((subsets, 1, classes), np.float32), np.zeros((subsets, 1)))


def scale_of(outputs: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """The factor that makes the outputs the best logits of examples that were held out, with a log-normal prior around `SHARPNESS`.

    Without the prior, the four photos of two classes that are all on the right side would claim certainty.

    Args:
      outputs: float32 [N, C], of each example by means that it is no part of.
      labels: int [N].
      weight: float [N].
    """
    from scipy.optimize import minimize_scalar  # slow to import

    def cost(log_scale: float) -> float:
        losses = cross_entropy(np.exp(log_scale) * outputs.astype(np.float64), labels)
        mean = float(losses @ weight / weight.sum())
        return len(labels) * mean + 0.5 * float((log_scale - np.log(SHARPNESS)) / PRIOR_SD) ** 2

    found = minimize_scalar(cost, bounds=(-2, 8), method="bounded")
    return float(np.exp(found.x))
