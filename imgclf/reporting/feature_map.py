"""The page of a map of images: each a point, which shows its picture when the pointer or the keyboard comes to it."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import formatting, outputs
from imgclf.data.splits import SPLITS
from imgclf.data.table import Dataset
from imgclf.reporting import pages

PAGE = "map.html"
_GRID = 10_000  # places of a point, in each direction


def write_page(
    path: Path,
    dataset: Dataset,
    points: pd.DataFrame,
    about: dict[str, Any],
    *,
    of: outputs.Identity,
    console: Console,
) -> Path:
    """Writes the page.

    Args:
      path: of the page.
      dataset: the images, in the order of `points`.
      points: columns class_name, split, predicted ("" where nothing is known) and x, y, from 0 to 1.
      about: `title`, `source`; `of`, how many images there are, of which the points are perhaps a sample; `kept`, see
        `projection.neighbours_kept`; `judged`, whose answers are known, such as "test images".
      of: see `outputs`.
      console: shows the progress.
    """
    names = list(dataset.class_names)
    number = {name: label for label, name in enumerate(names)}
    splits = [split for split in (*SPLITS, "") if (points["split"] == split).any()]
    predicted = points["predicted"].map(number).fillna(-1).astype(int)
    labels = points["class_name"].map(number).astype(int)
    wrong = int(((predicted >= 0) & (predicted != labels)).sum())
    data = {
        "ids": dataset.table["id"].tolist(),
        "classes": names,
        "label": labels.tolist(),
        "predicted": predicted.tolist(),
        "splits": splits,
        "split": [splits.index(split) for split in points["split"]],
        "x": np.round(_GRID * points["x"].to_numpy()).astype(int).tolist(),
        "y": np.round(_GRID * points["y"].to_numpy()).astype(int).tolist(),
        "grid": _GRID,
        "exact": (dataset.table[["width", "height"]].max(axis=1) <= pages.LOSSLESS_EDGE).astype(int).tolist(),
    }
    script = pages.source("feature_map.js")
    context = {
        "title": about["title"],
        "source": about["source"],
        "shown": formatting.count(len(points), "image"),
        "of": about["of"] if about["of"] > len(points) else None,
        "kept": about["kept"],
        "judged": about["judged"],
        "wrong": wrong,
        "answered": int((predicted >= 0).sum()),
        "script": script,
        "script_sha256": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "style": pages.source("report.css") + pages.source("feature_map.css"),
        "data": pages.as_json(data),
        "thumbnails": pages.Markup("\n".join(pages.thumbnails(dataset, range(len(points)), pages.edge_for(len(points)), console))),
    }
    return pages.write(path, "feature_map.html.j2", context, of)
