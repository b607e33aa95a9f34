"""Draws again what training saw, or would see, of a few images."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import outputs
from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.reporting import seen as page
from imgclf.training.plan import TrainingPlan
from imgclf.workflows import checks, run_folder, scenes, train
from imgclf.workflows.asked import Asked, Fields, asked_for
from imgclf.workflows.console import or_terminal

_EXAMPLES = 6  # where none is named
_NEAREST_AMONG = 50_000  # ids, for the hint: some seconds


def show(
    config: Config | str | os.PathLike[str],
    *,
    fields: Fields = (),
    ids: Sequence[str] = (),
    epochs: Sequence[int] = range(6),
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Draws again what training saw of an image: the same pixels, epoch by epoch, beside what evaluation sees.

    Args:
      config: the whole config, or what `load_config` reads one from: a name, a file, a run.
      fields: what is set in it, see `load_config`.
      ids: of images of the training split; () = the first few.
      epochs: which, counted from 0; what lies beyond the end of training is told as what it would show.
      out: the page's path. None = views.html in the run's folder, or runs/NAME-views.html.
      overwrite: whether to replace the page of another config at `out`.
      console: where the progress is shown; None = the terminal.

    Returns:
      The path of the page.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> imgclf.show("folder:photos", ids=["red/00.png"], epochs=[0, 1], out="views.html", console=quiet).name
      'views.html'
    """
    console = or_terminal(console)
    asked = asked_for(config, fields)
    checked = train.check(asked.config)
    of = outputs.identity("views", f"{checked.name}, seed {checked.seed}", config_lib.digest(checked), checked.data.path)
    target = outputs.free_file(_page_of(asked), of) if out is None else outputs.check_file(out, of, overwrite=overwrite)
    checks.check_apart(checked, target, "--out")
    config, dataset, _ = run_folder.images_for(asked, checked, scenes.finder(checked, console))
    rows = _rows(dataset.table, ids)
    resolved = resolve.resolve(config, len(dataset.class_names))
    steps = TrainingPlan.create(resolved, pipeline.steps_per_epoch(dataset, resolved)).total
    return page.write_page(target, resolved, dataset, rows, epochs, console, steps=steps, of=of)


def _page_of(asked: Asked) -> Path:
    return asked.run / "views.html" if asked.run is not None else Path("runs") / f"{asked.config.name}-views.html"


def _rows(table: pd.DataFrame, ids: Sequence[str]) -> list[int]:
    """The rows of these training images, or of the first few."""
    if not ids:
        return [int(row) for row in np.flatnonzero(table["split"] == "train")[:_EXAMPLES]]
    row_of = {image_id: row for row, image_id in enumerate(table["id"])}
    for image_id in ids:
        if image_id not in row_of:
            close = difflib.get_close_matches(image_id, list(row_of)[:_NEAREST_AMONG], cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"ids look like {next(iter(row_of))!r}."
            raise UserError(f"There is no image {image_id!r} in the data (dropped copies of evaluation images aside); {hint}")
        if (split := table["split"].iat[row_of[image_id]]) != "train":
            raise UserError(f"{image_id!r} is in the {split} split, which training never sees: name an image of the training split.")
    return [row_of[image_id] for image_id in dict.fromkeys(ids)]
