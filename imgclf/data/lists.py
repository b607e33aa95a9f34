"""Lists of images as people write them, CSV, TSV and parquet, read in one way for training and for prediction."""

import csv
import dataclasses
import gzip
import io
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from rich.console import Console

from imgclf import progress
from imgclf.data import images
from imgclf.data.paths import Files, printable, walk
from imgclf.errors import UserError
from imgclf.remote import listing, places, transfer

if TYPE_CHECKING:  # see `columns`
    import pandas as pd

EXTENSIONS = (".csv", ".tsv", ".parquet", ".pq", ".csv.gz", ".tsv.gz")
USUAL = ("path", "label")  # names of columns
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SNIFFED = 50  # rows that tell the separator
_LARGEST_CELL = 10_000_000  # letters: csv's own limit is 131,072


@dataclasses.dataclass(frozen=True)
class ImageList:
    """A list as read.

    Attributes:
      file: the list's path.
      table: its cells; of a text file all are strings without outer blanks. Column names are without outer blanks, too.
      lines: int64 [n], the number that people give each row: a text file's header is 1, parquet's first row is 1.
      notes: sentences that the user should know, such as which separator was recognised.
      blank: how many blank rows were passed over.
    """

    file: str
    table: "pd.DataFrame"
    lines: np.ndarray
    notes: tuple[str, ...] = ()
    blank: int = 0

    def column(self, name: str, field: str) -> list[str]:
        """The texts of a column.

        Args:
          name: the column.
          field: what the user sets to name another one, such as "config.data.columns.path".

        Raises:
          UserError: if there is no such column.
        """
        self.need(name, field)
        return text(self.table[name]).tolist()

    def need(self, name: str, field: str) -> None:
        """Raises a UserError where the list has no such column."""
        if name not in self.table:
            columns = ", ".join(map(repr, self.table.columns))
            raise UserError(f"{self.file} has no column {name!r}: set {field} to one of its columns ({columns}).")

    def rows(self, rows: Iterable[int]) -> str:
        """`rows 3, 7 and 12`: these rows of the table, by the numbers that people give them."""
        return told_rows(int(self.lines[row]) for row in rows)


def folder_of(file: str) -> str:
    """The folder that a list's paths are relative to unless another is named: its own."""
    return places.parent(file) if places.is_url(file) else os.path.dirname(file)


def read(file: str) -> ImageList:
    """Reads a list: .csv, .tsv (both also .gz) or .parquet; `file` is a path or a URL.

    Text is UTF-8, or UTF-16 with its mark at the start. The separator is what divides the rows evenly: a comma, semicolon, tab or vertical
    bar. Every cell of text stays text: 01 is not 1, and a class may be called NA. Blank rows are passed over; rows shorter than the header
    are filled with nothing; what stands beyond the header must be blank.

    Raises:
      UserError: if it can't be read, is empty, has no header, or rows that are longer than the header; they are named.
    """
    name = file.lower().removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        import pandas as pd

        try:
            table = pd.read_parquet(io.BytesIO(bytes_of(file)) if places.is_url(file) else file)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{file} can't be read as a table ({error}): check that it is a parquet file.") from error
        table.columns = [str(column).strip() for column in table.columns]
        listed = ImageList(file, table.reset_index(drop=True), np.arange(1, len(table) + 1))
    elif name.endswith((".csv", ".tsv")):
        listed = _parse(file, _text_of(file), "\t" if name.endswith(".tsv") else ",")
    else:
        raise UserError(f"{file} is no table that can be read: name a .csv, .tsv or .parquet file.")
    twice = [name for name, times in Counter(listed.table.columns).items() if times > 1]
    if twice:
        raise UserError(f"{file} has two columns {twice[0]!r}: rename one.")
    if not len(listed.table):
        raise UserError(f"{file} has no rows: list an image per row, below a first row with the names of the columns.")
    return listed


def text(values: "pd.Series") -> "pd.Series":
    """Strings without outer blanks; "" where nothing stands; whole numbers without a fraction, 1.0 as 1."""

    def one(value: object) -> str:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            return str(int(value))
        return value.decode("utf-8", "backslashreplace").strip() if isinstance(value, bytes) else str(value).strip()

    values = values.astype(object)
    return values.where(values.notna(), "").map(one)


def check_header(listed: ImageList, root: str, names: Sequence[str]) -> None:
    """Raises a UserError where a list of text begins with an image instead of the names of its columns.

    Args:
      listed: as read; its columns are its first row.
      root: the folder that paths are relative to.
      names: the columns that should be there.
    """
    if listed.file.lower().endswith((".parquet", ".pq", ".txt")):
        return
    columns = [str(column) for column in listed.table.columns]
    stems: Collection[str] = ()
    if not any(_names_an_image(cell, root) for cell in columns):
        if names[0] == USUAL[0] and names[0] in columns:
            return
        # It takes time, and no header of the usual names needs it.
        stems = _stems(walk(root)) if not places.is_url(root) and os.path.isdir(root) else ()
        if not any(cell in stems for cell in columns):
            return
    shown = ", ".join(map(repr, columns[:4]))
    header = [
        usual if _names_an_image(name, root) or name in (*columns, *stems) else name for name, usual in zip(names, USUAL, strict=False)
    ]
    raise UserError(
        f"{listed.file} has no header: its first row ({shown}) is an image already. Put a row with the names of the columns before it, "
        f"such as {','.join(header)}."
    )


