"""Writes what keras-preprocessing 1.1.2 makes of small pictures by given parameters: keras_legacy.npz.

Run it where that is installed, which needs numpy < 1.24 and scipy < 1.16: python tests/golden/make_keras_legacy.py
tests/data/augment/test_keras_legacy.py draws the same, and compares.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from keras_preprocessing.image import ImageDataGenerator, img_to_array, load_img
from PIL import Image

HERE = Path(__file__).resolve().parent
SIZES = ((24, 30), (28, 18))  # height, width: of the pictures
TARGETS = ((24, 30), (18, 18), (30, 21))  # of the views
FILLS = ("nearest", "constant", "reflect", "wrap")
FILL_VALUE = 77


def pictures() -> list[np.ndarray]:
    """Noise over slopes, as uint8 [h, w, 3]: neighbours differ, and so do opposite edges."""
    out = []
    for n, (h, w) in enumerate(SIZES):
        y, x = np.mgrid[:h, :w]
        slopes = np.stack([200 * y / h, 200 * x / w, 100 * (y / h + 1 - x / w)], -1)
        out.append((slopes + np.random.RandomState(n).randint(20, 56, (h, w, 3))).astype(np.uint8))
    return out


def generator(n: int) -> tuple[ImageDataGenerator, dict]:
    """Every parameter by itself, then S0's, S1's and wilder sets."""
    alone = [
        {"rotation_range": 40},
        {"height_shift_range": 0.3},
        {"width_shift_range": 0.3},
        {"shear_range": 30},
        {"zoom_range": 0.3},
        {"horizontal_flip": True},
        {"vertical_flip": True},
        {"brightness_range": (0.6, 1.4)},
        {},
    ]
    s0 = {"rotation_range": 40, "width_shift_range": 0.2, "height_shift_range": 0.2, "shear_range": 0.2, "zoom_range": 0.2}
    wild = {**s0, "rotation_range": 180, "shear_range": 40, "zoom_range": (0.4, 2.5), "vertical_flip": True, "brightness_range": (0.5, 1.5)}
    options = [*alone, s0, {**s0, "horizontal_flip": True}, {**wild, "horizontal_flip": True}][n % (len(alone) + 3)]
    fill = FILLS[n % len(FILLS)] if "zoom_range" in options or "rotation_range" in options else FILLS[n // 12 % len(FILLS)]
    return ImageDataGenerator(fill_mode=fill, cval=FILL_VALUE, **options), {"fill": fill}


def main() -> None:
    images = pictures()
    records, arrays = [], {}
    for n in range(48):
        which, target = n % len(images), TARGETS[n % len(TARGETS)]
        made, record = generator(n)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            Image.fromarray(images[which]).save(file.name)
            loaded = img_to_array(load_img(file.name, target_size=target))  # as flow_from_directory
        parameters = made.get_random_transform(loaded.shape, seed=n)
        out = made.apply_transform(loaded, parameters)
        arrays[f"out{n}"] = np.rint(out).astype(np.uint8)
        kept = {name: None if value is None else float(value) for name, value in parameters.items()}
        records.append({"image": which, "target": target, "parameters": kept, **record})
    arrays |= {f"image{n}": image for n, image in enumerate(images)}
    np.savez_compressed(HERE / "keras_legacy.npz", records=json.dumps(records), **arrays)


if __name__ == "__main__":
    main()
