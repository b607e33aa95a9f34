"""A data set of small random pictures in files; programs of tests import it without the tests."""

import os

import cv2
import numpy as np
import pandas as pd

from imgclf.data.table import Dataset


class FileReader:
    """Reads `folder/ROW.png`; counts its reads."""

    def __init__(self, folder, count):
        self.folder, self.count, self.reads = folder, count, 0

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        self.reads += 1
        image = cv2.imread(os.path.join(self.folder, f"{row}.png"), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise FileNotFoundError(f"{row}.png")
        return image

    def read(self, row, min_size):
        image = self[row]
        factor = min(image.shape[0] // min_size[0], image.shape[1] // min_size[1])
        if factor < 2:
            return image
        return cv2.resize(image, (image.shape[1] // factor, image.shape[0] // factor), interpolation=cv2.INTER_AREA)


def make_dataset(folder, train=23, val=11, seed=0) -> Dataset:
    """Rows alternate between the splits, so that rows of the table and places in a split differ."""
    rng = np.random.default_rng(seed)
    splits = np.array(["train"] * train + ["val"] * val)
    rng.shuffle(splits)
    count = len(splits)
    sizes = rng.integers(20, 60, (count, 2))
    for row, (height, width) in enumerate(sizes):
        cv2.imwrite(os.path.join(folder, f"{row}.png"), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    labels = rng.integers(0, 3, count)
    table = pd.DataFrame(
        {
            "id": [f"{row}.png" for row in range(count)],
            "class_name": [f"class {label}" for label in labels],
            "label": labels.astype(np.int32),
            "split": splits,
            "height": sizes[:, 0],
            "width": sizes[:, 1],
        }
    )
    quarantine = pd.DataFrame(columns=["id", "reason", "detail"])
    return Dataset(table, ("class 0", "class 1", "class 2"), quarantine, {}, FileReader(str(folder), count))
