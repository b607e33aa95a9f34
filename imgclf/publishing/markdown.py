"""Markdown of the cards."""

import html
import re
from collections.abc import Sequence

from imgclf import formatting


def section(title: str, *paragraphs: str) -> str:
    """A heading with the paragraphs that there are."""
    return "\n\n".join([f"## {title}", *filter(None, paragraphs)])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def interval(bounds: Sequence[float] | None) -> str:
    """A confidence interval, of shares."""
    return formatting.NONE if not bounds else formatting.interval(list(bounds))


def text(value: object) -> str:
    """Text of the user's, such as a class name, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(re.sub(r"\s+", " ", str(value)), quote=False))


def code(value: object) -> str:
    """What may stand between backquotes."""
    return re.sub(r"[`\s]+", " ", str(value)).strip()
