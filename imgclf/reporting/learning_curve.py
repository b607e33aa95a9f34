"""How many more photos? What a study of data sizes leaves: learning_curve.json and learning_curve.html, one page without scripts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgclf import files, outputs
from imgclf.reporting import pages, plots


def write(folder: Path, data: str, found: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes both files into `folder`, each in one move.

    Args:
      data: what the curves are of.
      found: classifier → what `evaluation.learning_curve.extrapolate` returned, for images per class.

    Returns:
      the path of the page.

    Raises:
      UserError: if something else stands in the page's place.
    """
    page = outputs.check_file(folder / "learning_curve.html")
    chart = plots.data_sizes(found, "top-1 accuracy, with 95 % intervals")
    pages.write(page, "learning_curve.html.j2", {"style": pages.source("report.css"), "data": data, "found": found, "chart": chart})
    files.write_json(folder / "learning_curve.json", dict(found))
    return page
