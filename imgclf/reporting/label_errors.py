"""What a search for label errors leaves: label_errors.html, where suspects are looked at and decided, and labels.patch.csv.

The patch's column `label` is filled in on the page, which saves a new patch, or in any editor of tables.
"""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from imgclf import files, formatting, outputs
from imgclf.config import Config
from imgclf.data import label_patch
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.evaluation.label_errors import Suspects, patch
from imgclf.reporting import pages

PAGE, PATCH = "label_errors.html", "labels.patch.csv"
CARDS = 1000  # the patch holds all suspects


def identity(dataset: Dataset, config: Config) -> outputs.Identity:
    """What a page of suspected labels is of: these images, whatever their labels, and the backbone of this config."""
    images = hashlib.sha256(dataset.table[["id", "sha256"]].to_csv(index=False).encode("utf-8", "surrogateescape")).hexdigest()
    model = config.model.weights if config.model.weights != "none" else config.model.name
    subject = f"{formatting.count(len(dataset.table), 'image')} of {pages.name_of(dataset)} by {model}"
    return outputs.identity("suspected labels", subject, images, model)


def check_target(folder: Path, applied: str, of: outputs.Identity, *, overwrite: bool = False) -> None:
    """Raises a UserError where a page of other images, or a patch with somebody's edits, would be lost.

    Edits are lost in any patch but the one that is applied, whose edits are carried over; no option replaces those.

    Args:
      folder: that will be written to.
      applied: `config.data.label_patch`.
      of: what the page will be of.
      overwrite: whether to replace the page of something else.
    """
    outputs.check_file(folder / PAGE, of, overwrite=overwrite)
    path = folder / PATCH
    if not path.exists() or (applied and path.samefile(Path(applied).expanduser())):
        return
    edited = int((label_patch.read(path)["label"] != "").sum())
    if edited:
        raise UserError(
            f"{path} holds {formatting.count(edited, 'label')} of yours: give --set data.label_patch={path} to keep them and look for "
            "more, or choose another --out."
        )


def write(
    folder: Path, dataset: Dataset, suspects: Suspects, decided: pd.DataFrame, of: outputs.Identity, command: str, console: Console
) -> tuple[Path, Path]:
    """Writes the page and the patch; the patch begins with what was decided before. See `check_target` for what is replaced.

    Args:
      folder: it is made.
      dataset: the images.
      suspects: of it.
      decided: what `label_patch.decided` returns.
      of: what the page is of.
      command: that trains with the patch, for the user to copy.
      console: shows the progress.

    Returns:
      The paths of the page and of the patch.

    Raises:
      UserError: if they can't be written.
    """
    found = patch(dataset, suspects)
    columns = [*found.columns, *(name for name in decided.columns if name not in found.columns)]
    rows = pd.concat([decided.astype(object), found.astype(object)]).reindex(columns=columns).fillna("").astype(str)
    target = folder / PATCH
    context = {
        "title": pages.name_of(dataset),
        "cards": _cards(dataset, suspects, found, len(decided), console),
        "suspects": len(suspects.rows),
        "estimated": suspects.estimated,
        "n": len(dataset.table),
        "rows": len(rows),
        "patch": str(target),
        "patch_name": PATCH,
        "command": command,
        "data": pages.as_json({"columns": columns, "rows": rows.to_numpy().tolist(), "classes": list(dataset.class_names), "file": PATCH}),
        **pages.script("label_errors.js"),
        "style": pages.source("report.css") + pages.source("label_errors.css"),
    }
    page = pages.write(folder / PAGE, "label_errors.html.j2", context, of)
    files.write_text(target, rows.to_csv(index=False))
    return page, target


def _cards(dataset: Dataset, suspects: Suspects, found: pd.DataFrame, first: int, console: Console) -> list[dict[str, Any]]:
    """The pictures of the page, with what is known of them; `first` is the place of the first suspect among the patch's rows."""
    shown = suspects.rows[:CARDS]
    table = dataset.table.iloc[shown]
    pictures = pages.thumbnails(dataset, shown, max(160, pages.edge_for(len(shown))), console)
    small = (table[["width", "height"]].max(axis=1) <= pages.LOSSLESS_EDGE).tolist()
    believed = suspects.given_probability[: len(shown)].tolist()
    rows = found.head(len(shown)).to_dict("records")
    return [
        {
            "src": f"data:image/webp;base64,{picture}",
            "small": blown_up,
            "split": split,
            "given_probability": probability,
            "row": first + place,
            **{str(name): value for name, value in row.items()},
        }
        for place, (picture, blown_up, split, probability, row) in enumerate(
            zip(pictures, small, table["split"], believed, rows, strict=True)
        )
    ]
