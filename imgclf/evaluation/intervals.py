"""Intervals of proportions and of means, and the correction of several p-values: the one place for what numbers leave open.

Wilson's interval and Holm's correction are a few lines each. statsmodels has both and gives the same numbers, but is 67 MB to install, and
scipy lacks Holm and takes whole counts only, where a mean over seeds is a fraction; the tests compare with scipy and with published values.
scipy.stats.bootstrap resamples along one axis, and a study's bootstrap goes over images and seeds together.
"""

from collections.abc import Sequence

import numpy as np
import scipy

RESAMPLES = 10_000
_ALIKE = 2  # groups of images that are all alike, which are added to those that tell how alike images are
_BLOCK = 2_000_000  # counts of a bootstrap that are in memory together


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion, without continuity correction.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). It stays inside [0, 1] and
    holds its level for small n and proportions near 0 and 1, where ±1.96 standard errors does not.

    Args:
      successes: 0 ≤ successes ≤ n; a mean over repetitions need not be whole.
      n: number of trials, at least 1; it need not be whole either.
      level: share of such intervals that cover the truth.

    Raises:
      ValueError: if the counts are impossible.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"wilson: {successes} successes of {n} trials are impossible")
    z2 = float(scipy.special.ndtri(0.5 + level / 2)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else float(centre - half)  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == n else float(centre + half)
    return low, high


def mean_of_proportions(successes: Sequence[int], n: Sequence[int]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of several proportions, such as of a balanced accuracy, which is that of the classes' recalls.

    The distances of Wilson's bounds from each proportion are added in squares (MOVER: G. Y. Zou and A. Donner, "Construction of confidence
    limits about effect measures: a general approach", Statistics in Medicine 27, 2008).

    Args:
      successes, n: of each proportion; every n is 1 or more.
    """
    shares = np.asarray(successes) / np.asarray(n)
    bounds = np.array([wilson(right, trials) for right, trials in zip(successes, n, strict=True)])
    down, up = (np.sqrt(np.square(bounds[:, side] - shares).sum()) / len(shares) for side in (0, 1))
    return float(max(0.0, shares.mean() - down)), float(min(1.0, shares.mean() + up))


def clustered(correct: np.ndarray, groups: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Returns an interval of an accuracy on images that come in groups (scenes, crops of one photo), where groups are drawn, not images.

    It is Wilson's, for the number of single images that would tell as much: that at which a proportion has the variance of the mean over
    groups (L. Kish's design effect, "Survey Sampling", 1965), at least the number of groups, at most that of images. How alike a group's
    images are is told by groups with errors; two more are assumed whose images are all alike, so that the number of groups counts where all
    are right. Without them, one error among 64 images of 20 groups counted as if all 64 were single ones. Of 10 to 200 groups of 3 or 5
    images, 93 to 99 % of such intervals held the truth (`experiments/intervals_of_groups.py`). A bootstrap over groups would have no width
    where all are right, and is too narrow for few groups.

    Args:
      correct: bool [N].
      groups: [N], anything that tells groups apart.
      level: as in `wilson`.
    """
    n, share = len(correct), float(np.mean(correct))
    number = np.unique(groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    of_group = np.bincount(number, correct - share)
    variance = count / max(1, count - 1) * float(np.sum(of_group**2)) / n**2
    alone = share * (1 - share)
    effect = n / float(np.clip(alone / variance if variance > 0 else count, count, n))
    wrong = np.bincount(number, ~np.asarray(correct, bool))
    telling = int(min(np.count_nonzero(wrong), np.count_nonzero(wrong < np.bincount(number))))
    effective = n * (telling + _ALIKE) / (telling * effect + _ALIKE * n / count)
    return wilson(share * effective, effective, level)


def central(draws: np.ndarray) -> list[float]:
    """Returns [low, high] of the middle 95 % of resampled values, float [R]: the percentile interval of a bootstrap."""
    return [float(bound) for bound in np.quantile(draws, [0.025, 0.975])]


def paired_proportions(only_a: float, only_b: float, n: float) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of two proportions of the same n things, b − a.

    The adjusted Wald interval of D. G. Bonett and R. M. Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", Journal of Educational and Behavioral Statistics 37, 2012. Unlike a bootstrap, it has a width where no thing
    differs.

    Args:
      only_a, only_b: how many things have the property in one of the two only; they need not be whole.
      n: at least 1.
    """
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(scipy.special.ndtri(0.975)) * float(np.sqrt((share_a + share_b - (share_b - share_a) ** 2) / (n + 2)))
    return max(-1.0, share_b - share_a - half), min(1.0, share_b - share_a + half)


def bootstrap(values: np.ndarray, *, sizes: np.ndarray | None = None, seed: int = 0) -> list[float]:
    """Returns the 95 % interval of a mean by bootstrap over images and, where there are several, over seeds: 10,000 resamples, percentiles.

    Args:
      values: [S, N], of every seed and image.
      sizes: int [N], where `values` are sums over groups of so many images, and groups are drawn; None = single images.
      seed: of the resamples.
    """
    sizes = np.ones(values.shape[1]) if sizes is None else sizes
    block = max(1, _BLOCK // values.shape[1])
    rng = np.random.default_rng(seed)
    return central(np.concatenate([_resampled_means(rng, values, sizes, min(block, RESAMPLES - i)) for i in range(0, RESAMPLES, block)]))


def _resampled_means(rng: np.random.Generator, values: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """Returns the means of `count` resamples of [S, N] over images (or groups of so many) and seeds, float64 [count]."""
    seeds, images = values.shape
    of_images = rng.multinomial(images, np.full(images, 1 / images), count)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), count)
    return np.einsum("rs,rs->r", of_seeds, of_images @ values.T) / (seeds * (of_images @ sizes))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (S. Holm, "A simple sequentially rejective multiple test procedure", 1979)."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected.tolist()
