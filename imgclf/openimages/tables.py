"""Open Images' CSV files as Arrow tables: scanned in place, or converted once to parquet, and in neither case held in memory as a whole.

The boxes of train are 14.6 M rows, 2.3 GB. On 2 cores `pandas.read_csv` takes 8.7 s and 7 GB for them, duckdb 2.9 s, and pyarrow 2.4 s to
parse the columns that are needed; `scan` finds the rows of a few classes in 0.5 s, since it looks only at bytes where a label can begin.
"""

import bisect
import contextlib
import csv
import dataclasses
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as pa_csv

from imgclf import files
from imgclf.errors import UserError
from imgclf.openimages import releases

_BLOCK = 16 << 20  # bytes of a CSV that a thread parses at once
_SCAN_BLOCK, _MARGIN = 4 << 20, 64 << 10  # bytes that a thread scans at once, and the longest line
_ROWS = 8_192  # of a row group, which is what a query can skip by its statistics
_LABEL = pa.dictionary(pa.int32(), pa.string())
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Schema:
    """A kind of file: the columns that are read, and the defaults of those that the files of an older version lack."""

    types: dict[str, pa.DataType]
    defaults: dict[str, int | float]
    sort_by: str  # within a block, so that a query of parquet skips most row groups
    multiline: bool = False  # values may hold line breaks


_ID = pa.binary(16)
BOXES = Schema(
    types={
        "ImageID": _ID,
        "Source": _LABEL,
        "LabelName": _LABEL,
        **dict.fromkeys(("XMin", "XMax", "YMin", "YMax"), pa.float64()),
        **dict.fromkeys(releases.FLAGS, pa.int8()),
    },
    defaults=dict.fromkeys(releases.FLAGS, -1),
    sort_by="LabelName",
)
LABELS = Schema(
    types={"ImageID": _ID, "Source": _LABEL, "LabelName": _LABEL, "Confidence": pa.float32()},
    defaults={},
    sort_by="LabelName",
)
IMAGES = Schema(
    types={
        **dict.fromkeys(releases.IMAGE_COLUMNS, pa.string()),
        "ImageID": _ID,
        "Subset": _LABEL,
        "License": _LABEL,
        "OriginalSize": pa.int64(),
        "Rotation": pa.float32(),
    },
    defaults={"Rotation": 0.0},
    sort_by="ImageID",
    multiline=True,
)


def scan(path: Path, schema: Schema, labels: Collection[str]) -> pa.Table:
    """Finds the rows of a few labels in a CSV, as `query` does in parquet.

    Rows with other labels are never parsed: a label begins with "/", so numpy lists the slashes, compares the eight bytes from each with
    the wanted labels', and only lines with a hit are parsed. Values must not hold line breaks.

    Args:
      path: a CSV with a header.
      schema: BOXES or LABELS.
      labels: machine ids, such as "/m/0cdn1".

    Raises:
      UserError: naming the line, for one that can't be parsed.
    """
    header, start = _header(path, schema)
    size = path.stat().st_size
    words = [(int.from_bytes(text[:8], "little"), (1 << 8 * min(8, len(text))) - 1) for text in (label.encode() for label in labels)]
    options = _options(schema, header)
    found = []
    file = os.open(path, os.O_RDONLY)
    try:
        own = threading.local()  # buffers that are used again: fresh ones cost more than the search

        def work(block: int) -> tuple[list[int], bytes]:
            if not hasattr(own, "data"):
                own.data, own.mask = bytearray(_SCAN_BLOCK + 2 * _MARGIN + 8), np.empty(_SCAN_BLOCK, bool)
            first = max(start, block - _MARGIN)
            count = os.preadv(file, [memoryview(own.data)[: min(block + _SCAN_BLOCK + _MARGIN, size) - first]], first)
            own.data[count : count + 8] = bytes(8)
            offsets, lines = _lines_with(own.data, count, block - first, min(block + _SCAN_BLOCK, size) - first, words, own.mask)
            return [first + offset for offset in offsets], b"".join(lines)

        def parse(offsets: list[int], lines: bytes) -> pa.Table:
            return _parse(lines, options, lambda row: _line_number(path, offsets[row - 1]), path)

        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="scan") as pool:
            for offsets, lines in pool.map(work, range(start, size, _SCAN_BLOCK)):
                if offsets:
                    found.append(parse(offsets, lines))
    finally:
        os.close(file)
    table = pa.concat_tables(_complete(one, schema) for one in found) if found else _empty(schema)
    return _readable(table.filter(pc.is_in(table["LabelName"].cast(pa.string()), pa.array(sorted(labels), pa.string()))))


