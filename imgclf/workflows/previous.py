"""Compares a run that has just been evaluated with the last one beside it that was tested on the same images."""

import json
from pathlib import Path
from typing import Any

from imgclf import files
from imgclf.errors import UserError
from imgclf.evaluation import comparison
from imgclf.workflows import compare

FILE = "previous.json"  # in the run's folder: its report shows it
LOOKED_AT = 20  # finished runs beside it, the last first
CLASSES, PICTURES = 8, 8  # of those that have become better, and as many that have become worse


def compare_with_previous(folder: Path, results: dict[str, Any]) -> dict[str, Any] | None:
    """Writes `folder`/previous.json, or removes it where no run beside the folder was tested on the same images.

    Args:
      folder: of a run, with its predictions.csv and config.json.
      results: what its results.json will hold.

    Returns:
      What was written: `run`, the other's folder name; `a` and `b`, the accuracies of the other and of this one; `difference`,
      `difference_ci95`, `p`, `tie`, `only_a`, `only_b`, `images_needed`, `images`, `notes`; `better` and `worse`, classes with
      {class, images, before, after, low, high}; `mended` and `broken`, the ids of images that only this run has right, and only the other.
    """
    found = _previous(folder, results)
    if found is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        files.write_json(folder / FILE, found)
    return found


def _previous(folder: Path, results: dict[str, Any]) -> dict[str, Any] | None:
    candidates = [path.parent for path in folder.resolve().parent.glob("*/results.json") if path.parent != folder.resolve()]
    candidates.sort(key=lambda other: (other / "results.json").stat().st_mtime, reverse=True)
    source = _source(folder)
    own: compare.FinishedRun | None = None
    for other in candidates[:LOOKED_AT]:
        try:
            if source is None or _source(other) != source:
                continue
            own = own or compare.read_run(folder, folder.resolve().name, results)
            aligned = comparison.align([compare.read_run(other, other.name).tested, own.tested])
        except UserError:  # it isn't finished, or was tested on other images: the one before may do
            continue
        return _summary(aligned)
    return None


def _source(folder: Path) -> tuple[Any, Any, Any] | None:
    """Where a run's images come from; None where its config can't be read."""
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))["data"]
        return data["source"], data["path"], data["tfds"]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _summary(aligned: comparison.Aligned) -> dict[str, Any]:
    (pair,) = comparison.pairs(aligned)
    before, after = aligned.correct
    classes = [
        {
            "class": row["class"],
            "images": row["images"],
            "before": row["recall"][0],
            "after": row["recall"][1],
            "low": row["differences"][0]["ci95"][0],
            "high": row["differences"][0]["ci95"][1],
        }
        for row in comparison.per_class(aligned)
    ]
    gain = [row["after"] - row["before"] for row in classes]
    order = sorted(range(len(classes)), key=lambda place: (-abs(gain[place]), place))
    flipped = comparison.flipped(aligned)
    now = flipped["right"] == aligned.names[1]
    wanted = ("difference", "difference_ci95", "p", "tie", "only_a", "only_b", "images_needed")
    return {
        "run": aligned.names[0],
        "a": float(before.mean()),
        "b": float(after.mean()),
        **{name: pair[name] for name in wanted},
        "images": len(aligned.ids),
        "notes": aligned.notes,
        "better": [classes[place] for place in order if gain[place] > 0][:CLASSES],
        "worse": [classes[place] for place in order if gain[place] < 0][:CLASSES],
        "mended": flipped.loc[now, "id"].head(PICTURES).tolist(),
        "broken": flipped.loc[~now, "id"].head(PICTURES).tolist(),
    }
