"""The page of `imgclf data show`: what training saw, or would show, of a few examples, beside what evaluation sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from imgclf import outputs, progress
from imgclf.config import Config, default_config, flatten
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.reporting import pages
from imgclf.training import seen

_EDGE = 320  # longer side of a view in pixels


def write_page(  # noqa: PLR0913  (options by name)
    path: Path,
    config: Config,
    dataset: Dataset,
    rows: Sequence[int],
    epochs: Sequence[int],
    console: Console,
    *,
    steps: int,
    of: outputs.Identity | None = None,
) -> Path:
    """Writes the page.

    Args:
      path: of the page; what stands there is replaced: see `outputs.check_file`.
      config: the whole config, resolved.
      dataset: as it is trained on.
      rows: of its table, of the training split.
      epochs: which views to show, counted from 0; they may lie beyond the end of training.
      console: shows the progress.
      steps: how many steps training has made, or will make by the config. A view of a later step was never trained on: the page says that
        a longer training would show it.
      of: what the page is of.

    Returns:
      The path of the page.

    Raises:
      UserError: if an image can no longer be read.
    """
    config = config.copy_and_resolve_references()
    config.loader.eval_batch_size, config.loader.workers = len(rows), 0
    with pipeline.row_batches(dataset, config, np.array(rows)) as batches:
        plain = next(batches)["image"]
    examples: list[dict[str, Any]] = []
    beyond = False
    with progress.bar(console) as bar:
        for row, image in bar.track(list(zip(rows, plain, strict=True)), description="views"):
            found = [_view(dataset, view) | {"beyond": view.step >= steps} for view in seen.views(config, dataset, row, epochs)]
            beyond = beyond or any(view["beyond"] for view in found)
            examples.append({**_name(dataset, row), "plain": _picture(image), "views": found})
    defaults = flatten(default_config())
    fields = {**flatten(config.augment, "augment."), "loader.sampling": config.loader.sampling, "seed": config.seed}
    return pages.write(
        path,
        "seen.html.j2",
        {
            "title": config.name,
            "examples": examples,
            "steps": steps,
            "beyond": beyond,
            "fields": [f"{name}={_short(value)}" for name, value in fields.items() if value != defaults[name] or name == "seed"],
            "natural": config.loader.sampling == "natural",
            "small": max(config.data.image_size) <= pages.LOSSLESS_EDGE,
            "style": pages.source("report.css") + pages.source("seen.css"),
        },
        of,
    )


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_short, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(dataset: Dataset, row: int) -> dict[str, str]:
    return {"id": str(dataset.table["id"].iat[row]), "class_name": str(dataset.table["class_name"].iat[row])}


def _view(dataset: Dataset, view: seen.Seen) -> dict[str, Any]:
    shown: dict[str, Any] = {"src": _picture(view.image), "epoch": view.epoch, "step": view.step, "place": view.place, "partner": None}
    if (partner := view.partner) is not None:
        kind = "MixUp" if partner.box is None else "CutMix"
        shown["partner"] = {"kind": kind, "rest": 1 - partner.share, "src": _picture(partner.image), **_name(dataset, partner.row)}
    return shown


def _picture(image: np.ndarray) -> str:
    pixels = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    return f"data:image/webp;base64,{pages.thumbnail(pixels, _EDGE)}"
