"""A view of an image: drawn, resampled once, then put through the operations of the host, in the order of the package's docstring."""

import dataclasses
from typing import Any

import cv2
import numpy as np

from imgclf.data.augment import pixels
from imgclf.data.augment.draws import Draw, draw, evaluation
from imgclf.data.augment.geometry import Size, resample


def render(  # noqa: PLR0913  (options by name)
    image: np.ndarray,
    drawn: Draw,
    size: Size,
    resize: str = "squash",
    *,
    crop_fraction: float = 1.0,
    fill: str = "nearest",
    fill_value: int = 0,
    full_size: Size | None = None,
) -> np.ndarray:
    """Makes the view of an image that `drawn` describes, as far as the host does it.

    Args:
      image: uint8 [h, w, 3], whole or decoded at a reduced scale.
      drawn: the parameters.
      size: (height, width) of the result.
      resize: squash | crop | pad.
      crop_fraction: of resize=crop.
      fill: nearest | constant | reflect | wrap, what stands outside the image, also around resize=pad.
      fill_value: of constant, 0..255.
      full_size: (height, width) before a reduced decode.

    Returns:
      uint8 [H, W, 3].
    """

    def resampled(drawn: Draw) -> np.ndarray:
        return resample(image, drawn, size, resize, crop_fraction=crop_fraction, fill=fill, fill_value=fill_value, full_size=full_size)

    if len(drawn.policy) < 2:
        out = resampled(drawn)
        return pixels.apply(out, (*drawn.policy[0].pixels, *drawn.pixels) if drawn.policy else drawn.pixels)
    plain = resampled(dataclasses.replace(drawn, policy=()))
    mixed, total = np.zeros(plain.shape, np.float32), 0.0
    for chain in drawn.policy:
        if chain.weight == 0:
            continue
        view = resampled(dataclasses.replace(drawn, policy=(chain,))) if chain.turns else plain
        total += chain.weight
        cv2.accumulateWeighted(pixels.apply(view, chain.pixels), mixed, chain.weight / total)  # the mean of those so far
    return pixels.apply(cv2.convertScaleAbs(mixed), drawn.pixels)


def view(
    image: np.ndarray,
    size: Size,
    resize: str = "squash",
    augment: Any | None = None,
    rng: np.random.Generator | None = None,
    *,
    crop_fraction: float = 1.0,
) -> np.ndarray:
    """Shows an image as evaluation does, or as training does with this generator, before the training step's part.

    Args:
      image: uint8 [h, w, 3].
      size: (height, width) of the result.
      resize: squash | crop | pad.
      augment: `config.augment`; None = its defaults. What stands outside the image is taken from it in evaluation too.
      rng: see `view_rng`; None = the view of evaluation.
      crop_fraction: `config.data.crop_fraction`.

    Returns:
      uint8 [H, W, 3], never the memory of `image`.
    """
    drawn = draw(rng, augment) if augment is not None and rng is not None else evaluation(augment)
    fill, fill_value = ("nearest", 0) if augment is None else (augment.fill, augment.fill_value)
    out = render(image, drawn, size, resize, crop_fraction=crop_fraction, fill=fill, fill_value=fill_value)
    return out.copy() if np.may_share_memory(out, image) else out
