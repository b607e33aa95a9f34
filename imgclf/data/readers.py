"""Readers: row number → pixels. All are picklable and small, since workers are spawned with a copy."""

import abc
import contextlib
import copy
import dataclasses
import functools
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from imgclf.data import images
from imgclf.data.columns import Texts, shared
from imgclf.errors import UserError
from imgclf.remote import places, transfer
from imgclf.remote.ahead import WINDOW
from imgclf.remote.retrying import Unreachable


class ImageReader(Protocol):
    """What the pipeline needs: row number of the table → pixels."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray:
        """uint8 [h, w, 3] at full size, orientation applied."""

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        """Like `[row]`, but possibly at a reduced scale with h >= min_size[0] and w >= min_size[1]."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An image that was read and not verified before: its size is in its header.

    Attributes:
      reader, row: where it is from.
      data: as `Reader.encoded` gives it.
    """

    reader: "Reader"
    row: int
    data: bytes | np.ndarray

    def size(self) -> tuple[int, int]:
        """Height and width, oriented.

        Raises:
          images.ImageError: if the header is damaged or not an image's.
        """
        if isinstance(self.data, np.ndarray):
            return self.data.shape[0], self.data.shape[1]
        return images.size(self.data, self.reader.decoding.max_pixels)

    def pixels(self, min_size: tuple[int, int] | None) -> np.ndarray:
        """As `Reader.read` gives them.

        Raises:
          images.ImageError: if the image is damaged.
        """
        return self.reader.decoded(self.row, self.data, min_size)


class Reader(abc.ABC):
    """Reads the images of a source. A subclass says how many there are and gives each as it is stored; decoding is done here.

    Attributes:
      decoding: how stored images become pixels; set when the data set is loaded.
      noisy: images for which OpenCV's decoder writes messages of its own, so that Pillow decodes them; set when they are verified.
      kept_sizes: (height, width) of each picture as it is kept here, where that is smaller than the photo whose size the table gives.
      kept_as: how pictures are kept, where their pixels are not the photo's; "" = as they are. What is computed from the pixels, and known
        by the photo's sha256, is another thing for each.
    """

    decoding: images.Decoding = images.Decoding()
    noisy: np.ndarray | None = None  # bool [n]
    kept_sizes: np.ndarray | None = None  # int32 [n, 2]
    kept_as: str = ""

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abc.abstractmethod
    def encoded(self, row: int) -> tuple[bytes | np.ndarray, int]:
        """The image as it is stored: a file's bytes, or an array [h, w], [h, w, 1] or [h, w, 3]; and the label stored with it.

        The label is an index into the listing's class_names, or -1 where labels come from elsewhere.
        """

    def __getitem__(self, row: int) -> np.ndarray:
        return self.read(row)

    def read(self, row: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 [h, w, 3]; reduced to no less than min_size (height, width) where that is cheap."""
        data, _ = self.encoded(row)
        return self.decoded(row, data, min_size)

    def stored(self, row: int) -> Stored:
        """The image before it is decoded, for one that nobody has verified.

        Raises:
          images.ImageError: if it may not be read.
          OSError: if it can't be read.
        """
        return Stored(self, row, self.encoded(row)[0])

    def decoded(self, row: int, data: bytes | np.ndarray, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of what `encoded` has given, as `read` gives them."""
        if isinstance(data, np.ndarray):
            return images.pixels_of(data, self.decoding)
        by_pillow = self.noisy is not None and bool(self.noisy[row])
        return images.decode(data, min_size=min_size, decoding=self.decoding, by_pillow=by_pillow)

    def ahead(self, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        """While the block runs, what is far away of these rows, which will be read in this order, is fetched ahead."""
        return contextlib.nullcontext()

    def decoded_as(self, decoding: images.Decoding) -> Self:
        """This reader with another way of decoding."""
        other = copy.copy(self)
        other.decoding = decoding
        return other


@dataclasses.dataclass(frozen=True, eq=False)
class RowsReader:
    """Some rows of another reader, renumbered from 0: row `i` here is `rows[i]` there (int64 [n])."""

    reader: ImageReader
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.reader[int(self.rows[row])]

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        return self.reader.read(int(self.rows[row]), min_size)


def take(reader: ImageReader, rows: np.ndarray) -> ImageReader:
    """The reader of these rows (int64 [n]), in this order."""
    if np.array_equal(rows, np.arange(len(reader))):
        return reader
    return RowsReader(reader.reader, reader.rows[rows]) if isinstance(reader, RowsReader) else RowsReader(reader, rows)


def unwrapped(reader: ImageReader, row: int) -> tuple[ImageReader, int]:
    """The reader that holds the image of a row itself, and its row there."""
    if isinstance(reader, RowsReader):
        return unwrapped(reader.reader, int(reader.rows[row]))
    return reader, row


def stored(reader: ImageReader, row: int) -> Stored:
    """`Reader.stored` of a row, also through `RowsReader`."""
    holder, its_row = unwrapped(reader, row)
    assert isinstance(holder, Reader)
    return holder.stored(its_row)


def for_workers(reader: ImageReader) -> ImageReader:
    """The same images, by a reader that takes little to send to worker processes."""
    if isinstance(reader, RowsReader):
        return RowsReader(for_workers(reader.reader), shared(reader.rows))
    return reader.shared() if isinstance(reader, FileReader) else reader


def kept_sizes(reader: ImageReader) -> np.ndarray | None:
    """(height, width) of the pictures, int32 [n, 2], where they are kept at other sizes than the table gives; else None."""
    if isinstance(reader, RowsReader):
        inner = kept_sizes(reader.reader)
        return None if inner is None else inner[reader.rows]
    return reader.kept_sizes if isinstance(reader, Reader) else None


def kept_as(reader: ImageReader) -> str:
    """How the pictures are kept, see `Reader.kept_as`; "" where their pixels are the photos'."""
    while isinstance(reader, RowsReader):
        reader = reader.reader
    return reader.kept_as if isinstance(reader, Reader) else ""


def decoded_as(reader: ImageReader, decoding: images.Decoding) -> ImageReader:
    """The same images, decoded in another way; readers that decode nothing stay as they are."""
    if isinstance(reader, RowsReader):
        return RowsReader(decoded_as(reader.reader, decoding), reader.rows)
    return reader.decoded_as(decoding) if isinstance(reader, Reader) and reader.decoding != decoding else reader


def ahead(reader: ImageReader, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """While the block runs, the images of these rows, which will be read in this order, are fetched ahead where they lie at URLs."""
    while isinstance(reader, RowsReader):
        rows, reader = [int(reader.rows[row]) for row in rows], reader.reader
    return reader.ahead(rows) if isinstance(reader, Reader) else contextlib.nullcontext()


class FileReader(Reader):
    """Reads image files under one folder, on this machine or at a URL.

    Attributes:
      has_urls: whether any of them may lie at a URL.
    """

    def __init__(self, root: str, paths: Sequence[str], sizes: np.ndarray, forget: Path | None = None):
        """
        Args:
          root: absolute path of the folder, or its URL.
          paths: of the files, relative to root (or absolute, or URLs), as `os` gives them; `columns.Texts` are kept as they are.
          sizes: int64 [n], bytes; a file that has another size when it is read has changed since it was verified; -1 = unknown.
          forget: the kept listing that paths and sizes are from: removed where a file has changed, so that the next start looks anew.
        """
        self.root, self.paths = root, Texts.of(paths)
        self._sizes, self._forget = np.asarray(sizes, np.int64), forget
        self.has_urls = places.is_url(root) or (b"://" in self.paths.data.tobytes() and any(map(places.is_url, self.paths)))
        self._key = uuid.uuid4().hex  # tells its rows from other readers' in the window of what is fetched ahead

    def __len__(self) -> int:
        return len(self._sizes)

    def path(self, row: int) -> str:
        """The file's absolute path, or its URL."""
        name = self.paths[row]
        return places.join(self.root, name) if self.has_urls else os.path.join(self.root, name)

    def shared(self) -> Self:
        """The same reader, whose columns worker processes map instead of getting copies."""
        other = copy.copy(self)
        other.paths, other._sizes = self.paths.shared(), shared(self._sizes)
        return other

    def ahead(self, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        if not self.has_urls:
            return contextlib.nullcontext()
        coming = [row for row in rows if places.is_url(self.path(row))]
        return WINDOW.announced([((self._key, row), functools.partial(self._fetched, row), int(self._sizes[row])) for row in coming])

    def encoded(self, row: int) -> tuple[bytes, int]:
        """The file's bytes, and -1."""
        if self.has_urls and places.is_url(self.path(row)):
            data = WINDOW.take((self._key, row))
            return self._fetched(row) if data is None else data, -1
        with open(self.path(row), "rb") as file:
            return file.read(), -1

    def _fetched(self, row: int) -> bytes:
        return transfer.read(self.path(row), int(self._sizes[row]))

    def read(self, row: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 [h, w, 3]; reduced to no less than min_size (height, width) where that is cheap.

        Raises:
          UserError: if the file has changed since it was verified, or lies at a URL that can't be reached.
        """
        try:
            data, _ = self.encoded(row)
            if self._sizes[row] >= 0 and len(data) != self._sizes[row]:
                raise self._changed(row, data)
            return self.decoded(row, data, min_size)
        except PermissionError as error:
            if places.is_url(self.path(row)):
                raise Unreachable(f"{error}.") from error
            raise self._other(row, error, "verified") from error
        except (OSError, images.ImageError) as error:
            raise self._other(row, error, "verified") from error

    def stored(self, row: int) -> Stored:
        """The image before it is decoded, for one that nobody has verified.

        Raises:
          images.ImageError: if it may not be read.
          UserError: if the file is gone, or has another size than when it was listed.
        """
        try:
            data, _ = self.encoded(row)
        except PermissionError as error:
            if self.has_urls and places.is_url(self.path(row)):  # it was listed: the place forbids now, not this file
                raise Unreachable(f"{error}.") from error
            raise images.ImageError("unreadable", error.strerror or str(error)) from error
        except OSError as error:
            raise self._other(row, error, "listed") from error
        if self._sizes[row] >= 0 and len(data) != self._sizes[row]:
            raise self._other(row, self._changed(row, data), "listed")
        return Stored(self, row, data)

    def _other(self, row: int, why: Exception, since: str) -> UserError:
        kind = Unreachable if places.is_url(self.path(row)) else UserError  # the former has a training save its state
        again = " to verify it anew" if since == "verified" else ""
        return kind(f"{places.shown(self.path(row))} has changed since it was {since} ({why}): restore it, or start again{again}.")

    def _changed(self, row: int, data: bytes) -> images.ImageError:
        """Says that a file was overwritten, and removes the kept listing, which no longer tells the truth."""
        if self._forget is not None:
            shutil.rmtree(self._forget, ignore_errors=True)
        return images.ImageError("changed", f"{len(data)} bytes instead of {self._sizes[row]}")


class ArrayReader(Reader):
    """Images held in memory: uint8 [n, h, w] (grey) or [n, h, w, 3]."""

    def __init__(self, arrays: np.ndarray):
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays)

    def encoded(self, row: int) -> tuple[np.ndarray, int]:
        """The array, and -1."""
        return self._arrays[row], -1
