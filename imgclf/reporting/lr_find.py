"""What a learning-rate finder leaves: lr_find.json, lr_find.png, and lr_find.html, one page without scripts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf.reporting import pages, plots
from imgclf.training.lr_find import Suggestion, Sweep

NAMES = {"valley": "valley", "steepest": "steepest", "minimum": "minimum / 10"}


def write(folder: Path, name: str, configured: float, sweep: Sweep, suggestion: Suggestion) -> Path:
    """Writes the three files into `folder`, which is made.

    Args:
      folder: files of an earlier sweep in it are replaced.
      name: of the experiment.
      configured: the config's own learning rate.
      sweep, suggestion: what was found.

    Returns:
      The path of the page.

    Raises:
      UserError: if they can't be written, or something else stands in the page's place.
    """
    page = pages.check_target(folder / "lr_find.html")
    found = {key: value for key, value in dataclasses.asdict(suggestion).items() if value is not None}
    frame = pd.DataFrame({"rate": sweep.learning_rates, "loss": sweep.losses, "smoothed": sweep.smoothed})
    chart, png = plots.learning_rates(frame, {NAMES[key]: value for key, value in found.items()}, f"training loss of {name}")
    facts: dict[str, Any] = {"name": name, "suggested": suggestion.valley, **dataclasses.asdict(suggestion)}
    facts |= {"configured": configured, "steps": len(frame), "diverged": sweep.diverged}
    context = facts | {"chart": chart, "style": pages.source("report.css"), "rows": [(NAMES[key], value) for key, value in found.items()]}
    pages.write(page, "lr_find.html.j2", context)
    columns = {"learning_rates": sweep.learning_rates, "losses": sweep.losses, "smoothed": sweep.smoothed}
    text = json.dumps(facts | {key: values.tolist() for key, values in columns.items()}, indent=1) + "\n"
    for path, content in ((folder / "lr_find.png", png), (folder / "lr_find.json", text.encode())):
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(content)
        aside.replace(path)
    return page
