"""Data sets to explore: patterns of which no two are alike, with planted copies; and one whose names are attacks."""

import hashlib

import numpy as np
import pandas as pd

from imgclf.data.images import inspect
from imgclf.data.table import Dataset
from imgclf.reporting.explore import ACROSS_SPLITS, EXACT_COPY, LABEL_CONFLICT, NEAR_COPY

PLANTED = {
    "a/first.png": EXACT_COPY,
    "a/second.png": EXACT_COPY,
    "a/near.png": NEAR_COPY | LABEL_CONFLICT,
    "b/wrong.png": NEAR_COPY | LABEL_CONFLICT,
    "b/original.png": EXACT_COPY | ACROSS_SPLITS,
    "b/leak.png": EXACT_COPY | ACROSS_SPLITS,
}
ATTACKS = ("</script><img src=x onerror=alert(1)>", '"><svg onload=alert(2)>', "{{ 7 * 7 }}", "a\u202ename\u2028 turned")


class Pictures:
    """uint8 [h, w, 3] each."""

    def __init__(self, pictures: list[np.ndarray]):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.pictures[row]

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        return self.pictures[row]


def pattern(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    cells = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.kron(cells, np.ones((8, 8, 1), np.uint8))


def dataset(pictures: dict[str, np.ndarray], splits: list[str], quarantine: list[tuple[str, str, str]], ignored: dict[str, int]) -> Dataset:
    """The class is what stands before the last "/" of the id."""
    classes = [name.rsplit("/", 1)[0] for name in pictures]
    names = tuple(sorted(set(classes)))
    found = [inspect(picture, 10**6) for picture in pictures.values()]
    table = pd.DataFrame(
        {
            "id": pd.Series(list(pictures), dtype="str"),
            "source": "/photos",
            "class_name": pd.Series(classes, dtype="str"),
            "label": np.array([names.index(name) for name in classes], np.int32),
            "split": pd.Series(splits, dtype="str"),
            "group": "",
            "sha256": [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures.values()],
            "width": np.array([one.width for one in found], np.int32),
            "height": np.array([one.height for one in found], np.int32),
            "phash": np.array([one.phash for one in found], np.int64),
        }
    )
    return Dataset(table, names, pd.DataFrame(quarantine, columns=["id", "reason", "detail"]), ignored, Pictures(list(pictures.values())))


def planted(count: int = 60) -> Dataset:
    """`count` patterns in classes a, b, c, and six copies among them, half of them in train and half in test."""
    pictures = {f"{'abc'[number % 3]}/{number:04d}.png": pattern(number, width=64 if number % 2 else 48) for number in range(count)}
    copies = [pattern(1001), pattern(1002), pattern(1003)]
    pictures |= {"a/first.png": copies[0], "a/second.png": copies[0]}
    pictures |= {"b/original.png": copies[1], "b/leak.png": copies[1]}
    pictures |= {"a/near.png": copies[2], "b/wrong.png": np.clip(copies[2].astype(int) + 9, 0, 255).astype(np.uint8)}
    pictures = dict(sorted(pictures.items()))
    splits = ["test" if "0030" <= name[2:6] <= "9999" or name == "b/leak.png" else "train" for name in pictures]
    quarantine = [("a/cut & short.jpg", "truncated", "JPEG: 12 bytes"), ("c/x.heic", "unsupported", "convert it")]
    return dataset(pictures, splits, quarantine, {".DS_Store": 3})


def hostile() -> Dataset:
    pictures = {f"{name}/{number}.png": pattern(10 * row + number) for row, name in enumerate(ATTACKS) for number in range(5)}
    return dataset(pictures, ["train"] * len(pictures), [(f"{ATTACKS[0]}/bad.jpg", "damaged", ATTACKS[1])], {ATTACKS[0]: 1})
