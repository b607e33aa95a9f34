"""Reads the pictures of a pack, in any order."""

import collections
import contextlib
import functools
import hashlib
import threading
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from imgclf.data.images import ImageError
from imgclf.data.packing import records
from imgclf.data.packing.forms import raw_pixels
from imgclf.data.packing.manifest import ShardFile
from imgclf.data.packing.places import Place, RemotePlace
from imgclf.data.readers import Reader
from imgclf.errors import UserError
from imgclf.remote.ahead import WINDOW

_OPEN = 512  # shards that are open at once, each of which costs a file descriptor; `writing` makes no more of a pack


class _Shards(NamedTuple):
    """The shards that a process has opened, the one used last at the end; None for one that only ranges can be read of."""

    lock: threading.Lock
    opened: "collections.OrderedDict[int, records.Shard | None]"


class PackedReader(Reader):
    """Reads the pictures of a pack.

    A whole shard on this machine is read by ArrayRecord's library; a remote or damaged one by ranges, whose records are compared with their
    sha256 in the index.
    """

    def __init__(self, place: Place, shards: tuple[ShardFile, ...], index: pd.DataFrame, *, raw: bool):
        """
        Args:
          place, shards: of the pack.
          index: a row per picture: the columns `manifest.PLACES`, and record_sha256.
          raw: whether records are plain pixels.
        """
        self._place, self._shards, self._raw = place, shards, raw
        self._at = index[["shard", "record"]].to_numpy(np.int32)
        self._spans = index[["offset", "length"]].to_numpy(np.int64)
        digests = bytes.fromhex("".join(index["record_sha256"]))
        self._sha256 = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        self.kept_sizes = index[["kept_height", "kept_width"]].to_numpy(np.int32)
        self._key = uuid.uuid4().hex  # tells its rows from other readers' in the window of what is fetched ahead
        self._opened = _Shards(threading.Lock(), collections.OrderedDict())

    def __len__(self) -> int:
        return len(self._at)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_opened": _Shards(threading.Lock(), collections.OrderedDict())}

    def record(self, row: int) -> bytes | memoryview:
        """The bytes of a picture as the pack keeps them.

        Raises:
          ImageError, OSError: if they are not there, or not those that were written.
        """
        number = int(self._at[row, 0])
        if (shard := self._shard(number)) is not None:
            return shard.read(int(self._at[row, 1]), records.Span(*self._spans[row].tolist()))
        data = WINDOW.take((self._key, row))
        record = records.unwrap(self._ranged(row) if data is None else data, int(self._spans[row, 0]))
        if hashlib.sha256(record).digest() != self._sha256[row].tobytes():
            raise ImageError("damaged", "other bytes than were packed")
        return record

    def ahead(self, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        if not isinstance(self._place, RemotePlace):
            return contextlib.nullcontext()
        return WINDOW.announced([((self._key, row), functools.partial(self._ranged, row), int(self._spans[row, 1])) for row in rows])

    def _ranged(self, row: int) -> bytes:
        offset, length = self._spans[row].tolist()
        return self._place.read_range(self._shards[int(self._at[row, 0])].name, offset, length)

    def encoded(self, row: int) -> tuple[bytes | np.ndarray, int]:
        """The picture as the pack keeps it, and -1.

        Raises:
          UserError: if it can't be read: which one, in which file, and the way out.
        """
        try:
            record = self.record(row)
            return (raw_pixels(record) if self._raw else bytes(record)), -1
        except (OSError, ImageError) as error:
            name = self._shards[int(self._at[row, 0])].name
            raise UserError(
                f"Record {self._at[row, 1]} of {self._place}/{name} can't be read ({error}): imgclf data check {self._place} finds all "
                "such pictures; the command that made the pack mends them, and this run continues then. Unmended they are left out, which "
                "needs a new run."
            ) from error

    def _shard(self, number: int) -> records.Shard | None:
        lock, opened = self._opened
        with lock:
            if number in opened:
                opened.move_to_end(number)
                return opened[number]
            file = self._shards[number]
            path, shard = self._place.local(file.name), None
            if path is not None:
                with contextlib.suppress(ImageError):  # without a whole end: what is left of it can be read by ranges
                    shard = records.Shard(path, file.records)
            opened[number] = shard
            if len(opened) > _OPEN:
                opened.popitem(last=False)
            return shard
