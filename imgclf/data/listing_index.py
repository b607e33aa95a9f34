"""The listing of a large folder, kept in the cache: a second start looks at its folders only, not at a million files.

A folder's time of change moves whenever a file in it comes, goes or gets another name; so where all folders have the times that they had,
the files are the same ones. It does not move where a file is overwritten in place: that is found when the file is read and has another size
(`readers.FileReader`), which removes the listing, or by a listing anew, which `config.data.verify="first"` always makes.
"""

import json
import logging
import os
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgclf import files
from imgclf.data.columns import Coded, Texts
from imgclf.data.paths import Files
from imgclf.data.readers import FileReader
from imgclf.data.sources.base import Listing

_log = logging.getLogger(__name__)
_VERSION = 1
LEAST = 20_000  # images: smaller folders are listed in a second
_RACY_NS = 2_000_000_000  # a folder that was changed so shortly before it was listed may have changed again within one tick of its clock


def place(root: str, layout: str) -> Path:
    """The folder in the cache for the listing of `root`, an absolute path, by `config.data.layout`."""
    return files.cached("listings", f"{root}\n{layout}\n{_VERSION}")


def save(kept: Path, listing: Listing, found: Files, listed_ns: int) -> None:
    """Keeps a listing. A cache that can't be written costs time, not the run.

    Args:
      kept: see `place`.
      listing: of files; its reader is a `FileReader`, its classes and splits are coded.
      found: the files that it was made of.
      listed_ns: when the looking began, by `time.time_ns`.
    """
    classes, splits = Coded.of(listing.classes or ()), Coded.of(listing.splits)
    reader = listing.reader
    assert isinstance(reader, FileReader)
    paths = pa.chunked_array([reader.paths.to_arrow()])
    same_ids = reader.paths == listing.ids
    rows = pa.table(
        {
            "path": paths,
            "size": listing.sizes,
            "mtime_ns": listing.mtimes_ns,
            "class": classes.codes,
            "split": splits.codes,
            **({} if same_ids else {"id": Texts.of(listing.ids).to_arrow()}),
        }
    )
    folders = pa.table({"path": Texts.of(found.visited).to_arrow(), "mtime_ns": pa.array(found.visited_mtimes_ns, pa.int64())})
    token = uuid.uuid4().hex  # of the two files that belong together
    about = {
        "source": listing.source,
        "classes": classes.names,
        "splits": splits.names,
        "class_names": listing.class_names,
        "quarantine": listing.quarantine,
        "ignored": dict(listing.ignored),
        "notes": listing.notes,
        "cached_as": listing.cached_as,
        "listed_ns": listed_ns,
        "token": token,
    }
    try:
        kept.mkdir(parents=True, exist_ok=True)
        _write(kept / "folders.parquet", folders, {"token": token})
        _write(kept / "files.parquet", rows, about)
    except OSError as error:
        _log.warning("The listing can't be kept in %s (%s): the next start will list the folder anew.", kept, error)


def load(kept: Path, root: str) -> Listing | None:
    """The listing of a folder as it is kept; None where there is none, or a folder under `root` has changed since.

    Args:
      kept: see `place`.
      root: the folder's absolute path.
    """
    folder_file, file = kept / "folders.parquet", kept / "files.parquet"
    if not (folder_file.exists() and file.exists()):
        return None
    try:
        folders, token = _read(folder_file)
        schema = json.loads((pq.read_schema(file).metadata or {})[b"imgclf"])
        if token["token"] != schema["token"] or not _unchanged(root, folders, schema["listed_ns"]):
            return None
        rows, about = _read(file)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        _log.warning("The listing in %s is damaged (%s): the folder is listed anew.", kept, error)
        return None
    paths = Texts.from_arrow(rows["path"])
    sizes, mtimes, classes, splits = (rows[name].to_numpy() for name in ("size", "mtime_ns", "class", "split"))
    return Listing(
        source=about["source"],
        ids=Texts.from_arrow(rows["id"]) if "id" in rows.column_names else paths,
        reader=FileReader(root, paths, sizes, forget=kept),
        sizes=sizes,
        mtimes_ns=mtimes,
        classes=Coded(classes, about["classes"]),
        class_names=tuple(about["class_names"]),
        splits=Coded(splits, about["splits"]),
        quarantine=[(name, reason, detail) for name, reason, detail in about["quarantine"]],
        ignored=Counter(about["ignored"]),
        notes=list(about["notes"]),
        cached_as=about["cached_as"],
        indexed=True,
    )


def now_ns() -> int:
    """When a listing begins, for `save`."""
    return time.time_ns()


def _unchanged(root: str, folders: pa.Table, listed_ns: int) -> bool:
    mtimes = folders["mtime_ns"].to_pylist()
    for folder, mtime in zip(Texts.from_arrow(folders["path"]), mtimes, strict=True):
        if mtime > listed_ns - _RACY_NS:
            return False
        try:
            if os.stat(f"{root}/{folder}" if folder else root).st_mtime_ns != mtime:
                return False
        except OSError:
            return False
    return True


def _write(file: Path, table: pa.Table, about: dict[str, Any]) -> None:
    with files.replacing(file) as aside:
        pq.write_table(table.replace_schema_metadata({"imgclf": json.dumps(about)}), aside, compression="zstd")


def _read(file: Path) -> tuple[pa.Table, dict[str, Any]]:
    table = pq.read_table(file)
    about: dict[str, Any] = json.loads((table.schema.metadata or {})[b"imgclf"])
    return table, about
