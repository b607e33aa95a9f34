"""The example table: one row per usable image, from any source, verified."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.config.fields import DataConfig
from imgclf.data import label_patch
from imgclf.data.folders import Listing, list_folder
from imgclf.data.sources import list_csv, list_digits, list_tfds
from imgclf.data.verify import cache_file, verify
from imgclf.errors import UserError, nearest


class ImageReader(Protocol):
    """Row number of the table → pixels. Picklable, since workers are spawned."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray:
        """uint8 [h, w, 3] at full size, orientation applied."""

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        """Like `[row]`, but possibly at a reduced scale with h >= min_size[0] and w >= min_size[1]."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A verified data set.

    Attributes:
      table: a row per usable image. id (str, unique, relative to the source, so it outlives a move of the folder), source (str), class_name
        (str), label (int32), split ("train" | "val" | "test" | "" before assignment), group (str; "" = none: the image is its own), sha256
        (str, of the file's bytes or of the pixels), width, height (int32, oriented), phash (int64: 64 bits, see `images.perceptual_hash`).
        With a patch of labels also original_class (str), the source's.
      class_names: sorted; label indexes it.
      quarantine: the images left out: id, reason, detail. The reasons: truncated, damaged, empty, not_an_image, unsupported,
        too_many_pixels, unreadable, missing, ambiguous (a stem of several files), unlabeled (beside the class folders).
      ignored: files that are no images, and rows that repeat another: kind → count.
      reader: the images, by row of the table.
    """

    table: pd.DataFrame
    class_names: tuple[str, ...]
    quarantine: pd.DataFrame
    ignored: dict[str, int]
    reader: ImageReader


def load_dataset(config: Config) -> Dataset:
    """Lists and verifies the images of `config.data`; splits are as the source gives them, or "", labels with `data.label_patch` applied.

    Args:
      config: the whole config.

    Raises:
      UserError: if the source is not there or not understood, or has fewer than two classes, or a class without a usable image; if the
        patch of labels does not fit it.
    """
    data = config.data
    listing = _list(data)
    counts = Counter(listing.classes) if listing.classes is not None else None
    if counts is not None:  # before the hours that a large set takes to verify
        _check_classes(listing, counts, [])
    result = verify(
        listing.reader,
        listing.ids,
        listing.sizes,
        listing.mtimes_ns,
        max_pixels=data.max_pixels,
        cache=cache_file(listing.cached_as, data.max_pixels) if listing.cached_as else None,
    )
    good = (result["reason"] == "").to_numpy()
    rows = np.flatnonzero(good)
    bad = [(listing.ids[row], result["reason"].iat[row], result["detail"].iat[row]) for row in np.flatnonzero(~good)]
    if listing.classes is None:
        stored = result["label"].to_numpy()
        if (hidden := int((stored[rows] < 0).sum())) > 0:
            raise UserError(f"{listing.source} hides the labels of {hidden} images: name only splits with labels in config.data.tfds.")
        classes = [listing.class_names[label] if label >= 0 else "" for label in stored]
    else:
        classes = listing.classes
    kept = [classes[row] for row in rows]
    _check_classes(listing, Counter(kept), bad)
    class_names = tuple(sorted(listing.class_names))
    index = {name: label for label, name in enumerate(class_names)}
    table = pd.DataFrame(
        {
            "id": pd.Series([listing.ids[row] for row in rows], dtype="str"),
            "source": pd.Series([listing.source] * len(rows), dtype="str"),
            "class_name": pd.Series(kept, dtype="str"),
            "label": np.array([index[name] for name in kept], np.int32),
            "split": pd.Series([listing.splits[row] for row in rows], dtype="str"),
            "group": pd.Series([listing.groups[row] for row in rows], dtype="str"),
            "sha256": result["sha256"].iloc[rows].astype("str").reset_index(drop=True),
            "width": result["width"].to_numpy()[rows],
            "height": result["height"].to_numpy()[rows],
            "phash": result["phash"].to_numpy()[rows],
        }
    )
    if data.label_patch:
        table = label_patch.apply(table, class_names, data.label_patch)
    quarantine = pd.DataFrame(sorted(listing.quarantine + bad), columns=["id", "reason", "detail"], dtype="str")
    return Dataset(table, class_names, quarantine, dict(sorted(listing.ignored.items())), listing.reader.take(rows))


def _list(data: DataConfig) -> Listing:
    match data.source:
        case "folder":
            return list_folder(data.path, data.max_pixels)
        case "csv":
            return list_csv(data)
        case "tfds":
            return list_tfds(data)
        case "digits":
            return list_digits()
    raise UserError(f"config.data.source={data.source!r} is unknown; {nearest(data.source, ('folder', 'csv', 'tfds', 'digits'))}")


def _check_classes(listing: Listing, counts: Counter, bad: list[tuple[str, str, str]]) -> None:
    """At least two classes, each with an image."""
    empty = [name for name in listing.class_names if not counts[name]]
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        out = listing.quarantine + bad
        why = f" ({len(out)} images were left out, such as {out[0][0]}: {out[0][1]}, {out[0][2]})" if out else ""
        has = "class has" if len(empty) == 1 else "classes have"
        raise UserError(f"{listing.source}: {len(empty)} {has} no usable image, {shown}{why}: add images, or remove what names the class.")
    check_two_classes(listing.source, listing.class_names)


def check_two_classes(source: str, class_names: Sequence[str]) -> None:
    """Raises a UserError unless there are at least two classes."""
    if len(class_names) < 2:
        only = f" only, {class_names[0]!r}" if class_names else " less"
        raise UserError(f"{source} has one class{only}; a classifier needs two: add images of another class.")
