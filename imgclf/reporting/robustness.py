"""What a test of robustness leaves: robustness.json, and robustness.html with curves and pictures, one page without scripts."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgclf import files, outputs
from imgclf.evaluation.corruptions import CORRUPTIONS
from imgclf.evaluation.robustness import CLEAN, Condition
from imgclf.reporting import pages

PAGE, FIGURES = "robustness.html", "robustness.json"
_ENLARGED = 96  # pixels; views up to this size are enlarged with visible pixels


def write(
    page: Path, results: Mapping[str, Any], tested: Sequence[Condition], views: Sequence[np.ndarray], of: outputs.Identity | None = None
) -> Path:
    """Writes the page, and beside it the same name with .json.

    Args:
      page: its path; the folder is made, and what stands there is replaced: see `outputs.check_file`.
      results: of `evaluation.robustness.summarize`, with name, split, n, notes and orientations.
      tested: its conditions.
      views: one image under each of them, uint8 [H, W, 3].
      of: what the page is of.

    Returns:
      The path of the page.

    Raises:
      UserError: if they can't be written.
    """
    from imgclf.reporting import plots  # altair takes half a second to import

    shown: dict[str, list[str]] = {}
    for (name, _), view in zip(tested, views, strict=True):
        shown.setdefault(name, []).append(f"data:image/webp;base64,{pages.thumbnail(view, 160)}")
    severities = sorted({severity for _, severity in tested} - {0})
    rows = [{**dataclasses.asdict(CORRUPTIONS[name]), "pictures": shown[name], **row} for name, row in results["corruptions"].items()]
    charts = [plots.severities({CORRUPTIONS[name].title: curve(results, name)}, CORRUPTIONS[name].title) for name in results["corruptions"]]
    context = {
        "style": pages.source("report.css"),
        "results": results,
        "rows": rows,
        "charts": charts,
        "severities": severities,
        "clean": shown[CLEAN[0]][0],
        "small": max(views[0].shape[:2]) <= _ENLARGED,
    }
    pages.write(page, "robustness.html.j2", context, of)
    files.write_json(page.with_suffix(".json"), dict(results))
    return page


def curve(results: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Columns severity (0 = clean), value, low and high of one corruption."""
    clean, tested = results["clean"], results["corruptions"][name]["severities"]
    rows = [(0, clean["top1"], *clean["top1_ci95"]), *((int(s), row["top1"], *row["top1_ci95"]) for s, row in tested.items())]
    return pd.DataFrame(rows, columns=["severity", "value", "low", "high"])


def write_study(folder: Path, results: Mapping[str, Any]) -> Path:
    """Writes both files of a study's arms into its folder.

    Args:
      folder: the study's.
      results: question, data, baseline, seeds, n; `arms`: name → `evaluation.robustness.summarize` with orientations; `comparisons` of
        their means with the baseline.

    Returns:
      The path of the page.
    """
    from imgclf.reporting import plots  # altair takes half a second to import

    page = outputs.check_file(folder / PAGE)
    arms = results["arms"]
    names = list(next(iter(arms.values()))["corruptions"])
    of = {name: {arm: curve(row, name) for arm, row in arms.items()} for name in names}
    mean = {arm: pd.concat([of[name][arm] for name in names]).groupby(level=0).mean() for arm in arms}
    charts = [
        plots.severities(mean, "mean of all corruptions"),
        *(plots.severities(of[name], CORRUPTIONS[name].title, legend=False) for name in names),
    ]
    means = [
        {"name": arm, "value": row["mean_top1"], "low": row["mean_top1_ci95"][0], "high": row["mean_top1_ci95"][1]}
        for arm, row in arms.items()
    ]
    context = {
        "style": pages.source("report.css"),
        "results": results,
        "intervals": plots.intervals(means, "mean corruption accuracy, with 95 % intervals"),
        "charts": charts,
        "names": names,
        "titles": {name: CORRUPTIONS[name].title for name in names},
    }
    pages.write(page, "robustness_study.html.j2", context)
    files.write_json(folder / FIGURES, dict(results))
    return page
