"""The pictures of a report, kept in the run's folder so that the report can be remade without the data.

`samples/index.json` holds
    thumbnails  {id: {"file", "width", "height"}}   width and height of the original, in pixels
    grid        {class name: [id, ...]}             a few images of each class
    mistakes    [id, ...]                           the most confident ones first
    cells       [[true, predicted, [id, ...]], ...] pictures of each kind of mistake, which the report's confusion matrix opens
    unreadable  {id: reason}                        images that could be read at the start and no longer can
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from imgclf import files
from imgclf.data.table import Dataset

EDGE = 160  # pixels: longer side of a thumbnail
LOSSLESS_EDGE = 64  # images no larger than this are kept exactly, as the report enlarges them, which would show a lossy coding
GRID_CLASSES, GRID_TOTAL, GRID_PER_CLASS = 40, 60, 6
MISTAKES = 24
CELLS, CELL_IMAGES, CELL_EDGE = 150, 6, 112  # pictures of all kinds of mistakes, of one kind, and their size in pixels
GROUPS, GROUP_IMAGES = 8, 4  # of each kind of duplicate


def save(run: Path, dataset: Dataset, predictions: pd.DataFrame, audit: dict[str, Any], also: Sequence[str] = ()) -> Path:
    """Writes thumbnails for the sample grid, the most confident mistakes, those of each kind, and the audit's findings.

    The choice depends on the ids alone (by their hash), not on their order. Thumbnails are WebP, at most 160 px, lossless for small images.

    Args:
      run: the run's folder; `samples/` in it is replaced.
      dataset: its reader and table; ids that the audit dropped from the table have no thumbnail.
      predictions: columns id, true, predicted, probability.
      audit: what `audit.audit` returned.
      also: ids of further images, which get small thumbnails.

    Returns:
      The path of index.json.
    """
    folder = Path(run) / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.webp"), *folder.glob("*.json")]:
        old.unlink()
    grid = _grid(dataset.table)
    wrong = most_confident_mistakes(predictions, MISTAKES)["id"].tolist()
    cells = _cells(predictions)
    wanted = dict.fromkeys([*(i for ids in grid.values() for i in ids), *wrong, *_audited(audit)], EDGE)
    wanted = dict.fromkeys([*(i for *_, ids in cells for i in ids), *also], CELL_EDGE) | wanted

    row_of = dict(zip(dataset.table["id"], dataset.table.index, strict=True))
    thumbnails, unreadable = {}, {}
    for image_id, edge in wanted.items():
        if image_id not in row_of:
            continue
        row = int(row_of[image_id])
        try:
            image = dataset.reader[row]
        except OSError as error:  # the file went away while training ran: the report says so rather than fail
            unreadable[image_id] = str(error)
            continue
        name = _digest(image_id)[:20] + ".webp"
        _thumbnail(image, edge).save(folder / name, lossless=max(image.shape[:2]) <= LOSSLESS_EDGE, quality=80)
        thumbnails[image_id] = {"file": name, "width": image.shape[1], "height": image.shape[0]}

    index = {"thumbnails": thumbnails, "grid": grid, "mistakes": wrong, "cells": cells, "unreadable": unreadable}
    files.write_text(folder / "index.json", json.dumps(index, indent=1))
    return folder / "index.json"


def most_confident_mistakes(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns the `count` rows with the highest probability of a wrong class, highest first; rows of unknown truth are left out."""
    wrong = predictions[(predictions["true"] != "") & predictions["true"].notna() & (predictions["true"] != predictions["predicted"])]
    return wrong.sort_values(["probability", "id"], ascending=[False, True]).head(count)


def _cells(predictions: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """The most confident mistakes of each kind: one of every kind, frequent kinds first, then a second, up to `CELLS`."""
    wrong = most_confident_mistakes(predictions, len(predictions))
    kinds = wrong.groupby(["true", "predicted"], sort=False)
    wrong = wrong.assign(rank=kinds.cumcount(), frequency=-kinds["id"].transform("size"))
    chosen = wrong[wrong["rank"] < CELL_IMAGES].sort_values(["rank", "frequency", "true", "predicted"], kind="stable").head(CELLS)
    return [(str(true), str(said), ids.tolist()) for (true, said), ids in chosen.groupby(["true", "predicted"], sort=True)["id"]]


def _grid(table: pd.DataFrame) -> dict[str, list[str]]:
    names = sorted(table["class_name"].unique())
    if len(names) > GRID_CLASSES:
        names = sorted(sorted(names, key=_digest)[:GRID_CLASSES])
    each = max(1, min(GRID_PER_CLASS, GRID_TOTAL // len(names))) if names else 0
    ids = table[table["class_name"].isin(names)].groupby("class_name")["id"]
    return {str(name): sorted(group, key=_digest)[:each] for name, group in ids}


def _audited(audit: dict[str, Any]) -> Iterator[str]:
    groups = [audit.get(kind, {}).get("groups", [])[:GROUPS] for kind in ("exact_duplicates", "near_duplicates")]
    groups.append([conflict["ids"] for conflict in audit.get("label_conflicts", [])[:GROUPS]])
    for group in (group for kind in groups for group in kind):
        yield from group[:GROUP_IMAGES]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _thumbnail(image: np.ndarray, edge: int) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)  # never enlarges
    return picture
