"""Readers: row number → pixels. All are picklable and small, since workers are spawned with a copy."""

import functools
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from imgclf.data import images
from imgclf.errors import UserError


class SourceReader(Protocol):
    """An `ImageReader` that verification can also read undecoded."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray: ...

    def read(self, row: int, min_size: tuple[int, int] | None = None) -> np.ndarray: ...

    def encoded(self, row: int) -> tuple[bytes | np.ndarray, int]:
        """The image as it is stored, and the label stored with it (-1 where the label comes from elsewhere)."""

    def take(self, rows: np.ndarray) -> "SourceReader":
        """The reader of these rows (int64 [n]), in this order."""


class FileReader:
    """Reads image files under one folder."""

    def __init__(self, root: str, paths: Sequence[str], sizes: np.ndarray, max_pixels: int):
        """
        Args:
          root: absolute path of the folder.
          paths: of the files, relative to root (or absolute), as `os` gives them.
          sizes: int64 [n], bytes; a file that has another size when it is read has changed since it was verified.
          max_pixels: of the largest image that may be decoded.
        """
        # One string with offsets pickles and copies far faster than a million strings.
        encoded = [os.fsencode(path) for path in paths]
        self._init(root, b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64), np.asarray(sizes, np.int64), max_pixels)

    def _init(self, root: str, names: bytes, offsets: np.ndarray, sizes: np.ndarray, max_pixels: int) -> None:
        self._root, self._names, self._offsets, self._sizes, self._max_pixels = root, names, offsets, sizes, max_pixels

    def __len__(self) -> int:
        return len(self._sizes)

    def path(self, row: int) -> str:
        """The file's absolute path."""
        return os.path.join(self._root, os.fsdecode(self._names[self._offsets[row] : self._offsets[row + 1]]))

    def encoded(self, row: int) -> tuple[bytes, int]:
        with open(self.path(row), "rb") as file:
            return file.read(), -1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.read(row)

    def read(self, row: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 [h, w, 3]; reduced to no less than min_size (height, width) where that is cheap.

        Raises:
          UserError: if the file has changed since it was verified.
        """
        try:
            data, _ = self.encoded(row)
            if len(data) != self._sizes[row]:
                raise images.ImageError("changed", f"{len(data)} bytes instead of {self._sizes[row]}")
            return images.decode(data, min_size=min_size, max_pixels=self._max_pixels)
        except (OSError, images.ImageError) as error:
            raise UserError(
                f"{self.path(row)} has changed since it was verified ({error}): restore it, or start again to verify it anew."
            ) from error

    def take(self, rows: np.ndarray) -> "FileReader":
        if np.array_equal(rows, np.arange(len(self))):
            return self
        offsets = self._offsets
        names = [self._names[offsets[row] : offsets[row + 1]] for row in rows]
        taken = FileReader.__new__(FileReader)
        taken._init(self._root, b"".join(names), np.cumsum([0, *map(len, names)], dtype=np.int64), self._sizes[rows], self._max_pixels)
        return taken


class ArrayReader:
    """Images held in memory: uint8 [n, h, w] (grey) or [n, h, w, 3]."""

    def __init__(self, arrays: np.ndarray):
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays)

    def encoded(self, row: int) -> tuple[np.ndarray, int]:
        return self[row], -1

    def __getitem__(self, row: int) -> np.ndarray:
        return images.pixels_of(self._arrays[row])

    def read(self, row: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        return self[row]

    def take(self, rows: np.ndarray) -> "ArrayReader":
        return ArrayReader(self._arrays[rows])


class TfdsReader:
    """Reads the records of a prepared TFDS data set; their images stay encoded until a row is asked for."""

    def __init__(self, folder: str, splits: Sequence[str], image_key: str, label_key: str, length: int, max_pixels: int):
        """
        Args:
          folder: of the prepared data set (that of dataset_info.json), in ArrayRecord files.
          splits: TFDS split strings; their records are laid end to end.
          image_key: the feature with the image: bytes of a file, or uint8 [h, w, c].
          label_key: the feature with the label.
          length: number of records in all.
          max_pixels: of the largest image that may be decoded.
        """
        self._folder, self._splits, self._image_key, self._label_key = folder, tuple(splits), image_key, label_key
        self._rows, self._max_pixels = np.arange(length), max_pixels

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}  # TFDS's objects hold the builder's class

    @functools.cached_property
    def _opened(self) -> tuple[list[Sequence], np.ndarray]:
        """The data sources, opened in the process that reads them, and the position at which each starts."""
        import tensorflow_datasets as tfds  # slow to import

        builder = tfds.builder_from_directory(self._folder)
        is_file = isinstance(builder.info.features[self._image_key], tfds.features.Image)
        decoders = {self._image_key: tfds.decode.SkipDecoding()} if is_file else None
        sources = [builder.as_data_source(split, decoders=decoders) for split in self._splits]
        return sources, np.cumsum([0, *map(len, sources)])

    def encoded(self, row: int) -> tuple[bytes | np.ndarray, int]:
        sources, starts = self._opened
        position = self._rows[row]
        part = int(np.searchsorted(starts, position, side="right")) - 1
        record = sources[part][int(position - starts[part])]
        return record[self._image_key], int(record[self._label_key])

    def __getitem__(self, row: int) -> np.ndarray:
        return self.read(row)

    def read(self, row: int, min_size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 [h, w, 3]; reduced to no less than min_size (height, width) where that is cheap."""
        data, _ = self.encoded(row)
        if isinstance(data, np.ndarray):
            return images.pixels_of(data)
        return images.decode(data, min_size=min_size, max_pixels=self._max_pixels)

    def take(self, rows: np.ndarray) -> "TfdsReader":
        taken = TfdsReader(self._folder, self._splits, self._image_key, self._label_key, 0, self._max_pixels)
        taken._rows = self._rows[rows]
        return taken
