"""A shard: records in one ArrayRecord file, uncompressed and each in a chunk of its own.

ArrayRecord's library writes shards and reads those on this machine: it takes a record in any order and checks its hash. It opens local
paths only, and no file that has lost its end, where the positions of the records stand. A pack's index therefore also says at which bytes
of the file a record stands, so that one ranged read has it: from an object store, or from what is left of a damaged shard.

The layout is Riegeli's (https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md): blocks of 64 KiB, each of which
begins with 24 bytes of its own, wherever that falls; a chunk is a header of 40 bytes and its data, here a byte of compression (0), the
length of the sizes, the sizes, and the record.
"""

import errno
import functools
import mmap
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from imgclf.data.images import ImageError

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER, _FIRST = 2**16, 24, 40, 64
_MOST_PARTS = 500  # heads of blocks in one call of the system, which takes 1,024 places
_RECORDS = ord("r")  # the type of a chunk of records
_WRITING = "group_size:1,uncompressed,max_parallelism:1"
_READING = "readahead_buffer_size:0"  # records are asked for in any order, so that what follows one is of no use


class Span(NamedTuple):
    """Where a record stands in its file: all bytes of its chunk, headers of blocks among them."""

    offset: int
    length: int


def write(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
    """Writes a shard, and returns how many records it has; the same records give the same bytes.

    Raises:
      OSError: if it can't be written, such as to a full disk.
    """
    count = 0
    writer = _module().ArrayRecordWriter(os.fspath(path), _WRITING)
    for record in records:
        _written(functools.partial(writer.write, record), path)
        count += 1
    _written(writer.close, path)
    return count


def _written(step: Callable[[], Any], path: str | os.PathLike[str]) -> None:
    try:
        step()
    except RuntimeError as error:  # what the library makes of all that goes wrong; its text ends with what it was doing
        full = os.strerror(errno.ENOSPC) in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error).partition(";")[0], os.fspath(path)) from error


class Shard:
    """A shard on this machine, read record by record in any order; threads may share it.

    A record is read by the library, which checks its hash, when it is first asked for in this process. From then on it is scattered from
    the file to its place in memory by one call of the system, where the library copies it three times: 25 µs instead of 80 for 262 kB.

    Args:
      path: of the file.
      count: how many records it should have.

    Raises:
      ImageError: if it hasn't.
      OSError: if it can't be opened.
    """

    def __init__(self, path: str, count: int):
        self._reader = _module().ArrayRecordReader(path, _READING)
        if (found := self._reader.num_records()) != count:  # 0 for a file that is not there, or has lost its end
            raise ImageError("damaged", f"{os.path.basename(path)} gives {found:,} of its {count:,} records")
        self._file = os.open(path, os.O_RDONLY)
        self._finalizer = weakref.finalize(self, os.close, self._file)
        self._whole = bytearray(count)  # 1 where the hash was found right

    def read(self, number: int, span: Span) -> bytes | memoryview:
        """A record, by its number and its span.

        Raises:
          ImageError: if its bytes are not those that were written.
        """
        if self._whole[number]:
            return _scattered(self._file, span)
        try:
            record: bytes = self._reader.read([number])[0]
        except RuntimeError as error:
            raise ImageError("damaged", str(error).partition(";")[0]) from error
        self._whole[number] = 1
        return record

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()
        self._finalizer()


def _scattered(file: int, span: Span) -> memoryview:
    """Reads a record, with the headers of blocks going elsewhere than the bytes around them."""
    begin, end = span.offset, span.offset + span.length
    heads = range(begin - begin % -_BLOCK, end, _BLOCK)  # where the headers of blocks are
    if len(heads) > _MOST_PARTS:
        return memoryview(unwrap(os.pread(file, span.length, begin), begin))
    chunk = np.empty(span.length - _BLOCK_HEADER * len(heads), np.uint8).data
    parts: list[Any] = []
    at, place, head = begin, 0, bytearray(_BLOCK_HEADER)
    for next_head in heads:
        parts += [chunk[place : place + next_head - at], head]
        place, at = place + next_head - at, next_head + _BLOCK_HEADER
    parts.append(chunk[place:])
    if os.preadv(file, parts, begin) < span.length:
        raise ImageError("damaged", f"the file ends before byte {end:,}")
    return _record(chunk, begin)


def spans(data: bytes | mmap.mmap, count: int) -> list[Span]:
    """Finds the records of a shard.

    Args:
      data: the whole file.
      count: how many records it has.

    Raises:
      ValueError: if the file is laid out otherwise than `write` does.
    """
    found, begin = [], _FIRST
    for _ in range(count):
        size, kind, records = _header(_plain(data[begin : begin + _CHUNK_HEADER + _BLOCK_HEADER], begin))
        if kind != _RECORDS or records != 1:
            raise ValueError(f"a chunk of type {kind} with {records} records at {begin}, where one record was expected")
        end = _end(begin, _CHUNK_HEADER + size)
        found.append(Span(begin, end - begin))
        begin = end
    return found


def unwrap(data: bytes, offset: int) -> bytes:
    """Takes the record out of the bytes of its span, which begins at `offset`; nothing is checked but the layout.

    Raises:
      ImageError: if this is no record.
    """
    return bytes(_record(memoryview(_plain(data, offset)), offset))


def _record(chunk: memoryview, offset: int) -> memoryview:
    """The record in a chunk without the headers of blocks."""
    size, kind, records = _header(chunk)
    if kind != _RECORDS or records != 1 or len(chunk) < _CHUNK_HEADER + size or chunk[_CHUNK_HEADER] != 0:
        raise ImageError("damaged", f"no whole record at byte {offset:,}")
    sizes, start = _varint(chunk, _CHUNK_HEADER + 1)
    return chunk[start + sizes : _CHUNK_HEADER + size]


def _header(chunk: bytes | memoryview) -> tuple[int, int, int]:
    """The number of bytes of a chunk's data, its type, and its number of records."""
    kind_and_records = int.from_bytes(chunk[24:32], "little")
    return int.from_bytes(chunk[8:16], "little"), kind_and_records & 0xFF, kind_and_records >> 8


def _plain(data: bytes, begin: int) -> bytes:
    """The bytes that stand from `begin` on, without the headers of blocks."""
    parts, at = [], begin
    while at < begin + len(data):
        start = at + _BLOCK_HEADER if at % _BLOCK == 0 else at
        end = at - at % _BLOCK + _BLOCK
        parts.append(data[start - begin : end - begin])
        at = end
    return b"".join(parts)


def _end(begin: int, size: int) -> int:
    """Where `size` bytes that begin at `begin` end, if the headers of blocks between them count, too.

    One that stands directly behind the bytes belongs to what follows.
    """
    room = _BLOCK - _BLOCK_HEADER
    block, inside = divmod(begin, _BLOCK)
    logical = block * room + max(0, inside - _BLOCK_HEADER) + size
    block, inside = divmod(logical, room)
    return block * _BLOCK + (inside + _BLOCK_HEADER if inside else 0)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and where what follows it begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _module() -> Any:
    from array_record.python import array_record_module  # slow to import

    return array_record_module
