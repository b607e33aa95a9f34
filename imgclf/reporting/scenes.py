"""The page of scenes: each scene a row of thumbnails, with what joined its shots; and the table in which they can be corrected."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import formatting, outputs
from imgclf.config import Config
from imgclf.data.scenes import Scenes
from imgclf.data.table import Dataset
from imgclf.reporting import pages

PAGE = "scenes.html"
SCENES = 1000  # on the page; the table holds all
SHOTS = 24  # of a scene that are shown
WORDS = {
    "similarity": "similar pictures",
    "time": "taken within a minute by one camera",
    "numbers": "neighbouring file numbers",
    "given": "named by the data",
}


def identity(dataset: Dataset, config: Config) -> outputs.Identity:
    """What a page of scenes is of: these images, and the backbone of this config."""
    model = config.model.weights if config.model.weights != "none" else "capture times"
    subject = f"{formatting.count(len(dataset.table), 'image')} of {pages.name_of(dataset)} by {model}"
    return outputs.identity("scenes", subject, pages.digest_of(dataset), model)


def table(dataset: Dataset, scenes: Scenes) -> pd.DataFrame:
    """What `csv:` reads, a row per image: path, label, split and group where the data have them, scene, and why for people."""
    rows = dataset.table
    columns = {"path": rows["id"], "label": rows["class_name"]}
    columns |= {name: rows[name] for name in ("split", "group") if (rows[name] != "").any()}
    why = [" and ".join(scenes.why.get(name, ())) for name in rows["scene"]]
    found = pd.DataFrame({**columns, "scene": rows["scene"], "why": why})
    alone = found["scene"] == ""  # scenes first, where they are easily looked through
    return found.assign(alone=alone).sort_values(["alone", "label", "scene", "path"], kind="stable").drop(columns="alone")


def write(path: Path, dataset: Dataset, scenes: Scenes, console: Console, *, of: outputs.Identity | None = None) -> Path:
    """Writes the page, the largest scenes first.

    Args:
      path: of the page; what stands there is replaced: see `outputs.check_file`.
      dataset: with its column scene; splits are shown where it has them.
      scenes: what joined them.
      console: shows the progress.
      of: what the page is of.

    Returns:
      The path.

    Raises:
      UserError: if the page can't be written, or an image has changed.
    """
    rows = dataset.table.reset_index(drop=True)
    names = rows.loc[rows["scene"] != "", "scene"]
    of_scene = {str(name): np.asarray(own) for name, own in names.groupby(names).groups.items()}
    several = sorted(((name, own) for name, own in of_scene.items() if len(own) > 1), key=lambda item: (-len(item[1]), item[0]))
    shown = several[:SCENES]
    pictures = np.array([row for _, own in shown for row in own[:SHOTS]], np.int64)
    encoded = dict(
        zip(pictures.tolist(), pages.thumbnails(dataset, pictures, min(160, pages.edge_for(len(pictures))), console), strict=True)
    )
    cards = [_card(rows, name, own, scenes, encoded) for name, own in shown]
    context = {
        "title": pages.name_of(dataset),
        "sentence": scenes.sentence(),
        "notes": scenes.notes,
        "cards": cards,
        "scenes": len(several),
        "classes": sorted({card["class_name"] for card in cards}),
        "across": sum(card["across"] for card in cards),
        **pages.script("scenes.js"),
        "style": pages.source("report.css") + pages.source("scenes.css"),
    }
    return pages.write(path, "scenes.html.j2", context, of)


def _card(rows: pd.DataFrame, name: str, own: np.ndarray, scenes: Scenes, encoded: dict[int, str]) -> dict[str, Any]:
    """A scene as the page shows it."""
    splits = rows["split"].to_numpy(object)[own]
    small = rows[["width", "height"]].to_numpy()[own].max() <= pages.LOSSLESS_EDGE
    classes = sorted(set(rows["class_name"].to_numpy(object)[own]))
    return {
        "class_name": " / ".join(classes),
        "shots": len(own),
        "why": [WORDS[reason] for reason in scenes.why.get(name, ())],
        "distance": scenes.distance.get(name),
        "across": len(set(splits) - {""}) > 1,
        "small": bool(small),
        "pictures": [
            {"id": rows["id"].iat[row], "src": f"data:image/webp;base64,{encoded[row]}", "split": rows["split"].iat[row]}
            for row in own[:SHOTS].tolist()
        ],
    }
