"""Makes study.html: what a study asked and what its data support, in one file without scripts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from imgclf import formatting
from imgclf.reporting import pages, plots


def write(workdir: Path, summary: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Writes `workdir`/study.html, in one move.

    Args:
      summary: the contents of study.json.
      table: a row per run, as `findings.table` has it.
    """
    arms, comparisons = summary["arms"], summary["comparisons"]
    accuracies = [{"name": arm, "value": row["top1"], "low": row["top1_ci95"][0], "high": row["top1_ci95"][1]} for arm, row in arms.items()]
    differences = [
        {"name": arm, "value": row["difference"], "low": row["difference_ci95"][0], "high": row["difference_ci95"][1]}
        for arm, row in comparisons.items()
    ]
    charts = [plots.intervals(accuracies, "top-1 accuracy, with 95 % intervals")] if accuracies else []
    if differences:
        charts.append(plots.intervals(differences, f"difference from {summary['baseline']}, with 95 % intervals"))
    charts += _curves(workdir, table)
    rows = table.drop(columns="correct").to_dict("records") if len(table) else []
    context = {"style": pages.source("report.css"), "summary": summary, "charts": charts, "runs": rows, "NONE": formatting.NONE}
    return pages.write(workdir / "study.html", "study.html.j2", context)


_CURVES = {"train_loss": "training loss", "val_loss": "val loss", "val_top1": "val top-1"}


def _curves(workdir: Path, table: pd.DataFrame) -> list[Markup]:
    """The learning curves of the arms that train step by step, overlaid; none of a quantity that no arm has twice."""
    lines = []
    for arm, folder in zip(table.get("arm", ()), table.get("folder", ()), strict=True):
        file = workdir / folder / "metrics.jsonl"
        lines += [{"arm": arm, **json.loads(line)} for line in (file.read_text().splitlines() if file.exists() else ())]
    found, charts = pd.DataFrame(lines), []
    for column, name in _CURVES.items():
        if column not in found:
            continue
        means = found.dropna(subset=column).groupby(["arm", "epoch"], sort=False)[column].agg(["mean", "std"]).reset_index().fillna(0.0)
        means = means.assign(value=means["mean"], low=means["mean"] - means["std"], high=means["mean"] + means["std"])
        if means.groupby("arm")["epoch"].size().max() > 1:
            charts.append(plots.overlaid(means, f"{name}: mean of the runs ± standard deviation", share=column == "val_top1"))
    return charts
