"""Does a probability of 0.9 mean right nine times out of ten? Expected calibration error and its bins."""

import numpy as np

BINS = 15  # as in Guo et al. 2017


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> tuple[float, list[dict]]:
    """Returns the expected calibration error and the bins it was summed over.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (https://arxiv.org/abs/1706.04599), equation 3: equal-width bins
    (lo, hi] of the predicted class's probability; the error is the mean over examples of |accuracy − mean confidence| of their bin.

    Args:
      confidence: [N] probability of the predicted class, in [0, 1].
      correct: bool [N], whether the predicted class was the true one.
      bins: number of bins.

    Returns:
      The error in [0, 1], and per bin a dict of `lo`, `hi`, `n`, and the mean `confidence` and `accuracy` (None in an empty bin).

    Raises:
      ValueError: if there are no examples.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if not len(confidence):
        raise ValueError("no examples: the calibration error of nothing is undefined")
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    divisor = np.maximum(counts, 1)
    mean_confidence = np.bincount(number, confidence, bins) / divisor
    accuracy = np.bincount(number, correct, bins) / divisor
    error = float(np.sum(counts * np.abs(accuracy - mean_confidence)) / len(confidence))
    rows = [
        {
            "lo": float(edges[i]),
            "hi": float(edges[i + 1]),
            "n": int(counts[i]),
            "confidence": float(mean_confidence[i]) if counts[i] else None,
            "accuracy": float(accuracy[i]) if counts[i] else None,
        }
        for i in range(bins)
    ]
    return error, rows
