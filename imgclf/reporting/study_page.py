"""Makes study.html: what a study asked and what its data support, in one file without scripts."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from imgclf import formatting
from imgclf.reporting import pages, plots

_CURVES = {"train_loss": "training loss", "val_loss": "val loss", "val_top1": "val top-1"}
Draw = Callable[[int], Markup]  # a chart's width in pixels → the chart


def write(workdir: Path, summary: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Writes `workdir`/study.html, in one move.

    Args:
      summary: the contents of study.json.
      table: a row per run, see `studies.summary.table`.

    Returns:
      The path of the page.
    """
    question, *rest = summary["question"].split("\n\n") if summary["question"] else [f"Study of {summary['data']}"]
    context = {
        "style": pages.source("report.css") + pages.source("study.css"),
        "question": " ".join(question.split()),
        "paragraphs": [{"text": text, "verbatim": text.startswith("  ")} for text in rest],
        "summary": summary,
        "interval_charts": _row(_intervals(summary)),
        "curve_charts": _row(_curves(workdir, table)),
        "runs": table.drop(columns="correct").to_dict("records") if len(table) else [],
        "NONE": formatting.NONE,
    }
    return pages.write(workdir / "study.html", "study.html.j2", context)


def _row(draws: list[Draw]) -> list[dict[str, Markup | None]]:
    """Charts that fill a row together, at one size of type: each as `wide`, and as `narrow` for a telephone where that is another."""
    width = plots.row_width(len(draws)) if draws else plots.WIDTH
    fits = width <= plots.WIDTH + 1
    return [{"wide": draw(width), "narrow": None if fits else draw(plots.WIDTH)} for draw in draws]


def _intervals(summary: Mapping[str, Any]) -> list[Draw]:
    """The accuracies of the arms, and their differences from the baseline."""
    arms, comparisons = summary["arms"], summary["comparisons"]
    accuracies = [{"name": arm, "value": row["top1"], "low": row["top1_ci95"][0], "high": row["top1_ci95"][1]} for arm, row in arms.items()]
    differences = [
        {"name": arm, "value": row["difference"], "low": row["difference_ci95"][0], "high": row["difference_ci95"][1]}
        for arm, row in comparisons.items()
    ]
    draws: list[Draw] = []
    if accuracies:
        draws.append(lambda width: plots.intervals(accuracies, "top-1 accuracy, with 95 % intervals", width=width))
    if differences:
        title = f"difference from {summary['baseline']}, with 95 % intervals"
        draws.append(lambda width: plots.intervals(differences, title, width=width))
    return draws


def _curves(workdir: Path, table: pd.DataFrame) -> list[Draw]:
    """The learning curves of the arms that train step by step, overlaid; a quantity that no arm has twice makes no curve."""
    lines = []
    for arm, folder in zip(table.get("arm", ()), table.get("folder", ()), strict=True):
        file = workdir / folder / "metrics.jsonl"
        lines += [{"arm": arm, **json.loads(line)} for line in (file.read_text().splitlines() if file.exists() else ())]
    log = pd.DataFrame(lines)
    return [draw for column, name in _CURVES.items() if column in log and (draw := _curve(log, column, name))]


def _curve(log: pd.DataFrame, column: str, name: str) -> Draw | None:
    means = log.dropna(subset=column).groupby(["arm", "epoch"], sort=False)[column].agg(["mean", "std"]).reset_index().fillna(0.0)
    means = means.assign(value=means["mean"], low=means["mean"] - means["std"], high=means["mean"] + means["std"])
    if means.empty or means.groupby("arm")["epoch"].size().max() < 2:
        return None
    title = f"{name}: mean of the runs ± standard deviation"
    return lambda width: plots.overlaid(means, title, share=column == "val_top1", width=width)
