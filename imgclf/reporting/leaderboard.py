"""What was tried within a time limit: the file of a run that keeps it, as a table and as a section of the report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf import formatting

FILE = "leaderboard.json"
COLUMNS = (
    *("name", "about", "kept", "top1", "low", "high", "n", "judged_on", "loss", "seconds", "parameters", "images_per_second", "decision"),
)


def read(run: Path) -> pd.DataFrame | None:
    """The table, see `Classifier.leaderboard`; None where the run had no time limit."""
    if not (run / FILE).exists():
        return None
    rows = json.loads((run / FILE).read_text(encoding="utf-8"))["rows"]
    return pd.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], columns=list(COLUMNS))


def section(run: Path) -> dict[str, Any] | None:
    """What the report shows of it."""
    if not (run / FILE).exists():
        return None
    saved = json.loads((run / FILE).read_text(encoding="utf-8"))
    rows = []
    for row in saved["rows"]:
        tried = row["n"] is not None
        on = {"folds": "in the folds", "val": "on val"}.get(row["judged_on"], "")
        rows.append(
            {
                "name": row["name"],
                "about": row["about"],
                "kept": row["kept"],
                "score": formatting.percent(row["top1"]) if tried else formatting.NONE,
                "bounds": formatting.interval((row["low"], row["high"])) if tried else "",
                "judged": f"{row['n']:,} {on}" if tried else "",
                "seconds": formatting.duration(row["seconds"]) if row["seconds"] else formatting.NONE,
                "parameters": formatting.number(row["parameters"]),
                "speed": formatting.number(row["images_per_second"]),
                "decision": row["decision"],
            }
        )
    return {"rows": rows, "limit": formatting.duration(saved["time_limit"]), "used": formatting.duration(saved["seconds"])}
