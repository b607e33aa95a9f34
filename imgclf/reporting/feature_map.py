"""The page of a map of images: each a point, which shows its picture when the pointer or the keyboard comes to it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import files, formatting, outputs
from imgclf.data.splits import SPLITS
from imgclf.data.table import Dataset
from imgclf.reporting import pages

PAGE = "map.html"
REPORT_FILE, REPORT_EDGE = "map.json", 72  # in a run's samples/, for its report; pixels of a picture's longer side
_CARD = 192  # pixels at which a picture is shown
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
    data, wrong, answered = _data(dataset, points)
    edge = min(_CARD, pages.edge_for(len(points)))
    context = {
        "title": about["title"],
        "source": about["source"],
        "shown": formatting.count(len(points), "image"),
        "of": about["of"] if about["of"] > len(points) else None,
        "kept": about["kept"],
        "judged": about["judged"],
        "wrong": wrong,
        "answered": answered,
        **pages.script("feature_map.js"),
        "style": pages.source("report.css") + pages.source("feature_map.css"),
        "data": pages.as_json(data),
        "thumbnails": pages.Markup("\n".join(pages.thumbnails(dataset, range(len(points)), edge, console))),
    }
    return pages.write(path, "feature_map.html.j2", context, of)


def save(run: Path, dataset: Dataset, points: pd.DataFrame, about: dict[str, Any], console: Console) -> None:
    """Writes a map for the run's report, with small pictures, into `run`/samples/map.json: see `write_page` for what is given."""
    data, wrong, answered = _data(dataset, points)
    pictures = pages.thumbnails(dataset, range(len(points)), REPORT_EDGE, console)
    kept = {"data": data, "thumbnails": pictures, "wrong": wrong, "answered": answered, **about}
    (run / "samples").mkdir(exist_ok=True)
    files.write_text(run / "samples" / REPORT_FILE, json.dumps(kept))


def of_run(run: Path) -> dict[str, Any] | None:
    """What the report's template and script need of what `save` has written; None where a run has no map."""
    file = run / "samples" / REPORT_FILE
    if not file.exists():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    shown = len(kept["thumbnails"])
    return {
        **kept,
        "shown": formatting.count(shown, "image"),
        "of": kept["of"] if kept["of"] > shown else None,
        "data": pages.as_json(kept["data"]),
        "thumbnails": pages.Markup("\n").join(map(pages.Markup, kept["thumbnails"])),
    }


def _data(dataset: Dataset, points: pd.DataFrame) -> tuple[dict[str, Any], int, int]:
    """What the page's script needs of the points, but their pictures; how many were taken for another class; of how many that is known.

    Args:
      dataset, points: see `write_page`.
    """
    names = list(dataset.class_names)
    number = {name: label for label, name in enumerate(names)}
    splits = [split for split in (*SPLITS, "") if (points["split"] == split).any()]
    predicted = points["predicted"].map(number).fillna(-1).astype(int)
    labels = points["class_name"].map(number).astype(int)
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
    return data, int(((predicted >= 0) & (predicted != labels)).sum()), int((predicted >= 0).sum())
