"""Markdown of the cards."""

import html
import re
from collections.abc import Sequence

from huggingface_hub import ModelCard, ModelCardData

from imgclf import formatting

_NAMED = 20  # classes


def card(metadata: ModelCardData, *parts: str) -> str:
    """A card as the hub wants it: its metadata, and the parts that there are."""
    body = "\n\n".join(filter(None, parts))
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n", ignore_metadata_errors=False))


def classes(names: Sequence[str]) -> str:
    """What photos are classified into, as a sentence: how many classes, and the names of the first of them."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"Classifies photos into {formatting.count(len(names), 'class', 'classes')}: {', '.join(map(text, names[:_NAMED]))}{more}."


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
