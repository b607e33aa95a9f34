"""What was tried within a time limit: the file of a run that keeps it, as a table and as a section of the report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf import formatting
from imgclf.errors import UserError
from imgclf.reporting import notebook

FILE = "leaderboard.json"
COLUMNS = (
    *("name", "about", "kept", "top1", "low", "high", "n", "judged_on", "loss", "seconds", "parameters", "images_per_second", "decision"),
)


class Leaderboard(pd.DataFrame):
    """The table of `Classifier.leaderboard`: one of pandas, of which a notebook shows the essential."""

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = self.astype(object).where(self.notna(), None).to_dict("records")
        return notebook.leaderboard([{str(name): value for name, value in row.items()} for row in rows])


def read(run: Path) -> Leaderboard | None:
    """The table, see `Classifier.leaderboard`; None where the run had no time limit."""
    if not (run / FILE).exists():
        return None
    rows = _saved(run)["rows"]
    return Leaderboard([{name: row[name] for name in COLUMNS} for row in rows], columns=list(COLUMNS))


def section(run: Path) -> dict[str, Any] | None:
    """What the report shows of it."""
    if not (run / FILE).exists():
        return None
    saved = _saved(run)
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


def _saved(run: Path) -> dict[str, Any]:
    """What the file holds.

    Raises:
      UserError: if it is damaged.
    """
    try:
        saved: dict[str, Any] = json.loads((run / FILE).read_text(encoding="utf-8"))
        lacking = {"time_limit", "seconds"} - saved.keys() or any(set(COLUMNS) - row.keys() for row in saved["rows"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{run / FILE} is damaged ({type(error).__name__}: {error}): restore the run from a copy.") from error
    if lacking:
        raise UserError(f"{run / FILE} is damaged (a part of it is missing): restore the run from a copy.")
    return saved
