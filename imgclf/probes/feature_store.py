"""The cache of features on disk: rows are only ever appended, so that a process may be killed at any moment and others may read meanwhile.

A folder per kind of features (weights, preprocessing):

    about.json      what the features are of, and their width
    features.f32    float32 [rows, width], little-endian, memory-mapped for reading
    index.bin       a record of 40 bytes per row: key (32), CRC-32 of the row, CRC-32 of the record
    .lock           held (flock) by the one process that computes

A block of rows is on disk before the records that name it are written. Bytes of either file beyond the last whole record are a write
that was cut off: they are overlooked when reading, and cut away when the next block is written.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from imgclf.errors import UserError
from imgclf.files import cache_dir, write_json

KEY_BYTES = 32
_RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("row", "<u4"), ("record", "<u4")])
_POLL_SECONDS = 0.2


def root() -> Path:
    """The folder that holds the caches."""
    return cache_dir() / "features"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One cache as `imgclf cache list` shows it; `rows` is None where its index is damaged."""

    key: str
    identity: dict[str, Any]
    rows: int | None
    width: int
    size: int  # bytes
    used: float  # seconds since 1970, when rows were last added


class FeatureStore:
    """Rows of features by key.

    Args:
      key: names the folder; a hash of `identity`.
      identity: what the features are of, for people and for the check that the folder holds just these.
      width: D.
    """

    def __init__(self, key: str, identity: dict[str, Any], width: int):
        self.key, self.identity, self.width = key, identity, width
        self.folder = root() / key
        self._features, self._index, self._about = (self.folder / name for name in ("features.f32", "index.bin", "about.json"))
        self._salt = zlib.crc32(key.encode())  # another model's files in this folder don't pass for ours
        self._at: dict[bytes, int] = {}  # key → row
        self._crc = np.zeros(0, np.uint32)

    def __len__(self) -> int:
        return len(self._crc)

    def refresh(self) -> None:
        """Reads the records that have been added since.

        Raises:
          UserError: if the files are damaged, or of other features.
        """
        if not self._about.exists():
            if self._index.exists():
                raise self._damaged(self._about, "is missing")
            return
        try:
            about = json.loads(self._about.read_text())
        except ValueError:
            raise self._damaged(self._about, "is not JSON") from None
        if about != self._describe():
            raise self._damaged(self._about, "describes features of another model or preprocessing")
        records = self._records()
        new = records[len(self) :]
        if not len(new):
            return
        needed = len(records) * self.width * 4
        if (size := self._size(self._features)) < needed:
            raise self._damaged(self._features, f"has {size:,} bytes, its index needs {needed:,}")
        for row, record in enumerate(new, len(self)):
            self._at[record["key"].tobytes()] = row
        self._crc = records["row"].copy()

    def _records(self) -> np.ndarray:
        data = self._index.read_bytes() if self._index.exists() else b""
        records = np.frombuffer(data[: len(data) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)
        while len(records) and not any(records[-1].tobytes()):  # a power cut may leave a file longer than what was written
            records = records[:-1]
        for row in range(len(self), len(records)):
            if records[row]["record"] != self._record_crc(records[row]["key"].tobytes(), int(records[row]["row"])):
                raise self._damaged(self._index, f"fails its checksum at row {row}")
        return records

    def _record_crc(self, key: bytes, row_crc: int) -> int:
        return zlib.crc32(key + row_crc.to_bytes(4, "little"), self._salt)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Returns the row of each key, int64 [n]; -1 for those that are not there."""
        return np.fromiter((self._at.get(key, -1) for key in keys), np.int64, len(keys))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns these rows, float32 [n, D], each checked: a view of the file where they are all of it in order, else a copy.

        Raises:
          UserError: if one is damaged.
        """
        if not len(rows):
            return np.zeros((0, self.width), np.float32)
        stored = np.memmap(self._features, "<f4", "r", shape=(len(self), self.width))
        for row in rows.tolist():
            if zlib.crc32(stored[row], self._salt) != self._crc[row]:
                raise self._damaged(self._features, f"fails its checksum at row {row}")
        return stored[rows[0] : rows[-1] + 1] if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))) else stored[rows]

    @contextlib.contextmanager
    def writing(self, wait: Callable[[], bool]) -> Iterator[bool]:
        """Takes the lock, waiting for another process's work; yields True with the lock, False without once `wait()` says to stop waiting.

        `wait` is called now and then while another process holds the lock.
        """
        with self._opened_lock() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not wait():
                        yield False
                        return
                    time.sleep(_POLL_SECONDS)
            if not os.fstat(lock.fileno()).st_nlink:
                raise UserError(f"{self.folder} was cleared while this process waited for it; give the same command again.")
            if not self._about.exists():
                write_json(self._about, self._describe())
            self.refresh()
            yield True

    def _opened_lock(self) -> IO[str]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / ".lock").open("a")
        except OSError as error:
            raise UserError(f"The cache {self.folder} can't be written ({error.strerror}); set IMGCLF_CACHE to another folder.") from None

    def append(self, keys: Sequence[bytes], features: np.ndarray) -> None:
        """Adds rows under the lock: features first, then the records that make them count.

        Args:
          keys: of 32 bytes each, none of them there yet.
          features: float32 [n, D].
        """
        features = np.ascontiguousarray(features, "<f4")
        records = np.zeros(len(keys), _RECORD)
        for record, key, row in zip(records, keys, features, strict=True):
            crc = zlib.crc32(row, self._salt)
            record["key"], record["row"], record["record"] = np.void(key), crc, self._record_crc(key, crc)
        # What a write that was cut off has left goes; a full disk leaves the rows before.
        _write_at(self._features, len(self) * self.width * 4, features)
        _write_at(self._index, len(self) * _RECORD.itemsize, records)
        for row, key in enumerate(keys, len(self)):
            self._at[key] = row
        self._crc = np.concatenate([self._crc, records["row"]])

    def _describe(self) -> dict[str, Any]:
        return {"identity": self.identity, "width": self.width}

    @staticmethod
    def _size(path: Path) -> int:
        return path.stat().st_size if path.exists() else 0

    def _damaged(self, path: Path, why: str) -> UserError:
        return UserError(
            f"{path} {why}; nothing was overwritten. `imgclf cache clear {self.key}` deletes this cache, and the next run computes it anew."
        )


def _write_at(path: Path, position: int, values: np.ndarray) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(position)
        file.seek(position)
        file.write(values.data.cast("B"))
        file.flush()
        os.fsync(file.fileno())


def entries() -> list[Entry]:
    """Lists the caches, the latest first."""
    found = []
    for folder in root().iterdir() if root().is_dir() else ():
        if not folder.is_dir():
            continue
        identity, width, rows = {}, 0, None
        with contextlib.suppress(OSError, ValueError, KeyError, UserError):
            about = json.loads((folder / "about.json").read_text())
            identity, width = about["identity"], about["width"]
            store = FeatureStore(folder.name, identity, width)
            store.refresh()
            rows = len(store)
        files = [path.stat() for path in folder.iterdir()]
        found.append(Entry(folder.name, identity, rows, width, sum(f.st_size for f in files), max((f.st_mtime for f in files), default=0)))
    return sorted(found, key=lambda entry: -entry.used)


def clear(entry: Entry) -> None:
    """Deletes one cache.

    Raises:
      UserError: if a process is computing its features.
    """
    folder = root() / entry.key
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"A process is computing the features in {folder}; wait for it or end it, then clear the cache.") from None
        shutil.rmtree(folder)
