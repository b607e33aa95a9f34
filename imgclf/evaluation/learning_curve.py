"""How the error falls with the number of training images, and what more of them would bring: a power law with bootstrap intervals.

error(n) = a·n^-b + c, after Hestness et al., "Deep learning scaling is predictable, empirically", 2017. That a learning curve follows it
is an assumption; what speaks against it is looked for by predicting the largest size from the smaller ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.evaluation.intervals import central

EXPONENTS = np.geomspace(0.02, 2.0, 300)  # the best of these is taken; neighbours are 1.5 % apart, finer than any data here can tell
MIN_SIZES = 4  # for three parameters
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """error = a·n^-b + c, for n training images; each of the three is a float or an array of fits, [R]."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def __call__(self, n: float) -> np.ndarray:
        """The error at n images."""
        return self.a * n**-self.b + self.c

    def needed(self, error: float | np.ndarray) -> np.ndarray:
        """The number of images that brings the error down to this; infinite where it never gets there."""
        above = np.maximum(error - self.c, 0)
        with np.errstate(divide="ignore", over="ignore"):
            return np.where(above > 0, (np.maximum(self.a, 1e-300) / np.maximum(above, 1e-300)) ** (1 / self.b), np.inf)


def fit(sizes: Sequence[float], errors: np.ndarray) -> PowerLaw:
    """Least squares with a ≥ 0 and 0 ≤ c: for each exponent the other two are linear and solved exactly, so that no start can mislead.

    Args:
      sizes: K numbers of training images.
      errors: shares of 1, [..., K].

    Returns:
      the law of each row, [...].
    """
    errors = np.asarray(errors, np.float64)
    basis = np.asarray(sizes, np.float64) ** -EXPONENTS[:, None]  # [E, K]
    centred = basis - basis.mean(1, keepdims=True)
    mean = errors.mean(-1, keepdims=True)
    a = (errors - mean) @ centred.T / (centred**2).sum(1)  # [..., E]
    c = mean - a * basis.mean(1)
    through_zero = errors @ basis.T / (basis**2).sum(1)  # the best where c would be below 0
    a, c = np.where(c < 0, through_zero, a), np.maximum(c, 0)
    a, c = np.where(a < 0, 0, a), np.where(a < 0, mean, c)  # errors that don't fall
    residual = np.square(errors[..., None, :] - a[..., None] * basis - c[..., None]).sum(-1)
    best = residual.argmin(-1)[..., None]
    a, c = (np.take_along_axis(values, best, -1)[..., 0] for values in (a, c))
    return PowerLaw(a, EXPONENTS[best[..., 0]], c)


def resampled_errors(correct: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Errors of each size in bootstrap resamples over images and, of several, over seeds; the same in all sizes, which are paired.

    Args:
      correct: bool [K, S, N]: size, seed, test image.

    Returns:
      f64 [resamples, K].
    """
    _, seeds, images = correct.shape
    rng = np.random.default_rng(seed)
    of_images = rng.multinomial(images, np.full(images, 1 / images), resamples).astype(np.float64)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(np.float64)
    wrong = 1.0 - correct
    by_seed = np.stack([of_images @ of_size.T for of_size in wrong])  # [K, R, S]
    return np.einsum("krs,rs->rk", by_seed, of_seeds) / (seeds * images)


def extrapolate(correct: Mapping[int, np.ndarray], *, factors: Sequence[float] = (2, 4), seed: int = 0) -> dict[str, Any]:
    """Fits the curve, continues it, and says whether the data support that.

    Args:
      correct: number of training images (of a class, or in all) → bool [S, N], the same seeds and test images in the same order.
      factors: how many times the largest number to go to.
      seed: of the bootstrap.

    Returns:
      `points`: {images, error, error_ci95} of each size; `law`: a, b, c, each with an interval; `curve`: {images, error, error_ci95} of
      the law from the smallest size to the last factor; `beyond`: {images, factor, error,
      error_ci95, gain, gain_ci95 (of accuracy, over the fitted error at the largest size)}; `backtest`: the largest size's error,
      predicted from the smaller ones: {images, predicted, predicted_ci95, measured, difference_ci95}, None where they are too few;
      `unsupported`: why the continuation is not to be relied upon, "" where nothing speaks against it.
    """
    sizes = sorted(correct)
    stacked = np.stack([correct[size] for size in sizes]).astype(bool)
    errors, resampled = 1 - stacked.mean((1, 2)), resampled_errors(stacked, seed=seed)
    largest = sizes[-1]
    points = [
        {"images": size, "error": float(error), "error_ci95": central(column)}
        for size, error, column in zip(sizes, errors, resampled.T, strict=True)
    ]
    about: dict[str, Any] = {"points": points, "law": None, "curve": [], "beyond": [], "backtest": None}
    if len(sizes) < MIN_SIZES:
        return about | {"unsupported": f"{len(sizes)} sizes don't determine the three parameters of a curve; measure {MIN_SIZES} or more"}
    law, laws = fit(sizes, errors), fit(sizes, resampled)
    about["law"] = {name: float(getattr(law, name)) for name in "abc"} | {f"{name}_ci95": central(getattr(laws, name)) for name in "abc"}
    for n in (*np.geomspace(sizes[0], largest, 15), *np.geomspace(largest, largest * max(factors), 10)[1:]):
        about["curve"].append({"images": float(n), "error": float(law(n)), "error_ci95": central(laws(n))})
    for factor in factors:
        n = largest * factor
        row = {"images": n, "factor": factor, "error": float(law(n)), "error_ci95": central(laws(n))}
        about["beyond"].append(row | {"gain": float(law(largest) - law(n)), "gain_ci95": central(laws(largest) - laws(n))})
    about["backtest"] = _backtest(sizes, errors, resampled)
    return about | {"unsupported": _objection(sizes, about, factors)}


def _backtest(sizes: list[int], errors: np.ndarray, resampled: np.ndarray) -> dict[str, Any] | None:
    if len(sizes) <= MIN_SIZES:
        return None
    predicted = fit(sizes[:-1], resampled[:, :-1])(sizes[-1])
    return {
        "images": sizes[-1],
        "predicted": float(fit(sizes[:-1], errors[:-1])(sizes[-1])),
        "predicted_ci95": central(predicted),
        "measured": float(errors[-1]),
        "difference_ci95": central(predicted - resampled[:, -1]),
    }


def _objection(sizes: list[int], about: dict[str, Any], factors: Sequence[float]) -> str:
    """Returns the gravest objection to relying on the continuation; "" where there is none."""
    span, test = sizes[-1] / sizes[0], about["backtest"]
    if span < max(factors):
        return f"the sizes span a factor of {span:.2g} only, and {max(factors):g} is asked for beyond them"
    if test is None:
        return f"{len(sizes)} sizes leave none to check the curve by; measure one more"
    low, high = test["difference_ci95"]
    if low > 0 or high < 0:
        side = "more" if low > 0 else "less"
        return f"the smaller sizes predict {side} error at {test['images']} images than was measured there: the curve is no power law"
    row = about["beyond"][0]
    if row["gain_ci95"][1] - row["gain_ci95"][0] > 2 * max(row["gain"], 0):
        return f"at {row['factor']:g} times the images the gain's interval is wider than twice the gain"
    return ""
