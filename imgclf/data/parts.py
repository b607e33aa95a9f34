"""Reads images that are parts of larger files, each by where its bytes begin and how many they are."""

import contextlib
import functools
import os
import threading
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from imgclf.data.readers import Reader
from imgclf.errors import UserError
from imgclf.remote import places, transfer
from imgclf.remote.ahead import WINDOW


class PartsReader(Reader):
    """Image files that stand in others, such as tar files, on this machine or at URLs."""

    def __init__(self, paths: Sequence[str], files: np.ndarray, offsets: np.ndarray, sizes: np.ndarray):
        """
        Args:
          paths: of the files, absolute, or URLs.
          files: int32 [n], which of the paths holds each image.
          offsets, sizes: int64 [n], bytes.
        """
        self._paths = list(paths)
        self._files = np.asarray(files, np.int32)
        self._parts = np.stack([offsets, sizes], axis=1).astype(np.int64)
        self._key = uuid.uuid4().hex  # tells its rows from other readers' in the window of what is fetched ahead
        self._open()

    def _open(self) -> None:
        self._lock, self._opened = threading.Lock(), dict[int, int]()
        weakref.finalize(self, _close, self._opened)

    def __len__(self) -> int:
        return len(self._files)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_opened")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open()

    def ahead(self, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        far = [row for row in rows if places.is_url(self._paths[self._files[row]])]
        return WINDOW.announced([((self._key, row), functools.partial(self._read, row), int(self._parts[row, 1])) for row in far])

    def encoded(self, row: int) -> tuple[bytes, int]:
        """The image file's bytes, and -1.

        Raises:
          UserError: if the file that holds it has become shorter.
        """
        data = WINDOW.take((self._key, row)) if places.is_url(self._paths[self._files[row]]) else None
        data = self._read(row) if data is None else data
        if len(data) < self._parts[row, 1]:
            path = places.shown(self._paths[self._files[row]])
            raise UserError(f"{path} has become shorter since it was indexed: restore it, or start again to index it anew.")
        return data, -1

    def _read(self, row: int) -> bytes:
        number, (offset, size) = int(self._files[row]), self._parts[row].tolist()
        path = self._paths[number]
        if places.is_url(path):
            return transfer.read_range(path, offset, offset + size)
        with self._lock:
            if number not in self._opened:
                if len(self._opened) >= 512:  # file descriptors
                    os.close(self._opened.pop(next(iter(self._opened))))
                self._opened[number] = os.open(path, os.O_RDONLY)
            return os.pread(self._opened[number], size, offset)


def _close(opened: dict[int, int]) -> None:
    while opened:
        os.close(opened.popitem()[1])
