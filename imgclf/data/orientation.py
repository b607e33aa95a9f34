"""The orientation that a camera writes beside the pixels (EXIF), read and applied."""

import struct

import cv2
import numpy as np
from PIL import Image

_TAG = 0x0112


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8."""
    try:
        value = image.getexif().get(_TAG, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, EOFError, OSError, struct.error):
        return 1  # a damaged EXIF block says nothing about the pixels, which are decoded and checked by themselves
    return value if value in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels [h, w, ...] upright by their EXIF orientation (JEITA CP-3451, tag 0x0112)."""
    match orientation:
        case 2:
            return cv2.flip(pixels, 1)
        case 3:
            return cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            return cv2.flip(pixels, 0)
        case 5:
            return cv2.transpose(pixels)
        case 6:
            return cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            return cv2.transpose(cv2.rotate(pixels, cv2.ROTATE_180))
        case 8:
            return cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return pixels
