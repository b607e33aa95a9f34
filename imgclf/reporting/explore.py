"""The page of `data.explore()`: every image of a data set, filtered, sorted and searched in the browser; one file, no network.

The page holds a thumbnail of each image as text. Only the tiles near the window exist as elements, so that thousands of images stay fluid:
with 5,000 photographs of 400 px it is 17 MB, shows them 0.3 s after it is opened, filters in 20 ms, and scrolls by 3,600 px/s without a
late frame, by 12,000 px/s with one in a hundred (headless Chromium without a GPU, 2 cores). 20,000 are 45 MB and as fluid. 100,000 of
32 px, which are kept exactly, are 209 MB and there 3 s after Chromium is started.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from imgclf import formatting, outputs
from imgclf.data.audit import EXACT, duplicates
from imgclf.data.splits import SPLITS
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.reporting import pages

PAGE = "explore.html"
EXACT_COPY, NEAR_COPY, LABEL_CONFLICT, ACROSS_SPLITS = 1, 2, 4, 8  # bits of an image's marks
SKIPPED = 500  # files named on the page
MOST = 100_000  # images


def write_page(
    dataset: Dataset,
    path: str | os.PathLike[str] | None = None,
    *,
    near_duplicate_bits: int = 6,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes the page.

    Args:
      dataset: with or without splits; its quarantine is listed too.
      path: of the page; None = explore.html in the current folder, or explore-2.html, … where that shows other images.
      near_duplicate_bits: images whose perceptual hashes differ in at most so many of 64 bits are marked as near duplicates; -1: none are.
      overwrite: whether to replace a file at `path` that is not the page of these images.
      console: shows the progress.

    Returns:
      The path of the page.

    Raises:
      UserError: if the path holds something else, there are more than 100,000 images, or one has changed since it was verified.
    """
    of = outputs.identity(
        "images", f"{formatting.count(len(dataset.table), 'image')} of {pages.name_of(dataset)}", pages.digest_of(dataset)
    )
    target = outputs.free_file(Path(PAGE), of) if path is None else outputs.check_file(path, of, overwrite=overwrite)
    if len(dataset.table) > MOST:
        way_out = f"take some, such as data[::{-(-len(dataset.table) // MOST)}].explore(), or a class by data.filter."
        raise UserError(f"{len(dataset.table):,} images are more than one page can show ({MOST:,}): {way_out}")
    table = dataset.table
    edge = pages.edge_for(len(table))
    group, marks, groups = copies(dataset, near_duplicate_bits)
    splits = [split for split in SPLITS if (table["split"] == split).any()]
    if (table["split"] == "").any():
        splits.append("")
    data = {
        "ids": table["id"].tolist(),
        "classes": list(dataset.class_names),
        "label": table["label"].tolist(),
        "splits": splits,
        "split": [splits.index(split) for split in table["split"]],
        "width": table["width"].tolist(),
        "height": table["height"].tolist(),
        "marks": marks.tolist(),
        "group": group.tolist(),
        "groups": groups,
        "edge": edge,
        "exact": pages.LOSSLESS_EDGE,
    }
    context = {
        "title": pages.name_of(dataset),
        "source": table["source"].iloc[0],
        **pages.script("explore.js"),
        "style": pages.source("report.css") + pages.source("explore.css"),
        "data": pages.as_json(data),
        "thumbnails": pages.Markup("\n".join(pages.thumbnails(dataset, range(len(table)), edge, console or Console(quiet=True)))),
        "facts": _facts(dataset, marks, groups),
        "skipped": dataset.quarantine.head(SKIPPED).to_dict("records"),
        "skipped_count": len(dataset.quarantine),
        "ignored": dataset.ignored,
    }
    return pages.write(target, "explore.html.j2", context, of)


def copies(dataset: Dataset, near_duplicate_bits: int) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Groups the images that show one picture.

    Returns:
      The group of each row (int64 [n], -1 = none), its marks (int64 [n], bits), and the groups: {reason, rows}, those whose images bear
      several labels first. An image with exact and near duplicates is in the group of both.
    """
    table = dataset.table
    labels, splits = table["label"].to_numpy(np.int64), table["split"].to_numpy(str)
    group, marks = np.full(len(table), -1), np.zeros(len(table), np.int64)
    found = [(reason, rows) for reason, clusters in duplicates(table, near_duplicate_bits).items() for rows in clusters]
    for reason, rows in found:
        marks[rows] |= EXACT_COPY if reason == EXACT else NEAR_COPY
        marks[rows] |= LABEL_CONFLICT * (len(np.unique(labels[rows])) > 1) | ACROSS_SPLITS * (len(np.unique(splits[rows])) > 1)
    in_near = np.zeros(len(table), bool)
    for reason, rows in found:
        in_near[rows] |= reason != EXACT
    kept = [(reason, rows) for reason, rows in found if reason != EXACT or not in_near[rows].all()]
    kept.sort(key=lambda item: (not marks[item[1][0]] & LABEL_CONFLICT, item[1][0]))
    for number, (_, rows) in enumerate(kept):
        group[rows] = number
    return group, marks, [{"reason": reason, "rows": rows.tolist()} for reason, rows in kept]


def _facts(dataset: Dataset, marks: np.ndarray, groups: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Returns (label, value, remark) of each figure at the top of the page."""
    table, names = dataset.table, dataset.class_names
    counts = np.bincount(table["label"], minlength=len(names))
    equal = counts.min() == counts.max()
    sizes = table[["width", "height"]].to_numpy()
    width, height = np.median(sizes, axis=0).astype(int)
    shorter = sizes.min(axis=1)
    copied = int((marks & (EXACT_COPY | NEAR_COPY) > 0).sum())
    conflicts = sum(bool(marks[group["rows"][0]] & LABEL_CONFLICT) for group in groups)
    facts = [
        ("images", f"{len(table):,}", ""),
        ("classes", f"{len(names):,}", "of equal size" if equal else f"{counts.min():,} to {counts.max():,} images each"),
    ]
    if not equal:
        facts.append(("smallest class", f"{counts.min():,}", names[int(counts.argmin())]))
        facts.append(("largest class", f"{counts.max():,}", names[int(counts.argmax())]))
    return [
        *facts,
        ("median size", f"{width:,} × {height:,}", f"shorter sides {shorter.min():,} to {shorter.max():,} px"),
        ("copies", f"{copied:,}", f"in {formatting.count(len(groups), 'group')}" if copied else "no picture comes twice"),
        ("label conflicts", f"{conflicts:,}", "one picture, two labels" if conflicts else "none found"),
    ]
