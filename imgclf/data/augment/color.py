"""Colour jitter as one affine matrix per image: drawn on the host, applied by the training step in one pass over the pixels.

Brightness, contrast and saturation are torchvision's `adjust_*`; the hue turns in YIQ, as in NVIDIA DALI's ColorTwist
(https://docs.nvidia.com/deeplearning/dali, `fn.color_twist`), which is affine where HSV is not. The order is saturation and hue, contrast,
brightness, and pixels are clipped to 0..255 once, at the end.
"""

import dataclasses
import math
from typing import Any

import cv2
import numpy as np

# NTSC's luma and chroma (FCC 1953, 4 digits): grey has no chroma, so that hue and saturation leave it, and the luma of every pixel, as is.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

IDENTITY = np.eye(3, 4, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Color:
    """The colour of one view; as constructed, the image's own."""

    brightness: float = 1.0  # factor
    contrast: float = 1.0  # factor of the distance from the view's mean grey
    saturation: float = 1.0  # factor of the distance from grey of the same luma
    hue: float = 0.0  # degrees
    grayscale: bool = False


def is_on(augment: Any) -> bool:
    """Whether `config.augment` changes colours."""
    if augment.mode == "keras_legacy":  # its brightness is the host's
        return False
    return any((augment.brightness, augment.contrast, augment.saturation, augment.hue, augment.grayscale))


def draw(rng: np.random.Generator, augment: Any) -> Color | None:
    """Draws the colour of one view from its stream of kind COLOR; None where nothing changes colours."""
    if not is_on(augment):
        return None
    u = rng.random(5)
    signed = 2 * u - 1
    return Color(
        brightness=float(1 + augment.brightness * signed[0]),
        contrast=float(1 + augment.contrast * signed[1]),
        saturation=float(1 + augment.saturation * signed[2]),
        hue=float(augment.hue * signed[3]),
        grayscale=bool(u[4] < augment.grayscale),
    )


def matrix(drawn: Color, view: np.ndarray) -> np.ndarray:
    """Composes the colour of one view into an affine map of (red, green, blue, 1) on 0..255.

    Args:
      drawn: the parameters.
      view: uint8 [H, W, 3], whose mean grey is the pivot of the contrast.

    Returns:
      float32 [3, 4].
    """
    saturation = 0.0 if drawn.grayscale else drawn.saturation
    turn = math.radians(drawn.hue)
    c, s = saturation * math.cos(turn), saturation * math.sin(turn)
    linear = np.eye(3) if (c, s) == (1.0, 0.0) else _FROM_YIQ @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _TO_YIQ
    pivot = 0.0 if drawn.contrast == 1 else float(_TO_YIQ[0] @ cv2.mean(view)[:3])  # hue and saturation leave it where it is
    out = np.empty((3, 4))
    out[:, :3] = drawn.brightness * drawn.contrast * linear
    out[:, 3] = drawn.brightness * (1 - drawn.contrast) * pivot
    return out.astype(np.float32)


def apply(view: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """What the training step makes of a view, rounded; for copies that are written to disk.

    Args:
      view: uint8 [H, W, 3].
      affine: float32 [3, 4], see `matrix`.

    Returns:
      uint8 [H, W, 3].
    """
    return np.rint(np.clip(cv2.transform(view.astype(np.float32), affine), 0, 255)).astype(np.uint8)  # of bytes, cv2 rounds the matrix
