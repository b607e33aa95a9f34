"""Balancing written to disk: augmented copies of training images up to a number per class, after the split.

What the tutorials got wrong stays out: copies are made of training images only, an image's copies are in one group with it, so that no
later split can part them, and no two files have one name. `loader.sampling="balanced"` does the same without files, with new views in
every epoch.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import files, progress
from imgclf.config import Config
from imgclf.data import augment
from imgclf.data.augment import color
from imgclf.data.readers import FileReader, RowsReader
from imgclf.data.splits import groups_of
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.remote import places

TABLE, SPLIT, ABOUT = "labels.csv", "split.csv", "balance.json"
JPEG_QUALITY = 95
_BATCH_ONLY = ("erase", "cutout", "mixup", "cutmix")  # of config.augment: not to be baked into files


@dataclasses.dataclass(frozen=True)
class Copy:
    """A file to be made: the original where `number` is -1, else its augmented copy of this number, drawn as training draws that epoch."""

    row: int
    number: int
    path: str  # relative to the folder


@dataclasses.dataclass(frozen=True)
class Done:
    """Images per class in training, before and after, and how many files this call made and found made already."""

    before: dict[str, int]
    after: dict[str, int]
    made: int
    found: int


def check(config: Config) -> None:
    """Raises a UserError for an augmentation that can't be written, or that would copy images as they are."""
    for name in _BATCH_ONLY:
        if config.augment[name]:
            raise UserError(
                f"config.augment.{name}={config.augment[name]!r} is not for files: the training step does it, anew in every epoch; set it "
                "in the training's config."
            )
    if augment.is_neutral(config.augment):
        raise UserError("config.augment changes nothing, so that copies would be the images again: set some of its fields.")


def plan(dataset: Dataset, to: int) -> list[Copy]:
    """Lists the originals of all splits, and the copies that bring each class to `to` training images; what has more stays as it is.

    The copies of a class go round its images, in the table's order.
    """
    table = dataset.table
    names = _names(table)
    copies = [Copy(row, -1, name) for row, name in enumerate(names)]
    train = table["split"].to_numpy(str) == "train"
    for label in range(len(dataset.class_names)):
        rows = np.flatnonzero(train & (table["label"].to_numpy() == label))
        for place in range(max(0, to - len(rows)) if len(rows) else 0):
            number, row = place // len(rows), int(rows[place % len(rows)])
            stem, extension = os.path.splitext(names[row])
            extension = ".png" if extension.lower() == ".png" else ".jpg"
            copies.append(Copy(row, number, f"{stem}-copy{number + 1:03d}{extension}"))
    return copies


def write(dataset: Dataset, config: Config, to: int, folder: Path, console: Console, *, edge: int = 0, link: bool = False) -> Done:
    """Writes originals and copies as SPLIT/CLASS/NAME, and `labels.csv` (path, label, split, group) last, when all files are there.

    First of all the split is written down (`split.csv`), with what was asked (`balance.json`). Interrupted, the same call continues.

    Args:
      dataset: split and audited, of image files.
      config: data.*, augment.*, seed.
      to: training images per class.
      folder: empty, absent, or begun by the same call.
      console: for the progress.
      edge: the copies' longer side in pixels at most; 0 = the originals'.
      link: symbolic links to the originals instead of copies of their files.

    Raises:
      UserError: for a folder that holds something else, images that are no files or have changed, and what can't be written.
    """
    check(config)
    table = dataset.table
    sources = [_file(dataset, row) for row in range(len(table))]
    copies = plan(dataset, to)
    split = pd.DataFrame({name: table[name] for name in ("id", "class_name", "split", "sha256")} | {"group": groups_of(table)})
    asked = {
        "to": to,
        "edge": edge,
        "link": link,
        "seed": config.seed,
        "augment": config.augment.to_dict(),
        "split": hashlib.sha256(split.to_csv(index=False).encode("utf-8", "surrogateescape")).hexdigest(),
    }
    try:
        _begin(folder, asked, split)
        pending = [copy for copy in copies if not os.path.lexists(folder / copy.path)]
        for parent in {(folder / copy.path).parent for copy in pending}:
            parent.mkdir(parents=True, exist_ok=True)

        def make(copy: Copy) -> None:
            with files.replacing(folder / copy.path) as aside:
                if copy.number >= 0:
                    aside.write_bytes(_encoded(_copy(dataset, config, copy, edge), Path(copy.path).suffix))
                elif link:
                    aside.unlink(missing_ok=True)
                    aside.symlink_to(sources[copy.row])
                else:
                    shutil.copyfile(sources[copy.row], aside)

        with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(console) as bar:
            futures = [pool.submit(make, copy) for copy in pending]
            try:
                for future in bar.track(futures, description="images"):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        files.write_text(folder / TABLE, _table(dataset, copies).to_csv(index=False))
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} can't be written ({error.strerror}): make room, then give the same command to continue."
        ) from error
    before, after = _counts(dataset, (copy for copy in copies if copy.number < 0)), _counts(dataset, copies)
    return Done(before, after, len(pending), len(copies) - len(pending))


