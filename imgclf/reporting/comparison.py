"""The page and the sentences of a comparison of runs."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf import formatting, outputs
from imgclf.reporting import pages

PAGE = "compare.html"
MOST = 96  # pictures; the table that Python returns holds all
PER_GROUP = 24  # pictures of one kind: which runs are right
OPEN_CLASSES = 20  # more than these, and the table by class starts folded


def run_sentences(runs: pd.DataFrame) -> Iterator[str]:
    """A line per run: accuracy with its interval, calibration error, size and time."""
    width = runs["run"].str.len().max()
    for row in runs.to_dict("records"):
        seconds = formatting.duration(row["train_seconds"]) if row["train_seconds"] is not None else formatting.NONE
        bounds = formatting.interval((row["low"], row["high"]))
        yield (
            f"{row['run'].ljust(width)}  {formatting.percent(row['top1'])} (95 % interval {bounds}, {row['images']:,} images), calibration "
            f"error {formatting.percent(row['ece'])}, {formatting.number(row['params_total'])} parameters, {seconds} of training"
        )


def pair_sentences(pairs: pd.DataFrame) -> Iterator[str]:
    """A line for every two runs; a difference that the images can't support is said to be a tie."""
    for row in pairs.to_dict("records"):
        difference, low, high = (formatting.points(row[name]) for name in ("difference", "low", "high"))
        points = f"{difference} points ({low} to {high}; p = {row['p_holm']:.2g}"
        holm = ", Holm" if len(pairs) > 1 else ""
        needed = f", some {row['images_needed']:,.0f} images would be needed to tell" if row["tie"] and row["difference"] else ""
        yield (
            f"{row['b']} against {row['a']}: {points}{holm}){': a tie' + needed if row['tie'] else ''}. Only {row['a']} right: "
            f"{row['only_a']:,}, only {row['b']} right: {row['only_b']:,}."
        )


def write_page(
    path: Path, tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], notes: Sequence[str], of: outputs.Identity
) -> Path:
    """Writes the page; it runs no script.

    Args:
      path: of the page.
      tables: `runs`, `pairs`, `per_class`, `config` and `flipped` of a `workflows.compare.Comparison`.
      context: `names` of the runs; `bins` of each one's calibration; `pictures`, id → base64 of a WebP; `grouped`, whether images come in
        groups.
      notes: what a reader has to know.
      of: see `outputs`.
    """
    from imgclf.reporting import plots  # altair takes half a second to import

    runs, pairs, flipped = tables["runs"], tables["pairs"], tables["flipped"]
    accuracies = [{"name": row["run"], "value": row["top1"], "low": row["low"], "high": row["high"]} for row in runs.to_dict("records")]
    differences = [
        {"name": f"{row['b']} − {row['a']}", "value": row["difference"], "low": row["low"], "high": row["high"]}
        for row in pairs.to_dict("records")
    ]
    classes = [
        {"class": own[0]["class"], "images": own[0]["images"], "recall_first": own[0]["recall_first"], "others": own}
        for own in (list(rows) for _, rows in itertools.groupby(tables["per_class"].to_dict("records"), lambda row: row["class"]))
    ]
    classes.sort(key=lambda row: (-max(abs(other["difference"]) for other in row["others"]), row["class"]))
    extent = max((abs(bound) for row in classes for other in row["others"] for bound in (other["low"], other["high"])), default=1.0)
    shown = {
        **context,
        "runs": runs.astype(object).where(runs.notna(), None).to_dict("records"),
        "sentences": list(pair_sentences(pairs)),
        "notes": notes,
        "charts": [
            {
                "alt": name,
                "wide": plots.intervals(rows, f"{title}, with 95 % intervals", width=plots.row_width(2)),
                "narrow": plots.intervals(rows, f"{title}, with 95 % intervals", width=plots.WIDTH),  # for a telephone
            }
            for name, title, rows in (("accuracies", "top-1 accuracy", accuracies), ("differences", "differences", differences))
        ],
        "classes": classes,
        "extent": extent,
        "fold": len(classes) > OPEN_CLASSES,
        "config": tables["config"].to_dict("records"),
        "reliability": [
            {"name": name, "svg": plots.reliability(bins), "ece": ece}
            for name, bins, ece in zip(context["names"], context["bins"], runs["ece"], strict=True)
        ],
        "flips": _flips(flipped, context["names"], context["pictures"]),
        "flipped": len(flipped),
        "style": pages.source("report.css") + pages.source("study.css") + pages.source("comparison.css"),
    }
    return pages.write(path, "comparison.html.j2", shown, of)


def _flips(flipped: pd.DataFrame, names: Sequence[str], pictures: Mapping[str, str]) -> list[dict[str, Any]]:
    """The pictures, by which runs are right."""
    groups = []
    for right, rows in flipped.groupby("right", sort=False):
        cards = [
            {"id": row["id"], "true": row["true"], "src": pictures.get(row["id"]), "answers": [(name, row[name]) for name in names]}
            for row in rows.head(PER_GROUP).to_dict("records")
        ]
        groups.append({"right": right, "n": len(rows), "cards": cards})
    return groups
