"""Paired statistics: which of two classifiers is better, on the same images, over the same seeds.

The images are the sample, and the seeds repeat the measurement on them: no interval here shrinks because a study was run with more
seeds on the same pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from imgclf.evaluation.intervals import bootstrap, holm, wilson


def accuracy(correct: np.ndarray) -> dict[str, Any]:
    """Mean accuracy over seeds, with Wilson's interval for the number of images.

    Args:
      correct: bool [S, N]: whether the run of a seed was right on an image.

    Returns:
      `top1`, `top1_ci95` [lo, hi], `images` N, `seeds` S, `seed_sd` (standard deviation of the seeds' accuracies; None for one).
    """
    correct = _checked(correct)
    seeds, images = correct.shape
    by_seed = correct.mean(1)
    top1 = float(by_seed.mean())
    return {
        "top1": top1,
        "top1_ci95": list(wilson(top1 * images, images)),
        "images": images,
        "seeds": seeds,
        "seed_sd": float(by_seed.std(ddof=1)) if seeds > 1 else None,
    }


def sign_flip_test(differences: np.ndarray) -> float:
    """Tests whether the differences by image are symmetric about 0; returns the exact two-sided p-value.

    Each image's difference keeps or changes its sign with probability ½; the distribution of their sum is computed, not sampled. With
    one seed it is McNemar's exact test (Q. McNemar, "Note on the sampling error of the difference between correlated proportions",
    Psychometrika 12, 1947); with several it treats an image with all its seeds as one observation.

    Args:
      differences: int [N], seeds that one arm had right less those that the other had.
    """
    sizes = np.abs(differences[differences != 0]).astype(int)
    if not len(sizes):
        return 1.0
    total = int(sizes.sum())
    pmf = np.zeros(2 * total + 1)
    pmf[total] = 1.0
    for size in sizes:
        pmf = 0.5 * (np.roll(pmf, size) + np.roll(pmf, -size))  # the ends are still 0 where it wraps
    extreme = np.abs(np.arange(-total, total + 1)) >= abs(int(differences.sum()))
    return float(min(1.0, pmf[extreme].sum()))


def paired(correct_a: np.ndarray, correct_b: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0) -> dict[str, Any]:
    """Compares arm b with arm a on the same images and seeds.

    Args:
      correct_a, correct_b: bool [S, N], in the same order of seeds and images.
      groups: [N], anything that tells groups of images apart (scenes, crops of one photo), which are the sample then: the test flips
        groups, the bootstrap draws them; None = each image is one.
      seed: of the bootstrap.

    Returns:
      `difference` of accuracies, b − a; `difference_ci95`, by bootstrap over images and, of several, over seeds (10,000 resamples,
      percentiles); `p` of `sign_flip_test`; `only_a`, `only_b`: images and seeds that one arm alone had right; `images_needed` to
      tell the arms apart at this difference with 80 % power at the 5 % level (None where they don't differ at all).

    Raises:
      ValueError: if the shapes differ.
    """
    a, b = _checked(correct_a), _checked(correct_b)
    if a.shape != b.shape:
        raise ValueError(f"arms of shapes {a.shape} and {b.shape} are not paired")
    images = a.shape[1]
    difference = b.astype(np.int64) - a.astype(np.int64)
    effect = float(difference.mean())
    number = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(number)
    sums = np.stack([np.bincount(number, row) for row in difference]).astype(np.int64)
    # The variance of an image's difference as far as groups let it tell: that of the mean, times the images.
    spread = float(np.square(sums.mean(0) - effect * sizes).sum()) / images
    variance = spread * len(sizes) / (len(sizes) - 1) if len(sizes) > 1 else 0.0
    z = float(scipy.special.ndtri(0.975) + scipy.special.ndtri(0.8))
    return {
        "difference": effect,
        "difference_ci95": bootstrap(sums, sizes=sizes, seed=seed),
        "p": sign_flip_test(sums.sum(0)),
        "only_a": int((difference < 0).sum()),
        "only_b": int((difference > 0).sum()),
        "images_needed": max(2, int(np.ceil(z**2 * variance / effect**2))) if effect else None,
    }


def is_tie(p_holm: float, interval: Sequence[float]) -> bool:
    """Tells whether the data leave two arms undecided.

    A difference must stand both against the chance of the images (p, corrected) and against that of the seeds, which p takes as they are
    and the bootstrap draws anew (the interval lies on one side of 0).
    """
    low, high = interval
    return p_holm >= 0.05 or low <= 0 <= high


def to_baseline(correct: Mapping[str, np.ndarray], baseline: str) -> dict[str, dict[str, Any]]:
    """Compares every other arm with `baseline`: `paired`, with `p_holm`, and `tie`, see `is_tie`.

    Args:
      correct: arm → bool [S, N].
    """
    others = [name for name in correct if name != baseline]
    rows = {name: paired(correct[baseline], correct[name]) for name in others}
    for name, p in zip(others, holm([rows[name]["p"] for name in others]), strict=True):
        rows[name] |= {"p_holm": p, "tie": is_tie(p, rows[name]["difference_ci95"])}
    return rows


def _checked(correct: np.ndarray) -> np.ndarray:
    correct = np.asarray(correct, bool)
    if correct.ndim != 2 or not correct.size:
        raise ValueError(f"expected bool [seeds, images], not shape {correct.shape}")
    return correct
