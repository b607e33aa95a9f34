"""Small pictures in folders, and the config that reads them."""

from pathlib import Path

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
