"""What a search for label errors leaves: label_errors.html, a gallery of suspects, and labels.patch.csv for the user to fill in."""

from pathlib import Path

import pandas as pd
from rich.console import Console

from imgclf.data import label_patch
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.evaluation.label_errors import Suspects, patch
from imgclf.reporting import pages

PAGE, PATCH = "label_errors.html", "labels.patch.csv"
CARDS = 1000  # the patch holds all suspects


def check_target(folder: Path, applied: str) -> None:
    """Raises a UserError where a patch with somebody's edits would be lost: any but the one that is applied, whose edits are carried over.

    Args:
      folder: that will be written to.
      applied: `config.data.label_patch`.
    """
    pages.check_target(folder / PAGE)
    path = folder / PATCH
    if not path.exists() or (applied and path.samefile(Path(applied).expanduser())):
        return
    edited = int((label_patch.read(path)["label"] != "").sum())
    if edited:
        raise UserError(
            f"{path} holds {edited} labels of yours: give --config.data.label_patch={path} to keep them and look for more, or choose "
            "another --out."
        )


def write(folder: Path, dataset: Dataset, suspects: Suspects, decided: pd.DataFrame, applied: str, console: Console) -> tuple[Path, Path]:
    """Writes the page and the patch; the patch begins with what was decided before.

    Args:
      folder: it is made.
      dataset: the images.
      suspects: of it.
      decided: what `label_patch.decided` returns.
      applied: `config.data.label_patch`; see `check_target`.
      console: shows the progress.

    Returns:
      The paths of the page and of the patch.

    Raises:
      UserError: if they can't be written.
    """
    check_target(folder, applied)
    rows = patch(dataset, suspects)
    shown = suspects.rows[:CARDS]
    table = dataset.table.iloc[shown]
    pictures = pages.thumbnails(dataset, shown, max(160, pages.edge_for(len(shown))), console)
    small = (table[["width", "height"]].max(axis=1) <= pages.LOSSLESS_EDGE).tolist()
    cards = [
        {"src": f"data:image/webp;base64,{picture}", "small": blown, "split": split, "given_probability": believed, **row}
        for picture, blown, split, believed, row in zip(
            pictures, small, table["split"], suspects.given_probability.tolist(), rows.to_dict("records"), strict=False
        )
    ]
    context = {
        "title": Path(dataset.table["source"].iloc[0]).name,
        "cards": cards,
        "suspects": len(suspects.rows),
        "estimated": suspects.estimated,
        "n": len(dataset.table),
        "patch": PATCH,
        "style": pages.source("report.css"),
    }
    page = pages.write(folder / PAGE, "label_errors.html.j2", context)
    columns = [*rows.columns, *(name for name in decided.columns if name not in rows.columns)]
    merged = pd.concat([decided.astype(object), rows.astype(object)]).reindex(columns=columns).fillna("")
    aside = folder / f"{PATCH}.part"
    merged.to_csv(aside, index=False)
    aside.replace(folder / PATCH)
    return page, folder / PATCH