def _names_an_image(cell: str, root: str) -> bool:
    if os.path.splitext(cell)[1].lower() in images.EXTENSIONS:
        return True
    if places.is_url(cell) or places.is_url(root):
        return places.is_url(cell)  # a header is not worth a request
    try:
        return bool(cell) and os.path.isfile(os.path.join(root, cell))
    except ValueError:  # a NUL
        return False


def _text_of(file: str) -> str:
    try:
        data = bytes_of(file)
        data = gzip.decompress(data) if file.lower().endswith(".gz") else data
    except (OSError, EOFError) as error:
        raise UserError(f"{file} can't be read ({getattr(error, 'strerror', None) or error}): check the file.") from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f'{file} is not UTF-8 (row {line} has the byte 0x{data[error.start]:02x}): save it as UTF-8, such as Excel\'s "CSV UTF-8".'
        ) from None


def bytes_of(file: str) -> bytes:
    """The contents of a list, at a path or a URL.

    Raises:
      OSError: where a file can't be read.
      UserError: where a URL can't be.
    """
    if not places.is_url(file):
        with open(file, "rb") as stream:
            return stream.read()
    try:
        return transfer.read(file)
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"{error}.") from error


def _parse(file: str, content: str, usual: str) -> ImageList:
    told = re.match(r"sep=(.)\r?\n", content)  # Excel's own line, before the header
    line, content = (2, content[told.end() :]) if told else (1, content)
    separator = told[1] if told else _separator(content, usual)
    csv.field_size_limit(_LARGEST_CELL)
    rows, lines, blank = [], [], 0
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    first = line - 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append(cells)
                lines.append(line)
            else:
                blank += 1
            line = first + reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{file}, row {line}: {error}; a cell that contains quotation marks doubles them and stands in quotation marks."
        ) from None
    if not rows:
        raise UserError(f"{file} has no rows: list an image per row, below a first row with the names of the columns.")
    header = rows[0]
    while header and not header[-1]:
        header.pop()
    width = len(header)
    long = [lines[i] for i, cells in enumerate(rows) if any(cells[width:])]
    if long:
        raise UserError(
            f"{file}: {told_rows(long)} {'has' if len(long) == 1 else 'have'} more cells than the header's {width}: name all columns, or "
            f'put cells that contain a {separator!r} in quotation marks, "like this".'
        )
    import pandas as pd

    filled = [(row + [""] * width)[:width] for row in rows[1:]]
    columns = [name or f"column {place + 1}" for place, name in enumerate(header)]
    table = pd.DataFrame(filled, columns=columns, dtype=object)
    notes = (f"{file} is separated by {_SEPARATORS.get(separator, repr(separator))}.",) if separator != usual else ()
    return ImageList(file, table, np.array(lines[1:], np.int64), notes, blank)


def _separator(content: str, usual: str) -> str:
    """The separator that divides the first rows, the header's above all, most evenly; the usual one where none does."""
    best, score = usual, (0.0, 0)
    for separator in sorted(_SEPARATORS, key=lambda one: one != usual):
        try:
            reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, skipinitialspace=True)
            widths = [len(cells) for cells, _ in zip(reader, range(_SNIFFED * 2), strict=False) if any(map(str.strip, cells))][:_SNIFFED]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        even = sum(width == widths[0] for width in widths) / len(widths)
        if (even, widths[0]) > score and (even > score[0] or score[1] < 2):
            best, score = separator, (even, widths[0])
    return best


@dataclasses.dataclass(frozen=True)
class Located:
    """Where the images of a list are; an item per given path.

    Attributes:
      paths: relative to the root where they lie under it, with "/"; as given where nothing was found.
      sizes, mtimes_ns: int64 [n]; 0 where nothing was found.
      reasons: ("", ""), or the reason and detail for the quarantine: missing, ambiguous, unreadable.
    """

    paths: list[str]
    sizes: np.ndarray
    mtimes_ns: np.ndarray
    reasons: list[tuple[str, str]]


def locate(root: str, paths: Sequence[str]) -> Located:
    """Finds the images that a list names: each by its path from the root, or absolute, or by its stem.

    A stem is a path without its extension, or a bare file name without it, looked for among all images under the root. Backslashes
    count as slashes where the system has none in the name.
    """
    found, reasons = [_normal(given, root) for given in paths], [("", "")] * len(paths)
    sizes, mtimes = np.zeros(len(paths), np.int64), np.zeros(len(paths), np.int64)
    index: tuple[Files, dict[str, list[int]]] | None = None
    at_urls = _at_urls(root, found)
    for row, path in enumerate(found):
        try:
            known = at_urls[row] if row in at_urls else _file_status(os.path.join(root, path))
        except (FileNotFoundError, NotADirectoryError):
            known = None
        except (OSError, ValueError) as error:  # such as a forbidden folder, a name too long, a NUL in it
            known = str(error)
        if known is None and not places.is_url(path):
            if index is None:
                files = walk(root)
                index = files, _stems(files)
            found[row], known = _by_stem(root, path, *index)
        if isinstance(known, tuple):
            sizes[row], mtimes[row] = known
        else:
            reasons[row] = ("unreadable", known) if isinstance(known, str) else ("missing", f"no such file under {root}")
            if isinstance(known, str) and known.startswith(_AMBIGUOUS):
                reasons[row] = ("ambiguous", known)
    return Located(found, sizes, mtimes, reasons)


