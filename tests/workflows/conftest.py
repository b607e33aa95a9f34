"""Small runs of every kind of split, with and without a limit of images per class."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from imgclf.workflows import train


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two classes of 24 small pictures, one of which is a copy of another; and a table of them with splits."""
    folder, rng, rows = tmp_path_factory.mktemp("pictures") / "photos", np.random.default_rng(0), []
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            pixels = rng.integers(0, 156, (20, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 90
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
            rows.append((f"{name}/{i:02}.png", name, "train" if i < 16 else "val" if i < 20 else "test"))
    (folder / "red" / "23.png").write_bytes((folder / "red" / "00.png").read_bytes())
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(folder.parent / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def fields(pictures):
    """The fields of a run of two steps, by the kind of its split and its limit."""

    def of(split: str, per_class: int) -> dict:
        given = {"data.source": "csv", "data.path": str(pictures.parent / "labels.csv"), "data.root": str(pictures)}
        return {
            **(given if split == "given" else {"data.source": "folder", "data.path": str(pictures)}),
            "name": f"{split}-{per_class}",
            "data.image_size": 16,
            "data.split.method": split,
            "data.split.fold": 1 if split == "kfold" else 0,
            "data.split.folds": 3,
            "data.split.fractions": (0.6, 0.2, 0.2),
            "data.per_class": per_class,
            "augment.flip": 0.5,
            "loader.batch_size": 8,
            "loader.threads": 1,
            "model.name": "cnn",
            "model.cnn.widths": (4,),
            "train.duration": "2 steps",
            "eval.explain": 0,
        }

    return of


@pytest.fixture(scope="session")
def run(fields, tmp_path_factory):
    """Trains a run once for each kind of split and limit; returns its folder and the contents of its results.json."""
    runs: dict = {}

    def of(split: str, per_class: int):
        if (split, per_class) not in runs:
            folder = tmp_path_factory.mktemp("runs") / f"{split}-{per_class}"
            results = train.train("quickstart", folder, fields=fields(split, per_class), console=Console(quiet=True))
            runs[split, per_class] = folder, results
        return runs[split, per_class]

    return of