def convert(path: Path, target: Path, schema: Schema, advance: Callable[[int], None] = lambda count: None) -> int:
    """Writes a CSV as parquet, block by block, each block sorted.

    Args:
      path: a CSV with a header.
      target: the parquet file, which appears when it is whole.
      advance: called with the number of bytes done.

    Returns:
      The number of rows.

    Raises:
      UserError: naming the line, for one that can't be parsed, or for columns that are not there.
    """
    header, start = _header(path, schema)
    options = _options(schema, header)
    arrow_schema = pa.schema(
        [(name, pa.string() if kind == _LABEL else kind) for name, kind in schema.types.items()], metadata={"made from": path.name}
    )

    def parse(block: tuple[int, bytes]) -> tuple[int, pa.Table]:
        offset, data = block

        def line_of(row: int) -> int:
            return _line_number(path, offset) + row - 1

        table = _complete(_parse(data, options, line_of, path), schema).cast(arrow_schema)
        return len(data), table.take(pc.sort_indices(table[schema.sort_by]))

    target.parent.mkdir(parents=True, exist_ok=True)
    repeated = [name for name, kind in schema.types.items() if kind == _LABEL]
    rows = 0
    with (
        files.replacing(target) as aside,
        pq.ParquetWriter(aside, arrow_schema, compression="zstd", compression_level=1, use_dictionary=repeated) as writer,
        contextlib.closing(_in_threads(parse, _blocks(path, start, schema.multiline))) as parsed,
    ):
        for size, table in parsed:
            writer.write_table(table, row_group_size=_ROWS)
            rows += table.num_rows
            advance(size)
    return rows