_AMBIGUOUS = "stem of "
Known = tuple[int, int] | str | None  # size and time of change; why it can't be used; None = nothing found


def _file_status(path: str) -> Known:
    status = os.stat(path)
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else "not a regular file"


def _at_urls(root: str, paths: Sequence[str]) -> dict[int, Known]:
    """What is known of the images that lie at URLs, by their place in the list."""
    rows = [row for row, path in enumerate(paths) if places.is_url(places.join(root, path))]
    if not rows:
        return {}
    with progress.bar(Console(stderr=True)) as bar:
        task = bar.add_task("Asking for sizes", total=None)
        answers = listing.sized(root, [paths[row] for row in rows], lambda: bar.advance(task))
    known: dict[int, Known] = {}
    for row, answer in zip(rows, answers, strict=True):
        missing = None if isinstance(answer, FileNotFoundError) else str(answer)
        known[row] = (answer.size, answer.stamp) if isinstance(answer, listing.Entry) else missing
    return known


def _by_stem(root: str, path: str, files: Files, stems: dict[str, list[int]]) -> tuple[str, Known]:
    for name in dict.fromkeys((path, _normal(path.replace("\\", "/"), root))):
        full = os.path.join(root, name)
        if name != path and not places.is_url(root) and os.path.isfile(full):
            return name, _file_status(full)
        matches = stems.get(name, [])
        if len(matches) == 1:
            row = matches[0]
            return files.paths[row], (int(files.sizes[row]), int(files.mtimes_ns[row]))
        if matches:
            return path, _AMBIGUOUS + " and ".join(printable(files.paths[row]) for row in matches[:4])
    return path, None


def none_found(listed: ImageList, root: str, located: Located, field: str) -> UserError:
    """The error for a list of which no image was found; `field` is what names the root, such as "config.data.root"."""
    count = len(located.paths)
    first = printable(located.paths[0])
    reason, detail = located.reasons[0]
    if all(reason == "ambiguous" for reason, _ in located.reasons):
        return UserError(
            f"{listed.file}: several images have the names that it lists ({first!r} is the {detail}): write the folder too, "
            f"as in {printable(detail.removeprefix('stem of ').split(' and ')[0])!r}."
        )
    if any(reason != "missing" for reason, _ in located.reasons):
        kinds = ", ".join(f"{times} {kind}" for kind, times in Counter(reason for reason, _ in located.reasons).items())
        return UserError(f"None of the {count:,} images in {listed.file} can be used ({kinds}; the first, {first!r}: {reason}, {detail}).")
    return UserError(
        f"None of the {count:,} images in {listed.file} is there; the first was looked for as {places.join(root, first)}: set "
        f"{field} to the folder that the paths are relative to."
    )


def _normal(path: str, root: str) -> str:
    """One spelling per file: relative to the root where it lies under it, with "/"."""
    path = places.without_file(path)
    if places.is_url(path) or places.is_url(root):
        below = f"{root.rstrip('/')}/"
        if places.is_http(root) and path.startswith(below) and ("?" in path or "%" in path):
            return path  # a URL that is written as such, with its query or quoted: not a name below the root
        return path.removeprefix(below) if places.is_url(path) else os.path.normpath(path).replace(os.sep, "/").lstrip("/")
    full = os.path.normpath(os.path.join(root, path))
    prefix = root.rstrip(os.sep) + os.sep
    if full.startswith(prefix):
        return full.removeprefix(prefix).replace(os.sep, "/")
    return full if os.path.isabs(path) else os.path.normpath(path).replace(os.sep, "/")


def _stems(files: Files) -> dict[str, list[int]]:
    """Rows of `files` by relative path without extension, and by bare name without extension."""
    stems = defaultdict(list)
    for row, path in enumerate(files.paths):
        stem = os.path.splitext(path)[0]
        for key in {stem, stem.rsplit("/", 1)[-1]}:
            stems[key].append(row)
    return stems


def told_rows(rows: Iterable[int], limit: int = 5) -> str:
    """`rows 3, 7 and 12`, or `rows 3, 7, 8, 9, 10 and 25 more`."""
    rows = list(rows)
    if len(rows) == 1:
        return f"row {rows[0]}"
    last = str(rows[-1]) if len(rows) <= limit else f"{len(rows) - limit} more"
    return f"rows {', '.join(map(str, rows[: min(limit, len(rows) - (len(rows) <= limit))]))} and {last}"
