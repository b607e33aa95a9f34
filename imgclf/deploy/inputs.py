"""Which images to predict: files, folders, or a list of paths."""

import dataclasses
import hashlib
import io
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from imgclf.data import lists
from imgclf.data.images import ImageError
from imgclf.data.paths import is_folder, printable, walk
from imgclf.errors import UserError
from imgclf.remote import listing, places

LISTS = (*lists.EXTENSIONS, ".txt")
_COLUMN, _ROOT = "--column", "--root"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The images' paths, in the order of the predictions.

    Attributes:
      ids: what the predictions call them: the path as it is in the list, relative to the folder, or as given; or the list's column `id`.
      paths: where they are.
      bad: row → why the image can't be read, as far as that is known without opening it; taking such an item raises this.
      others: the list's other columns, a row per image; None where there are none.
      ignored: files that are no images: kind → count.
      notes: what the user should know of the list, such as which separator was recognised.
      sha256: of all ids, sizes, times of change and other columns: two equal ones stand for the same images.
    """

    ids: list[str]
    paths: list[str]
    bad: dict[int, ImageError]
    others: pd.DataFrame | None
    ignored: Counter[str]
    notes: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.ids)

    def url(self, row: int) -> str:
        """Where an image lies, if it is at a URL and may be read; else ""."""
        return self.paths[row] if row not in self.bad and places.is_url(self.paths[row]) else ""

    def __getitem__(self, row: int, /) -> str:
        if row in self.bad:
            raise ImageError(self.bad[row].reason, self.bad[row].detail)  # a new one, as each grows a traceback
        return self.paths[row]


def find(sources: Sequence[str], *, column: str = "", usual: str = "path", root: str = "") -> Inputs:
    """Finds the images that `sources` name.

    Args:
      sources: folders (with all in them, hidden files and operating systems' leftovers aside) and image files, or one list: .csv, .tsv,
        .parquet with a column of paths, or .txt with a path per line.
      column: the list's column of paths; "" = `usual`, or `path` where there is none.
      usual: the column of paths of the table that the run was trained on.
      root: the folder that the list's paths are relative to; "" = the list's own.

    Raises:
      UserError: if a source is not there, the list can't be read or has no such column, or there is no image.
    """
    for source in sources:
        if not (listing.kind_of(places.check(source)) if places.is_url(source) else os.path.exists(source)):
            raise UserError(f"{source} does not exist: name a folder, image files, or a list of paths ({', '.join(LISTS)}).")
    lists = [source for source in sources if source.lower().endswith(LISTS) and not is_folder(source)]
    if lists and len(sources) > 1:
        raise UserError(f"{lists[0]} is a list of paths and stands beside other images: give one list, or folders and images.")
    if lists:
        return _from_list(lists[0], column, usual, root)
    rows: list[tuple[str, str, ImageError | None]] = []
    ignored, known = Counter[str](), dict[str, tuple[int, int]]()
    for source in sources:
        if not is_folder(source):
            rows.append((printable(source), source, None))
            continue
        files = walk(source)
        if places.is_url(source):
            status = zip(files.paths, files.sizes.tolist(), files.mtimes_ns.tolist(), strict=True)
            known |= {places.join(source, path): (size, stamp) for path, size, stamp in status}
        ignored += files.ignored
        found: list[tuple[str, str, ImageError | None]]
        found = [(printable(path), places.join(source, path), None) for path in files.paths]
        found += [(name, "", ImageError(reason, detail)) for name, reason, detail in files.quarantine]
        found.sort(key=lambda row: row[0])
        rows += [(printable(places.join(source, name)) if len(sources) > 1 else name, path, bad) for name, path, bad in found]
    if not rows:
        others = f" (ignored: {_counts(ignored)})" if ignored else ""
        raise UserError(f"{' '.join(sources)} holds no image{others}: name a folder, image files, or a list of paths.")
    ids, paths, bad = zip(*rows, strict=True)
    return _inputs(list(ids), list(paths), {row: error for row, error in enumerate(bad) if error}, None, ignored, known=known)


def _from_list(file: str, column: str, usual: str, root: str) -> Inputs:
    if root and not is_folder(root):
        raise UserError(f"The root {root} is no folder: name the one that the paths in {file} are relative to.")
    folder = root or lists.folder_of(file)
    folder = folder if places.is_url(folder) else os.path.abspath(folder)
    listed = _lines(file, column or usual) if file.lower().endswith(".txt") else lists.read(file)
    column = column or next((name for name in (usual, "path", "id") if name in listed.table), "path")
    lists.check_header(listed, folder, [column])
    given = listed.column(column, _COLUMN)
    named = [printable(path) for path in given]
    if column == "id" and "source" in listed.table and not root:  # a run's dataset.parquet
        given = [places.join(source, name) for source, name in zip(listed.column("source", _COLUMN), given, strict=True)]
    located = lists.locate(folder, given)
    paths = [places.join(folder, path) for path in located.paths]
    status = zip(paths, located.sizes.tolist(), located.mtimes_ns.tolist(), strict=True)
    known = {path: (size, stamp) for path, size, stamp in status if places.is_url(path)}
    bad = {row: ImageError(*reason) for row, reason in enumerate(located.reasons) if reason[0]}
    # Without the folder where it was looked for, lest predictions differ between machines.
    bad |= {row: ImageError("missing", "no such file") for row, error in bad.items() if error.reason == "missing"}
    bad |= {row: ImageError("missing", "no path") for row, path in enumerate(given) if not path}
    ids = named
    others = listed.table.drop(columns=column)
    if "id" in others and others["id"].notna().all():
        ids = others["id"].astype(str).tolist()
        others = listed.table.drop(columns="id")  # with the path, which is not in the ids then
    others = others[[name for name in others if _is_plain(others[name])]].reset_index(drop=True)
    ignored = Counter({"blank rows": listed.blank} if listed.blank else {})
    inputs = _inputs(ids, paths, bad, others if others.shape[1] else None, ignored, listed.notes, known=known)
    if len(bad) == len(inputs):
        raise lists.none_found(listed, folder, located, _ROOT)
    return inputs


def _lines(file: str, column: str) -> lists.ImageList:
    """A list without header, a path per line."""
    try:
        data = lists.bytes_of(file).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}): allow reading it, or name another list.") from None
    given = [(number, line.strip()) for number, line in enumerate(io.StringIO(data, newline=None), start=1) if line.strip()]
    if not given:
        raise UserError(f"{file} lists no image: write a path per row.")
    numbers, paths = zip(*given, strict=True)
    return lists.ImageList(file, pd.DataFrame({column: paths}, dtype=object), np.array(numbers))


def _inputs(
    ids: list[str],
    paths: list[str],
    bad: dict[int, ImageError],
    others: pd.DataFrame | None,
    ignored: Counter[str],
    notes: tuple[str, ...] = (),
    *,
    known: Mapping[str, tuple[int, int]],
) -> Inputs:
    """The inputs with what the file system says of them; of files at URLs, that is `known`: size and stamp."""
    unknown = sorted({path for row, path in enumerate(paths) if row not in bad and places.is_url(path) and path not in known})
    asked: dict[str, tuple[int, int] | Exception] = dict(known)
    for path, answer in zip(unknown, listing.sized("", unknown), strict=True):
        asked[path] = (answer.size, answer.stamp) if isinstance(answer, listing.Entry) else answer
    digest = hashlib.sha256()
    for row, (name, path) in enumerate(zip(ids, paths, strict=True)):
        size, mtime_ns = -1, -1
        if row not in bad:
            try:
                size, mtime_ns = _status(path, asked)
            except ImageError as error:
                bad[row] = error
            except (FileNotFoundError, NotADirectoryError):
                bad[row] = ImageError("missing", "no such file")
            except (OSError, ValueError) as error:  # such as a forbidden folder, a name too long, a NUL in it
                bad[row] = ImageError("unreadable", getattr(error, "strerror", None) or str(error))
        digest.update(f"{name}\0{size}\0{mtime_ns}\0{bad.get(row, '')}\n".encode("utf-8", "surrogateescape"))
    if others is not None:
        digest.update(others.to_csv(index=False).encode("utf-8", "surrogateescape"))
    return Inputs(ids, paths, bad, others, ignored, notes, digest.hexdigest())


def _status(path: str, at_urls: Mapping[str, tuple[int, int] | Exception]) -> tuple[int, int]:
    """Size and time of change of a file."""
    if places.is_url(path):
        found = at_urls[path]
        if isinstance(found, Exception):
            raise found
        return found
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise ImageError("unreadable", "not a regular file")
    return status.st_size, status.st_mtime_ns


def _is_plain(values: pd.Series) -> bool:
    """Whether a column holds one text, number or time per row, as a CSV can."""
    texts = pd.api.types.is_object_dtype(values)
    return not texts or bool(values.map(lambda value: isinstance(value, str) or value is None).all())


def _counts(ignored: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(ignored.items()))
