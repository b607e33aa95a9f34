"""Columns of a million rows without a Python object per row: texts in one buffer, and values that repeat as codes.

A list of 1.2 million paths takes 130 MB and as many objects, which the garbage collector walks and a worker process is sent one by one; the
same paths in one buffer take 45 MB, and are read from a file's pages by every process that maps it.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import pyarrow as pa

from imgclf import files

if TYPE_CHECKING:  # half a second to import, before which a mistake in a path is told
    import pandas as pd

_SHARED = 2**20  # bytes from which on an array is worth a file
_KEPT_SECONDS = 7 * 86_400


class Texts(Sequence[str]):
    """Texts one after another in one buffer: as UTF-8, where a byte that is no text stays as it is (`os.fsencode`).

    Args:
      data: uint8, the bytes of all texts.
      offsets: int64 [n + 1]: text `i` is `data[offsets[i]:offsets[i + 1]]`.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray):
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, texts: "Sequence[str] | pd.arrays.ArrowStringArray") -> Self:
        """The texts of any sequence, without nulls; one that is compact already stays as it is."""
        if isinstance(texts, cls):
            return texts
        import pandas as pd

        if isinstance(texts, pd.arrays.ArrowStringArray):
            column = pa.array(texts)
            return cls.from_arrow(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column]))
        encoded = [os.fsencode(text) for text in texts]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> Self:
        """The texts of a column of strings or of bytes, without nulls."""
        array = pa.chunked_array([chunk.cast(pa.large_binary()) for chunk in column.chunks], pa.large_binary()).combine_chunks()
        _, offsets, data = array.buffers()
        bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1] if len(array) else np.zeros(1, np.int64)
        return cls(np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), bounds)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Texts": ...

    def __getitem__(self, row: int | slice) -> "str | Texts":
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        row = range(len(self))[row]
        return os.fsdecode(self.data[self.offsets[row] : self.offsets[row + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Texts):
            return NotImplemented
        mine, others = (texts.data[texts.offsets[0] : texts.offsets[-1]] for texts in (self, other))
        return np.array_equal(np.diff(self.offsets), np.diff(other.offsets)) and np.array_equal(mine, others)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def take(self, rows: np.ndarray) -> "Texts":
        """The texts of these rows (int64 [m]), in this order."""
        return Texts.from_arrow(pa.chunked_array([self._arrow(pa.large_binary()).take(pa.array(rows))]))

    @property
    def is_ascii(self) -> bool:
        """Whether no text has a letter beyond ASCII."""
        return not len(self.data) or int(self.data.max()) < 128

    def shared(self) -> "Texts":
        """The same texts, for worker processes; see the function `shared`."""
        return Texts(shared(self.data), shared(self.offsets))

    def to_arrow(self) -> pa.Array:
        """The bytes of the texts, as large_binary: a name that is no text has no other form."""
        return self._arrow(pa.large_binary())

    def to_pandas(self) -> "pd.Series":
        """The texts as a column of pandas, which shares the buffers.

        Raises:
          ValueError: where one is no text.
        """
        return _column(self._arrow(pa.large_string()))

    def _arrow(self, kind: pa.DataType) -> pa.Array:
        array = pa.Array.from_buffers(kind, len(self), [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)])
        array.validate(full=pa.types.is_large_string(kind))
        return array


class Coded(Sequence[str]):
    """Texts of which many rows have the same: a code for each row.

    Args:
      codes: int32 [n].
      names: what the codes stand for.
    """

    def __init__(self, codes: np.ndarray, names: Sequence[str]):
        self.codes, self.names = np.asarray(codes, np.int32), tuple(names)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """The texts of any sequence, coded in the order in which they come first; one that is coded already stays as it is."""
        if isinstance(texts, cls):
            return texts
        known: dict[str, int] = {}
        codes = np.fromiter((known.setdefault(text, len(known)) for text in texts), np.int32, len(texts))
        return cls(codes, tuple(known))

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Coded": ...

    def __getitem__(self, row: int | slice) -> "str | Coded":
        return Coded(self.codes[row], self.names) if isinstance(row, slice) else self.names[self.codes[row]]

    def __iter__(self) -> Iterator[str]:
        return (self.names[code] for code in self.codes.tolist())

    def take(self, rows: np.ndarray) -> "Coded":
        """The texts of these rows (int64 [m]), in this order."""
        return Coded(self.codes[rows], self.names)

    def counts(self) -> dict[str, int]:
        """How many rows have each name; names that no row has are left out."""
        counts = np.bincount(self.codes, minlength=len(self.names))
        found: dict[str, int] = {}
        for name, count in zip(self.names, counts.tolist(), strict=True):
            if count:
                found[name] = found.get(name, 0) + count
        return found

    def renamed(self, names: Mapping[str, str]) -> "Coded":
        """The same rows under other names; two may get the same one."""
        return Coded(self.codes, [names.get(name, name) for name in self.names])

    def positions(self, names: Sequence[str]) -> np.ndarray:
        """Where in `names` the text of each row stands: int32 [n]."""
        place = {name: position for position, name in enumerate(names)}
        return np.array([place.get(name, -1) for name in self.names], np.int32)[self.codes]

    def to_pandas(self) -> "pd.Series":
        """The texts as a column of pandas."""
        return _column(pa.array(self.names, pa.large_string()).take(pa.array(self.codes)))


def constant(text: str, count: int) -> "pd.Series":
    """A column of pandas that says the same in every row."""
    return Coded(np.zeros(count, np.int32), [text]).to_pandas()


def _column(array: pa.Array) -> "pd.Series":
    import pandas as pd

    text = pd.StringDtype("pyarrow", na_value=np.nan)  # what pandas calls "str"
    return pd.Series(pd.arrays.ArrowStringArray(pa.chunked_array([array]), dtype=text))  # type: ignore[call-arg]  # which the stubs don't know


class _Mapped(np.memmap):
    """An array in a file: pickled as the file's name, so that a process that gets it maps the file too instead of getting a copy."""

    file: str  # of a whole array; a part of one has no such attribute, and is pickled as any array

    def __reduce__(self) -> Any:
        whole = self.__dict__.get("file")
        return np.asarray(self).__reduce__() if whole is None else (_opened, (whole,))


def _opened(file: str) -> np.ndarray:
    mapped = np.load(file, mmap_mode="r", allow_pickle=False).view(_Mapped)
    mapped.file = file
    return mapped


def shared(array: np.ndarray) -> np.ndarray:
    """The same array, read-only, in a file of the cache that worker processes map; a small one, and where the cache can't be written any,
    as it is.

    The file's name is a hash of its contents: the next start finds it again. Files that were not made anew for a week are removed.
    """
    if array.nbytes < _SHARED:
        return array
    array = np.ascontiguousarray(array)
    name = hashlib.blake2b(array.data, digest_size=16, key=f"{array.dtype.str}{array.shape}".encode()[:64]).hexdigest()
    file = files.cache_dir() / "shared" / f"{name}.npy"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            for other in file.parent.glob("*.npy"):
                if other.stat().st_mtime < time.time() - _KEPT_SECONDS:
                    other.unlink(missing_ok=True)
            with files.replacing(file, shared=True) as aside, aside.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
        return _opened(str(file))
    except OSError:
        return array
