"""What a notebook shows of results: tables and bars in HTML of their own style, and pages inline."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf import formatting
from imgclf.errors import UserError
from imgclf.evaluation import metrics

CLASSES = 12  # of an evaluation, those with the lowest recall
_HEIGHT = 640  # pixels of a page shown inline


def evaluation(results: Mapping[str, Any], warnings: Sequence[str] = ()) -> str:
    """The accuracy with its interval, as a sentence and as a bar, and the recall of the worst classes.

    Args:
      results: of `metrics.compute`.
      warnings: what makes them less than they seem.
    """
    low, high = results["top1_ci95"]
    rows = sorted(results["per_class"].items(), key=lambda row: (row[1]["recall"] is None, row[1]["recall"]))
    shown = "".join(_class_row(name, row) for name, row in rows[:CLASSES])
    more = f"<p>The {CLASSES} classes of the lowest recall, of {len(rows):,}.</p>" if len(rows) > CLASSES else ""
    told = "".join(f"<p><strong>Warning:</strong> {html.escape(warning)}</p>" for warning in warnings)
    return (
        f"<p><strong>{html.escape(metrics.headline(results))}</strong></p>{_bar(results['top1'], low, high)}{told}"
        f"<table><tr><th>class</th><th>images</th><th>recall</th><th>precision</th><th></th></tr>{shown}</table>{more}"
    )


def classifier(about: Mapping[str, str], results: Mapping[str, Any] | None) -> str:
    """A classifier's essentials: rows of name and text, after the headline of its own results where it has some."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in about.items()
    )
    headline = "" if results is None else f"<p><strong>{html.escape(metrics.headline(results))}</strong></p>"
    if results is not None and results.get("top1_ci95"):
        headline += _bar(results["top1"], *results["top1_ci95"])
    return f"{headline}<table>{rows}</table>"


def show(page: Path) -> None:
    """Shows a self-contained page below the notebook's cell.

    Raises:
      UserError: outside of a notebook.
    """
    shell = None
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        shell = get_ipython()
    except ImportError:
        pass  # then there is no notebook either
    if shell is None:
        raise UserError(f"inline=True shows a page in a notebook, and this is none: open {page} in a browser.")
    text, title = html.escape(page.read_text(encoding="utf-8"), quote=True), html.escape(page.stem)
    frame = f'<iframe srcdoc="{text}" title="{title}" style="width:100%;height:{_HEIGHT}px;border:1px solid #8884"></iframe>'
    display({"text/html": frame, "text/plain": str(page)}, raw=True)


def _class_row(name: str, row: Mapping[str, Any]) -> str:
    cells = "".join(
        f"<td>{text}</td>" for text in (f"{row['support']:,}", formatting.percent(row["recall"]), formatting.percent(row["precision"]))
    )
    bar = "" if row["recall"] is None else _bar(row["recall"], width=120)
    return f"<tr><td style='text-align:left'>{html.escape(name)}</td>{cells}<td>{bar}</td></tr>"


def _bar(share: float, low: float | None = None, high: float | None = None, width: int = 320) -> str:
    """A share on 0 to 1, with its interval as a whisker."""
    whisker = (
        "" if low is None or high is None else f'<path d="M{low * width:.1f} 6H{high * width:.1f}" stroke="currentColor" stroke-width="2"/>'
    )
    told = formatting.percent(share) + ("" if low is None or high is None else f", {formatting.interval((low, high))}")
    return (
        f'<svg role="img" aria-label="{html.escape(told)}" width="{width}" height="12" style="vertical-align:middle">'
        f'<rect width="{width}" height="12" fill="currentColor" opacity=".12"/>'
        f'<rect width="{share * width:.1f}" height="12" fill="#2563eb" opacity=".75"/>{whisker}</svg>'
    )
