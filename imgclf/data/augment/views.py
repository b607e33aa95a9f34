"""A view of an image: drawn, resampled once, then put through the operations of the host, in the order of the package's docstring."""

from typing import Any

import cv2
import numpy as np

from imgclf.data.augment.draws import Draw, draw
from imgclf.data.augment.geometry import Size, resample


def render(
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
      fill: nearest | constant | reflect, what stands outside the image, also around resize=pad.
      fill_value: of constant, 0..255.
      full_size: (height, width) before a reduced decode.

    Returns:
      uint8 [H, W, 3].
    """
    out = resample(image, drawn, size, resize, crop_fraction=crop_fraction, fill=fill, fill_value=fill_value, full_size=full_size)
    return _brightened(out, drawn)


def view(
    image: np.ndarray,
    size: Size,
    resize: str = "squash",
    augment: Any | None = None,
    rng: np.random.Generator | None = None,
    *,
    crop_fraction: float = 1.0,
) -> np.ndarray:
    """Shows an image as training does with this generator, or as evaluation does.

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
    drawn = Draw() if augment is None or rng is None else draw(rng, augment)
    fill, fill_value = ("nearest", 0) if augment is None else (augment.fill, augment.fill_value)
    out = render(image, drawn, size, resize, crop_fraction=crop_fraction, fill=fill, fill_value=fill_value)
    return out.copy() if np.may_share_memory(out, image) else out


def _brightened(image: np.ndarray, drawn: Draw) -> np.ndarray:
    """Multiplies the pixels, rounded; what gets brighter than white is white, where retrain.py would feed it on."""
    return image if drawn.brightness == 1 else cv2.convertScaleAbs(image, alpha=drawn.brightness)