def _begin(folder: Path, asked: dict[str, Any], split: pd.DataFrame) -> None:
    about = folder / ABOUT
    text = json.dumps(asked, indent=2) + "\n"
    if about.exists():
        if about.read_text(encoding="utf-8") != text:
            raise UserError(f"{folder} was balanced from other data or with other settings (see {about}): choose another --out.")
        return
    if folder.is_dir() and any(path.name != files.part_of(SPLIT).name for path in folder.iterdir() if path.name != SPLIT):
        raise UserError(f"{folder} holds other files, and nothing is overwritten: choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / SPLIT, split.to_csv(index=False))
    files.write_text(about, text)


def _names(table: pd.DataFrame) -> list[str]:
    """SPLIT/CLASS/STEM-HASH.EXTENSION of each row; the hash of its id keeps files of one name apart."""
    names = []
    for image_id, class_name, split in zip(table["id"], table["class_name"], table["split"], strict=True):
        digest = hashlib.blake2b(image_id.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        stem, extension = os.path.splitext(image_id.rsplit("/", 1)[-1])
        names.append(f"{split}/{_safe(class_name)}/{_safe(stem)[:80]}-{digest}{extension}")
    return names


def _safe(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w .()&+-]", "_", name).strip(" .") or "_"


def _file(dataset: Dataset, row: int) -> str:
    reader = dataset.reader
    while isinstance(reader, RowsReader):
        row, reader = int(reader.rows[row]), reader.reader
    if not isinstance(reader, FileReader):
        raise UserError("Only images that are files can be balanced on disk: use loader.sampling='balanced' in the training's config.")
    if places.is_url(reader.path(row)):
        raise UserError(f"{places.shown(reader.path(row))} is not on this machine: balance a copy, or use loader.sampling='balanced'.")
    return reader.path(row)


def _copy(dataset: Dataset, config: Config, copy: Copy, edge: int) -> np.ndarray:
    """The augmented copy, uint8 [h, w, 3]: of the original's size and proportions, or smaller."""
    table, fields = dataset.table, config.augment
    height, width = (int(table[name].to_numpy()[copy.row]) for name in ("height", "width"))
    scale = min(1.0, edge / max(height, width)) if edge else 1.0
    size = max(1, round(height * scale)), max(1, round(width * scale))
    drawn = augment.draw(augment.view_rng(config.seed, table["id"].to_numpy()[copy.row], copy.number), fields)
    view = augment.render(dataset.reader[copy.row], drawn, size, fill=fields.fill, fill_value=fields.fill_value)
    return view if drawn.color is None else color.apply(view, color.matrix(drawn.color, view))


def _encoded(image: np.ndarray, extension: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if extension == ".jpg" else []
    return cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _table(dataset: Dataset, copies: list[Copy]) -> pd.DataFrame:
    rows = [copy.row for copy in copies]
    table = dataset.table.iloc[rows]
    columns = {"path": [copy.path for copy in copies], "label": table["class_name"].to_numpy(), "split": table["split"].to_numpy()}
    return pd.DataFrame(columns | {"group": groups_of(dataset.table)[rows]})


def _counts(dataset: Dataset, copies: Iterable[Copy]) -> dict[str, int]:
    """Training images of each class."""
    table = dataset.table.iloc[[copy.row for copy in copies]]
    counts = table.loc[table["split"] == "train", "class_name"].value_counts()
    return {name: int(counts.get(name, 0)) for name in dataset.class_names}
