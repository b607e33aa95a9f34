"""The images that an export is checked with, and that its integers are fitted to: the run's own, as far as they can still be read."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.data.augment import Preprocessing
from imgclf.data.images import Decoding, ImageError, decode, pixels_of
from imgclf.data.readers import ImageReader, Reader, RowsReader
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError

_ORDER = ("test", "val", "train", "")  # images that the classifier was not fitted to, first


@dataclasses.dataclass(frozen=True)
class Picture:
    """A real image.

    Attributes:
      id: its name in the data.
      stored: the bytes of its file; or its pixels, uint8 [h,w,3], where it stands in no file of its own.
      shown: what the network is shown of it in evaluation, the plain view: uint8 [H,W,3].
    """

    id: str
    stored: bytes | np.ndarray
    shown: np.ndarray


@dataclasses.dataclass(frozen=True)
class Labeled:
    """Images of a split: `shown`, uint8 [N,H,W,3]; `labels`, int64 [N]; `groups` [N], names of what belongs together."""

    shown: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


class Pictures:
    """The images of a table, those that are gone, or have changed, left out.

    Attributes:
      where: what they are, for messages.
    """

    def __init__(self, config: Config, table: pd.DataFrame, reader: ImageReader | None, where: str):
        """
        Args:
          config: of the run, which says how an image is shown.
          table: `id`, and as far as known `source`, `split`, `label`, `group`, `sha256`.
          reader: of these rows; None = they are files below their `source`.
          where: see above.
        """
        self._config, self._table, self._reader, self.where = config, table.reset_index(drop=True), reader, where

    @classmethod
    def of_run(cls, folder: Path, config: Config) -> "Pictures":
        """Those of a run; none where its folder names none, as that of a saved model does not."""
        path = folder / "dataset.parquet"
        table = pd.read_parquet(path) if path.exists() else pd.DataFrame()
        if "id" not in table:
            return cls(config, pd.DataFrame({"id": []}), None, f"the images of the run in {folder}")
        return cls(config, table, None, f"the images of the run in {folder}")

    @classmethod
    def of_dataset(cls, dataset: Dataset, config: Config) -> "Pictures":
        """Those of a data set, such as a folder that the user has named."""
        return cls(config, dataset.table, dataset.reader, "the images that were named")

    def sample(self, count: int) -> list[Picture]:
        """Some images, spread over the classes and the same each time; those of test first.

        Raises:
          UserError: if not one can be read.
        """
        found = []
        for row in self._spread(_ORDER):
            if (picture := self._read(row)) is not None:
                found.append(picture)
            if len(found) == count:
                break
        if not found:
            raise UserError(
                f"Not one of {self.where} can be read any more, and an export is checked with real images: name others with images=FOLDER."
            )
        return found

    def split(self, name: str, most: int) -> Labeled:
        """Up to `most` images of a split, spread over the classes and the same each time; perhaps none."""
        shown, rows = [], []
        for row in self._spread((name,)):
            if (picture := self._read(row)) is not None:
                shown.append(picture.shown)
                rows.append(row)
            if len(rows) == most:
                break
        part = self._table.iloc[rows]
        groups = part["group"].to_numpy(str) if "group" in part else np.full(len(part), "")
        ids = part["id"].to_numpy(str)
        pixels = np.stack(shown) if shown else np.zeros((0, *self._config.data.image_size, 3), np.uint8)
        return Labeled(pixels, part["label"].to_numpy(np.int64) if rows else np.zeros(0, np.int64), np.where(groups == "", ids, groups))

    def _spread(self, splits: tuple[str, ...]) -> Iterator[int]:
        """Rows of these splits, one split after another; in each of them the classes take turns, their images by the hash of the id."""
        table = self._table
        if table.empty:
            return
        split = table["split"].to_numpy(str) if "split" in table else np.full(len(table), "")
        label = table["label"].to_numpy(np.int64) if "label" in table else np.zeros(len(table), np.int64)
        keys = [hashlib.sha256(str(name).encode("utf-8", "surrogateescape")).hexdigest() for name in table["id"]]
        for name in splits:
            rows = pd.DataFrame({"label": label, "key": keys}).loc[split == name].sort_values("key")
            rows["turn"] = rows.groupby("label").cumcount()
            yield from rows.sort_values(["turn", "label"]).index.tolist()

    def _read(self, row: int) -> Picture | None:
        """The image of a row; None where it is gone, or has changed."""
        try:
            stored = self._stored(row)
        except OSError:
            return None
        sha256 = self._table["sha256"].iloc[row] if "sha256" in self._table and isinstance(stored, bytes) else ""
        if sha256 and isinstance(stored, bytes) and hashlib.sha256(stored).hexdigest() != sha256:
            return None
        try:
            pixels = decode(stored, decoding=self._decoding) if isinstance(stored, bytes) else pixels_of(stored, self._decoding)
        except ImageError:
            return None
        return Picture(str(self._table["id"].iloc[row]), stored if isinstance(stored, bytes) else pixels, self._preprocessing.plain(pixels))

    def _stored(self, row: int) -> bytes | np.ndarray:
        name = self._table["id"].iloc[row]
        if self._reader is None and "source" in self._table and os.path.isdir(os.path.expanduser(self._table["source"].iloc[row])):
            return Path(os.path.expanduser(self._table["source"].iloc[row]), name).read_bytes()
        reader: ImageReader
        reader, place = (self._reader, row) if self._reader is not None else self._found(name)
        while isinstance(reader, RowsReader):
            place = int(reader.rows[place])
            reader = reader.reader
        return reader.encoded(place)[0] if isinstance(reader, Reader) else reader[place]

    def _found(self, name: str) -> tuple[ImageReader, int]:
        """The reader of the whole data, and an image's row there.

        Raises:
          FileNotFoundError: if the data, or this image, is not there any more.
        """
        if self._loaded is None or name not in self._places:
            raise FileNotFoundError(name)
        return self._loaded.reader, self._places[name]

    @functools.cached_property
    def _loaded(self) -> Dataset | None:
        """The whole data, of a source whose images are in no folder; None where it is not there any more."""
        try:
            return load_dataset(self._config)
        except UserError:
            return None

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {} if self._loaded is None else {name: row for row, name in enumerate(self._loaded.table["id"])}

    @functools.cached_property
    def _decoding(self) -> Decoding:
        return Decoding.of(self._config.data)

    @functools.cached_property
    def _preprocessing(self) -> Preprocessing:
        return Preprocessing.of(self._config)
