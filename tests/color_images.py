"""A folder of small pictures of three colours, which a probe on an untrained backbone tells apart."""

from pathlib import Path

import numpy as np
from PIL import Image

QUICK = {"data.image_size": (32, 32), "loader.batch_size": 8, "loader.eval_batch_size": 16, "eval.explain": 0}


def picture(path: Path, number: int, channel: int) -> Path:
    """A large-scale random pattern with a tint: no two are near duplicates."""
    rng = np.random.default_rng(number)
    grey = np.kron(rng.integers(0, 150, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    grey[..., channel] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
    return path


def write_folder(root: Path) -> Path:
    """30 red, 25 green and 20 blue pictures at two depths, and two files that are none."""
    for channel, (name, count) in enumerate({"red": 30, "green": 25, "blue": 20}.items()):
        for i in range(count):
            picture(root / name / ("deep/er" if i % 2 else "") / f"{i:02d}.png", 100 * channel + i, channel)
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "red" / ".DS_Store").write_bytes(b"x")
    return root
