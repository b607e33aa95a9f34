"""What a learning-rate finder leaves: lr_find.json, lr_find.png, and lr_find.html, one page without scripts."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf import config as config_lib
from imgclf import files, outputs
from imgclf.config import Config
from imgclf.reporting import pages
from imgclf.training.lr_range import Suggestion, Sweep

NAMES = {"valley": "valley", "steepest": "steepest", "minimum": "minimum / 10"}


PAGE = "lr_find.html"


def identity(config: Config) -> outputs.Identity:
    """What a page of learning rates for a config is of."""
    return outputs.identity("learning rates", f"{config.name}, {config.model.name}", config_lib.digest(config), config.data.path)


def write(page: Path, config: Config, sweep: Sweep, suggestion: Suggestion) -> Path:
    """Writes the page, and beside it the same name with .png and .json.

    Args:
      page: its path; the folder is made, and what stands there is replaced: see `outputs.check_file`.
      config: of the experiment.
      sweep, suggestion: what was found.

    Returns:
      The path of the page.

    Raises:
      UserError: if they can't be written.
    """
    from imgclf.reporting import plots  # altair takes half a second to import

    found = {key: value for key, value in dataclasses.asdict(suggestion).items() if isinstance(value, float)}
    frame = pd.DataFrame({"rate": sweep.learning_rates, "loss": sweep.losses, "smoothed": sweep.smoothed})
    chart, png = plots.learning_rates(frame, {NAMES[key]: value for key, value in found.items()}, f"training loss of {config.name}")
    facts: dict[str, Any] = {"name": config.name, "suggested": suggestion.valley, **dataclasses.asdict(suggestion)}
    facts |= {"configured": config.optimizer.learning_rate, "steps": len(frame), "diverged": sweep.diverged, "remark": sweep.remark}
    context = facts | {"chart": chart, "style": pages.source("report.css"), "rows": [(NAMES[key], value) for key, value in found.items()]}
    pages.write(page, "lr_find.html.j2", context, identity(config))
    columns = {"learning_rates": sweep.learning_rates, "losses": sweep.losses, "smoothed": sweep.smoothed}
    with files.replacing(page.with_suffix(".png")) as aside:
        aside.write_bytes(png)
    files.write_json(page.with_suffix(".json"), facts | {key: values.tolist() for key, values in columns.items()})
    return page
