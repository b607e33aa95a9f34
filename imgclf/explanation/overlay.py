"""A map of contributions laid over the picture that it is of: orange speaks for the class, blue against it."""

import io

import cv2
import numpy as np
from PIL import Image

# Orange and blue are told apart by all kinds of colour vision (M. Okabe and K. Ito, "Color universal design", 2002).
FOR, AGAINST = (230, 126, 0), (0, 96, 200)
_STRONGEST = 0.8  # opacity of the largest contribution


def scale_of(maps: np.ndarray) -> float:
    """The largest contribution, for or against, of maps that are to be compared; at least the smallest positive number."""
    return max(float(np.abs(maps).max(initial=0.0)), float(np.finfo(np.float32).tiny))


def layer(contributions: np.ndarray, size: tuple[int, int], scale: float | None = None) -> np.ndarray:
    """A transparent picture to lie over the view that was explained.

    Args:
      contributions: float32 [h, w], of `cam.maps` or `occlusion.maps`.
      size: (height, width) of the picture; the map is interpolated between its places.
      scale: the contribution of the strongest colour; None = the map's own largest. Maps of one scale can be compared.

    Returns:
      uint8 [H, W, 4], RGBA.
    """
    share = upsampled(contributions, size) / (scale_of(contributions) if scale is None else scale)
    strength = np.clip(np.abs(share), 0, 1)[..., None]
    colour = np.where(share[..., None] > 0, np.array(FOR, np.uint8), np.array(AGAINST, np.uint8))
    return np.concatenate([colour, np.round(255 * _STRONGEST * strength).astype(np.uint8)], -1)


def overlay(view: np.ndarray, contributions: np.ndarray, scale: float | None = None) -> np.ndarray:
    """The view in grey with the contributions over it: uint8 [H, W, 3] to [H, W, 3]; see `layer`."""
    grey = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    over = layer(contributions, (view.shape[0], view.shape[1]), scale)
    opacity = over[..., 3:].astype(np.float32) / 255
    blended: np.ndarray = np.round(grey * (1 - opacity) + over[..., :3] * opacity).astype(np.uint8)
    return blended


def png(picture: np.ndarray) -> bytes:
    """A PNG file of uint8 [H, W, 3] or [H, W, 4]."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def upsampled(contributions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at a picture's size, float32 [H, W], interpolated linearly between its places; its sum is not that of the map."""
    found: np.ndarray = cv2.resize(np.asarray(contributions, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return found