def _in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result, None, None]:
    """Works on a few items at once and yields the results in order; unlike Executor.map it doesn't read all items ahead."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="convert") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def query(path: Path, column: str, values: Collection[str]) -> pa.Table:
    """Returns the rows of a converted file whose `column` (LabelName or ImageID) is among `values`, reading only where some can be."""
    wanted = sorted(value.encode() for value in values)
    found = []
    with pq.ParquetFile(path) as file:
        place = file.schema_arrow.get_field_index(column)
        kind = file.schema_arrow.field(place).type
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(place).statistics
            possible = wanted
            if statistics is not None and statistics.has_min_max:
                low, high = (end.encode() if isinstance(end, str) else end for end in (statistics.min, statistics.max))
                possible = wanted[bisect.bisect_left(wanted, low) : bisect.bisect_right(wanted, high)]
            if not possible:
                continue
            hit = pc.is_in(file.read_row_group(group, columns=[column])[column], pa.array(possible, pa.binary()).cast(kind))
            if pc.any(hit).as_py():
                found.append(file.read_row_group(group).filter(hit))
        return _readable(pa.concat_tables(found) if found else file.schema_arrow.empty_table())


def count(path: Path) -> dict[str, int]:
    """Returns label → number of rows of a converted file."""
    counts: dict[str, int] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1 << 20, columns=["LabelName"]):
            for entry in pc.value_counts(batch["LabelName"]).to_pylist():
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


def _lines_with(
    data: bytearray, size: int, begin: int, end: int, words: Sequence[tuple[int, int]], mask: np.ndarray
) -> tuple[list[int], list[bytes]]:
    """Finds the offsets and texts of lines that hold one of the words (8 bytes little-endian and their mask) at a slash within begin..end.

    Args:
      data: `size` bytes of whole lines around begin..end, then at least 8 more.
      mask: bool, room for end - begin values.
    """
    slashes = np.flatnonzero(np.equal(np.frombuffer(data, np.uint8, end - begin, begin), ord("/"), out=mask[: end - begin])) + begin
    after = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))[slashes]  # the eight bytes from each slash on
    hit = np.zeros(len(slashes), bool)
    for word, bits in words:
        hit |= (after & np.uint64(bits)) == np.uint64(word)
    offsets, lines = [], []
    last = -1
    for place in slashes[hit].tolist():
        first = data.rfind(b"\n", 0, place) + 1
        if first != last:
            last = first
            stop = data.find(b"\n", place, size) + 1
            offsets.append(first)
            lines.append(bytes(data[first:stop]) if stop else bytes(data[first:size]) + b"\n")
    return offsets, lines


def _header(path: Path, schema: Schema) -> tuple[list[str], int]:
    """Returns the names of the columns, and the offset at which the first row begins."""
    with path.open("rb") as file:
        line = file.readline(_MARGIN)
        start = file.tell()
    names = next(csv.reader([line.decode("utf-8-sig", "replace").strip()]), [])
    missing = [name for name in schema.types if name not in names and name not in schema.defaults]
    if missing:
        shown = ", ".join(names)[:200] or "nothing"
        raise UserError(
            f"{path}: line 1 lacks the column {missing[0]!r} (it has {shown}): delete the file, so that it is fetched anew, or mend it."
        )
    return names, start


def _options(schema: Schema, header: list[str]) -> dict[str, Any]:
    types = {name: kind for name, kind in schema.types.items() if name in header}
    return {
        "read_options": pa_csv.ReadOptions(use_threads=False, column_names=header, block_size=1 << 20),
        "parse_options": pa_csv.ParseOptions(newlines_in_values=schema.multiline),
        "convert_options": pa_csv.ConvertOptions(column_types=types, include_columns=list(types)),
    }


def _parse(data: bytes, options: dict[str, Any], line_of: Callable[[int], int], path: Path) -> pa.Table:
    try:
        return pa_csv.read_csv(pa.BufferReader(data), **options)
    except pa.ArrowInvalid as error:
        text = str(error)
        row = re.search(r"Row #(\d+)", text)
        where = f" line {line_of(int(row[1]))}" if row else ""
        problem = re.sub(r"^CSV parse error: |^In CSV column #\d+: |Row #\d+: ", "", text).splitlines()[0][:160]
        problem = re.sub(r"Row #\d+: |CSV conversion error to ", "not ", problem)
        raise UserError(f"{path}:{where} is damaged ({problem}): delete the file, so that it is fetched anew, or mend it.") from None


def _complete(table: pa.Table, schema: Schema) -> pa.Table:
    """Returns all columns of the schema in its order; absent ones, and empty values in those that may be absent, get their default."""
    columns = []
    for name, kind in schema.types.items():
        if name in table.column_names:
            column = table[name]
            columns.append(pc.fill_null(column, pa.scalar(schema.defaults[name], kind)) if name in schema.defaults else column)
        else:
            columns.append(pa.array(np.full(table.num_rows, schema.defaults[name]), kind))
    return pa.table(columns, names=list(schema.types))


def _empty(schema: Schema) -> pa.Table:
    return pa.table({name: pa.array([], kind) for name, kind in schema.types.items()})


def _readable(table: pa.Table) -> pa.Table:
    """Turns ids into text, and labels into plain strings."""
    for at, field in enumerate(table.schema):
        if field.type in (_ID, _LABEL):
            column = table[field.name]
            column = column.cast(pa.binary()).cast(pa.string()) if field.type == _ID else column.cast(pa.string())
            table = table.set_column(at, field.name, column)
    return table


def _blocks(path: Path, start: int, multiline: bool) -> Iterator[tuple[int, bytes]]:
    """Yields whole lines, about `_BLOCK` bytes at once, with their offset in the file."""
    with path.open("rb") as file:
        file.seek(start)
        offset, rest = start, b""
        while data := file.read(_BLOCK):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            while multiline and cut and data.count(b'"', 0, cut) % 2:  # a quote is open there: the line break stands in a value
                cut = data.rfind(b"\n", 0, cut - 1) + 1
            if cut:
                yield offset, data[:cut]
            offset, rest = offset + cut, data[cut:]
        if rest:
            yield offset, rest


def _line_number(path: Path, offset: int) -> int:
    """Returns the number, from 1, of the line that begins at this offset."""
    lines = 1
    with path.open("rb") as file:
        while offset > 0 and (data := file.read(min(offset, _BLOCK))):
            lines += data.count(b"\n")
            offset -= len(data)
    return lines
