"""Makes study.html: what a study asked and what its data support, in one file without scripts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf.evaluation import numbers
from imgclf.reporting import pages, plots


def write(workdir: Path, summary: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Writes `workdir`/study.html, in one move.

    Args:
      summary: the contents of study.json.
      table: a row per run: arm, seed, fold, folder, n, top1, train_seconds.
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
    rows = table.drop(columns="correct").to_dict("records") if len(table) else []
    context = {"style": pages.source("report.css"), "summary": summary, "charts": charts, "runs": rows, "NONE": numbers.NONE}
    return pages.write(workdir / "study.html", "study.html.j2", context)
