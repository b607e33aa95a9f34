"""The page of `classifier.mistakes()`: a picture of every image that was taken for another class, the most confident ones first."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import formatting, outputs
from imgclf.data.table import Dataset
from imgclf.evaluation import metrics
from imgclf.reporting import explanations, pages

PAGE = "mistakes.html"
EXPLAINED = 100  # of the most confident mistakes; see reporting/explanations.py
CARDS = 500  # the table that goes with the page holds all mistakes
PAIRS = 12


def identity(dataset: Dataset, model: str, model_sha256: str) -> outputs.Identity:
    """What a page of the mistakes of a model (its name, for people, and its sha256) on these images is of."""
    subject = f"{model} on {formatting.count(len(dataset.table), 'image')} of {pages.name_of(dataset)}"
    return outputs.identity("mistakes", subject, model_sha256, pages.digest_of(dataset))


def write_page(
    dataset: Dataset,
    mistakes: pd.DataFrame,
    results: dict[str, Any],
    path: Path,
    of: outputs.Identity,
    *,
    explained: tuple[dict[str, Any], list[explanations.Card]] | None,
    console: Console,
) -> Path:
    """Writes the page; it runs no script and loads nothing.

    Args:
      dataset: the images.
      mistakes: columns true, predicted, probability, true_probability; the index is the row in `dataset.table`; in the order shown.
      results: of `metrics.compute`, over all images.
      path: of the page.
      of: its `identity`.
      explained: what is said of the explanations, see `explanations.sentences`, and a card for each of the first mistakes; or None.
      console: shows the progress.
    """
    shown = mistakes.head(CARDS)
    table = dataset.table.iloc[shown.index]
    edge = max(160, pages.edge_for(len(shown)))
    pictures = pages.thumbnails(dataset, shown.index.to_numpy(np.int64), edge, console)
    small = (table[["width", "height"]].max(axis=1) <= pages.LOSSLESS_EDGE).tolist()
    said, first = explained or (None, [])
    cards: list[dict[Any, Any]] = [
        {"src": f"data:image/webp;base64,{picture}", "small": blown, **row}
        for picture, blown, row in zip(pictures, small, shown.to_dict("records"), strict=True)
    ]
    pairs = mistakes.groupby(["true", "predicted"]).size().sort_values(ascending=False, kind="stable").head(PAIRS).reset_index(name="n")
    support = {name: row["support"] for name, row in results["per_class"].items()}
    for card, own in zip(cards, first, strict=False):
        card |= own
    headline = metrics.headline(results)
    context = {
        "title": pages.name_of(dataset),
        "top1": formatting.percent(results["top1"]),
        "rest": headline.removeprefix(formatting.percent(results["top1"])),
        "explained": cards[: len(first)],
        "said": said,
        "cards": cards[len(first) :],
        "wrong": len(mistakes),
        "n": len(dataset.table),
        "pairs": pairs.assign(support=pairs["true"].map(support)).to_dict("records"),
        "style": pages.source("report.css") + pages.source("explanations.css"),
    }
    return pages.write(path, "mistakes.html.j2", context, of)
