"""A column of images of a parquet file, kept in the cache so that each is read on its own.

Parquet holds a hundred images and more in one compressed piece, which has to be read as a whole for any of them. As the library `datasets`
does, the images are therefore copied once into an Arrow file, which is mapped into memory. That costs as much disk again; `imgclf data
pack` makes something smaller out of it.
"""

import bisect
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgclf import files
from imgclf.data.readers import Reader
from imgclf.data.shard_names import ShardFile

_ROWS = 100  # that are copied at once


def copied(shard: ShardFile, column: str, advance: Callable[[int], object]) -> Path:
    """The Arrow file of a parquet file's images; made where it is not there yet.

    Args:
      shard: the parquet file, on this machine.
      column: of structs with `bytes`, or of bytes.
      advance: is called with the number of images that were copied.
    """
    path = files.cached("parquet", f"{shard.key}\n{column}", ".arrow")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", pa.large_binary())])
    with files.replacing(path, shared=True) as aside, pq.ParquetFile(shard.path) as source, pa.ipc.new_file(aside, schema) as writer:
        for batch in source.iter_batches(_ROWS, columns=[column]):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = values.field("bytes")
            writer.write_batch(pa.record_batch([values.cast(pa.large_binary())], schema=schema))
            advance(len(batch))
    return path


class ArrowReader(Reader):
    """Image files in the rows of Arrow files."""

    def __init__(self, paths: Sequence[Path], files_of: np.ndarray, rows: np.ndarray):
        """
        Args:
          paths: of the Arrow files, see `copied`.
          files_of, rows: int32, int64 [n]: which file holds each image, and in which row.
        """
        self._paths = [str(path) for path in paths]
        self._files, self._rows = np.asarray(files_of, np.int32), np.asarray(rows, np.int64)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_columns")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def encoded(self, row: int) -> tuple[bytes, int]:
        """The image file's bytes (none where the row has none), and -1."""
        with self._lock:
            starts, columns = self._column(int(self._files[row]))
        place = int(self._rows[row])
        part = bisect.bisect_right(starts, place) - 1
        data = columns[part][place - starts[part]].as_py()
        return data or b"", -1

    @functools.cached_property
    def _columns(self) -> dict[int, tuple[list[int], list[pa.Array]]]:
        return {}

    def _column(self, number: int) -> tuple[list[int], list[pa.Array]]:
        """The pieces of a file's column, which stay on disk until they are read, and the row at which each starts."""
        if number not in self._columns:
            opened = pa.ipc.open_file(pa.memory_map(self._paths[number]))
            columns = [opened.get_batch(part).column(0) for part in range(opened.num_record_batches)]
            starts = np.cumsum([0, *map(len, columns)])[:-1].tolist()
            self._columns[number] = starts, columns
        return self._columns[number]
