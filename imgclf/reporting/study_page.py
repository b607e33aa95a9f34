"""Makes study.html: what a study asked and what its data support, in one file without scripts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from imgclf.evaluation import numbers
from imgclf.reporting import plots


def write(workdir: Path, summary: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Writes `workdir`/study.html, in one move.

    Args:
      summary: the contents of study.json.
      table: a row per run: arm, seed, fold, folder, n, top1, train_seconds.
    """
    loader = jinja2.PackageLoader("imgclf.reporting")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": numbers.percent,
        "interval": numbers.interval,
        "number": numbers.number,
        "duration": numbers.duration,
    }
    style = Markup(loader.get_source(environment, "report.css")[0])
    arms, comparisons = summary["arms"], summary["comparisons"]
    accuracies = [{"name": arm, "value": row["top1"], "low": row["top1_ci95"][0], "high": row["top1_ci95"][1]} for arm, row in arms.items()]
    differences = [
        {"name": arm, "value": row["difference"], "low": row["difference_ci95"][0], "high": row["difference_ci95"][1]}
        for arm, row in comparisons.items()
    ]
    charts = [plots.intervals(accuracies, "top-1 accuracy, with 95 % intervals")] if accuracies else []
    if differences:
        charts.append(plots.intervals(differences, f"difference from {summary['baseline']}, with 95 % intervals"))
    page = environment.get_template("study.html.j2").render(
        style=style,
        summary=summary,
        charts=charts,
        runs=table.drop(columns="correct").to_dict("records") if len(table) else [],
        NONE=numbers.NONE,
    )
    aside = workdir / "study.html.part"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, workdir / "study.html")
    return workdir / "study.html"
