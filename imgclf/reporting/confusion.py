"""The confusion matrix of a report, and the pictures that its cells open."""

from collections.abc import Callable
from typing import Any

import numpy as np

from imgclf.reporting import class_table, pages, plots

MATRIX_CLASSES = 40  # more than these, and the confusion matrix is condensed


def section(results: dict[str, Any], names: list[str]) -> dict[str, Any] | None:
    """The matrix, or of many classes a condensed one, and the pairs that are confused most often; None where a run has no confusion.

    Args:
      results: the contents of results.json.
      names: of the classes, in the order of their numbers.
    """
    if not results.get("confusion"):
        return None
    true, predicted, counts = class_table.pairs(results["confusion"])
    support = np.bincount(true, counts, len(names)).astype(np.int64)
    mistaken = true != predicted
    true, predicted, counts = true[mistaken], predicted[mistaken], counts[mistaken]
    order = np.lexsort((predicted, true, support[true], -counts))  # of several pairs of one count, the larger share of its class first
    large = len(names) > MATRIX_CLASSES
    pairs = [
        {"true": names[t], "predicted": names[p], "n": int(n), "support": int(support[t]), "share": n / support[t]}
        for t, p, n in zip(true[order], predicted[order], counts[order], strict=True)
    ][: 12 if large else 5]
    found = {"names": names, "pairs": pairs, "wrong": int(counts.sum()), "kinds": len(true), "large": large, "svg": None}
    if isinstance(results["confusion"], dict):
        return found
    matrix = np.array(results["confusion"])
    if large and len(true):
        svg, block = plots.condensed_confusion(matrix)
        return found | {"svg": svg, "block": block}
    rows = []
    for label, name in enumerate(names):
        shares = matrix[label] / max(1, support[label])
        rows.append(
            {
                "name": name,
                "support": int(support[label]),
                "cells": [(int(n), float(share)) for n, share in zip(matrix[label], shares, strict=True)],
            }
        )
    return found | {"rows": rows}


def pictures(index: dict[str, Any], matrix: dict[str, Any], picture: Callable[[str], dict[str, Any]]) -> dict[str, Any] | None:
    """What `confusion.js` opens: JSON of {cells: [[true, predicted, [id, …]], …], pictures: {id: {src, small}}}; None where there are none.

    Args:
      index: that of the run's samples.
      matrix: what `section` returned: of a condensed matrix only the pairs that are named can be opened.
      picture: makes the picture of an id; those without a source are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    cells = []
    named = {(pair["true"], pair["predicted"]) for pair in matrix["pairs"]}
    for true, said, ids in index.get("cells", []):
        if matrix["large"] and (true, said) not in named:
            continue
        own = {image_id: made for image_id in ids if (made := picture(image_id))["src"]}
        if own:
            cells.append([true, said, list(own)])
            found |= {image_id: {"src": made["src"], "small": made["small"]} for image_id, made in own.items()}
    return {"data": pages.as_json({"cells": cells, "pictures": found})} if cells else None
