"""Small pictures, in folders and in memory, and configs that read and augment them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from imgclf.config import default_config


def save(path: Path, value: int = 0, size: tuple[int, int] = (12, 9), **options) -> Path:
    """A small picture that differs with `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def folder_config(path, **fields):
    config = default_config()
    config.data.path = str(path)
    config.data.update(fields)
    return config


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def smooth(h: int, w: int) -> np.ndarray:
    """An image on which bilinear interpolation is exact, up to rounding: linear in x and y."""
    y, x = np.mgrid[:h, :w]
    return np.stack([255 * y / max(1, h - 1), 255 * x / max(1, w - 1), 127 * (y / h + x / w)], -1).astype(np.uint8)


def augmentation(**fields) -> SimpleNamespace:
    """`config.augment` with these fields."""
    return SimpleNamespace(**(default_config().augment.to_dict() | fields))


# All of the geometry.
EVERYTHING = {
    "crop_scale": (0.2, 1.0),
    "flip": 0.5,
    "vertical_flip": 0.5,
    "rotate": 40.0,
    "shift": (0.2, 0.1),
    "shear": 10.0,
    "zoom": (0.8, 1.2),
    "perspective": 0.3,
    "pad_crop": 3,
    "margin_crop": 0.2,
    "margin_scale": 0.3,
}
