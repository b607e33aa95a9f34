"""Boxes that the training step erases: random erasing and cutout.

Random erasing: Zhong et al., AAAI 2020, with the draws of torchvision's RandomErasing. Cutout: DeVries and Taylor, 2017
(https://arxiv.org/abs/1708.04552), a square whose centre may lie anywhere, cut off at the image's edges.
"""

import dataclasses
import math
from typing import Any

import numpy as np

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Erase:
    """What is erased of one view."""

    tries: tuple[tuple[float, float, float, float], ...] = ()  # of (share of the area, height/width, y and x position in [0, 1))
    square: tuple[float, float] = (0.0, 0.0)  # (y, x) of cutout's centre in [0, 1)
    seed: int = 0  # of the noise, below 2**32


def is_on(augment: Any) -> bool:
    """Whether `config.augment` erases anything."""
    return boxes_per_image(augment) > 0


def boxes_per_image(augment: Any) -> int:
    """The boxes that a batch carries for each image; some may be empty."""
    return bool(augment.erase) + bool(augment.cutout)


def draw(rng: np.random.Generator, augment: Any) -> Erase | None:
    """Draws what is erased of one view from its stream of kind ERASE; None where nothing erases."""
    if not is_on(augment):
        return None
    u, tries = rng.random(4), rng.random((_TRIES, 4))
    drawn: tuple[tuple[float, float, float, float], ...] = ()
    if u[0] < augment.erase:
        (low, high), (narrow, wide) = augment.erase_area, augment.erase_ratio
        tries[:, 0] = low + (high - low) * tries[:, 0]
        tries[:, 1] = np.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * tries[:, 1])
        drawn = tuple(map(tuple, tries.tolist()))
    return Erase(tries=drawn, square=(float(u[1]), float(u[2])), seed=int(u[3] * 2**32))


def boxes(drawn: Erase, augment: Any, size: tuple[int, int]) -> np.ndarray:
    """Places what is erased in a view of (height, width) pixels.

    Returns:
      int32 [boxes_per_image, 4]: top, left, bottom and right, the last two not included; an empty box is all 0.
    """
    found = [_rectangle(drawn, size)] if augment.erase else []
    if augment.cutout:
        found.append(_square(drawn, augment.cutout, size))
    return np.array(found, np.int32).reshape(-1, 4)


def _rectangle(drawn: Erase, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first try that fits: torchvision's RandomErasing.get_params."""
    height, width = size
    for share, ratio, y, x in drawn.tries:
        area = height * width * share
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(y * (height - h + 1)), int(x * (width - w + 1))
            return top, left, top + h, left + w
    return 0, 0, 0, 0


def _square(drawn: Erase, side: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    top, left = (int(u * pixels) - side // 2 for u, pixels in zip(drawn.square, size, strict=True))
    return max(0, top), max(0, left), min(size[0], top + side), min(size[1], left + side)
