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


def leaderboard(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was tried within a time limit: accuracy with its interval as a bar, seconds, and the decision; the kept row is bold.

    Args:
      rows: of `reporting.leaderboard.read`.
    """
    shown = ""
    for row in rows:
        score, bar = (formatting.NONE, "") if row["n"] is None else _scored(row["top1"], (row["low"], row["high"]))
        seconds = formatting.duration(row["seconds"]) if row["seconds"] else formatting.NONE
        shown += _row(row["name"], (score, bar, seconds, html.escape(str(row["decision"]))), chosen=bool(row["kept"]))
    return f"<table><tr><th>tried</th><th>accuracy</th><th></th><th>time</th><th>decision</th></tr>{shown}</table>"


def study(summary: Mapping[str, Any]) -> str:
    """A study's question, and its arms: accuracy with its interval as a bar, and the difference from the baseline; the one to take is bold.

    Args:
      summary: of `studies.summary.summarize`.
    """
    best, shown = (summary["best"] or {}).get("arm"), ""
    for arm, row in summary["arms"].items():
        against = "the baseline" if arm == summary["baseline"] else formatting.NONE
        if (compared := summary["comparisons"].get(arm)) is not None:
            difference, low, high = map(formatting.points, (compared["difference"], *compared["difference_ci95"]))
            against = f"{difference} points ({low} to {high})" + (", a tie" if compared["tie"] else "")
        shown += _row(arm, (*_scored(row["top1"], row["top1_ci95"]), against), chosen=arm == best)
    why = f"<p>Take <strong>{html.escape(best)}</strong>: {html.escape(summary['best']['why'])}.</p>" if best else ""
    failed = len(summary["failures"])
    told = f"<p><strong>Warning:</strong> {formatting.count(failed, 'run')} failed.</p>" if failed else ""
    question = f"<p><strong>{html.escape(summary['question'])}</strong></p>" if summary["question"] else ""
    return f"{question}<table><tr><th>arm</th><th>accuracy</th><th></th><th>against the baseline</th></tr>{shown}</table>{why}{told}"


def is_running() -> bool:
    """Whether a notebook's cell, or an IPython prompt, is what runs this."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False  # then there is no notebook either
    return get_ipython() is not None


def show(page: Path) -> None:
    """Shows a self-contained page below the notebook's cell.

    Raises:
      UserError: outside of a notebook.
    """
    if not is_running():
        raise UserError(f"inline=True shows a page in a notebook, and this is none: open {page} in a browser.")
    from IPython.display import display

    text, title = html.escape(page.read_text(encoding="utf-8"), quote=True), html.escape(page.stem)
    frame = f'<iframe srcdoc="{text}" title="{title}" style="width:100%;height:{_HEIGHT}px;border:1px solid #8884"></iframe>'
    display({"text/html": frame, "text/plain": str(page)}, raw=True)


def _class_row(name: str, row: Mapping[str, Any]) -> str:
    cells = "".join(
        f"<td>{text}</td>" for text in (f"{row['support']:,}", formatting.percent(row["recall"]), formatting.percent(row["precision"]))
    )
    bar = "" if row["recall"] is None else _bar(row["recall"], width=120)
    return f"<tr><td style='text-align:left'>{html.escape(name)}</td>{cells}<td>{bar}</td></tr>"


def _row(name: str, cells: Sequence[str], *, chosen: bool) -> str:
    """A row of a table; the cells are HTML."""
    first = f"<strong>{html.escape(name)}</strong>" if chosen else html.escape(name)
    return f"<tr><td style='text-align:left'>{first}</td>{''.join(f'<td style=text-align:left>{cell}</td>' for cell in cells)}</tr>"


def _scored(share: float, bounds: Sequence[float]) -> tuple[str, str]:
    """An accuracy with its interval as text, and as a bar."""
    low, high = bounds
    return f"{formatting.percent(share)} ({formatting.interval((low, high))})", _bar(share, low, high, width=160)


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
