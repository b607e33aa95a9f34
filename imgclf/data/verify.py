"""Every image is decoded to its end once; what was learnt is kept in a cache and used as long as the file does not change."""

import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from rich.console import Console

from imgclf import files, progress
from imgclf.data import images, native_messages
from imgclf.data.readers import Reader, ahead
from imgclf.runtime import hosts

_log = logging.getLogger(__name__)
_DTYPES: dict[str, type] = {
    "reason": object, "detail": object, "sha256": object, "width": np.int32, "height": np.int32, "phash": np.int64,
    "kind": object, "low": np.float64, "high": np.float64, "noisy": np.bool_, "label": np.int32,
}  # fmt: skip
_NOT_KEPT = ("unreadable", "missing")  # may change without a change of the file's size or time
_CHUNK = 16  # images a thread takes at once


def cache_file(place: str, max_pixels: int) -> Path:
    """Where the verification of `place` (an absolute path or another lasting name) is kept."""
    key = f"{place}\n{max_pixels}\n{images.INSPECTION_VERSION}"
    return files.cached("verified", key, ".parquet")


def parts_of(cache: Path) -> Path:
    """The folder of what a verification in the background (`background`) has learnt so far, beside the file that it will be."""
    return cache.with_suffix(".parts")


def verify(
    reader: Reader, ids: Sequence[str], sizes: np.ndarray, mtimes_ns: np.ndarray, *, max_pixels: int, cache: Path | None
) -> pd.DataFrame:
    """Inspects every image that the cache does not know, in threads (decoders release the GIL), with a progress bar.

    Several hosts share the work: each inspects its part, and all get the results of all. Interrupted, it keeps what it has done so far.

    Args:
      reader: of the images.
      ids: unique names, one per row; with sizes (int64 [n], bytes) and mtimes_ns (int64 [n]) the key of the cache.
      max_pixels: larger images are not decoded.
      cache: the file to read and write, or None.

    Returns:
      A row per image: reason ("" = good, else see `images.ImageError`, or unreadable, missing), detail, sha256, width, height
      (int32, oriented), phash (int64), kind, low and high (of images of more than 8 bits, see `images.Inspection`), noisy (bool: a
      decoder writes messages of its own), label (int32; -1 where the source does not store labels with its images).
    """
    columns: dict[str, np.ndarray] = {name: np.zeros(len(ids), dtype) for name, dtype in _DTYPES.items()}
    todo = np.ones(len(ids), bool)
    keys = pd.DataFrame({"id": pd.Series(ids, dtype="str"), "size": sizes, "mtime_ns": mtimes_ns})
    stale = False
    if cache is not None and (known := _load(cache)) is not None:
        at = pd.Index(known["id"]).get_indexer(pd.Index(keys["id"]))
        found = at >= 0
        for name in ("size", "mtime_ns"):
            found[found] = known[name].to_numpy()[at[found]] == keys[name].to_numpy()[found]
        for name in _DTYPES:
            columns[name][found] = known[name].to_numpy()[at[found]]
        todo = ~found
        stale = int(found.sum()) < len(known)
    partners = hosts.current()
    partners.check_same_rows([f"{name}\t{size}" for name, size in zip(ids, sizes, strict=True)] if partners.count > 1 else [], "images")
    todo = partners.any_of(todo)
    rows = np.flatnonzero(todo)
    if len(rows):
        try:
            _inspect_all(reader, partners.share(rows), max_pixels, columns, todo)
            _receive(partners, rows, columns, todo)
        finally:
            keep = ~todo & ~np.isin(columns["reason"].astype(str), _NOT_KEPT)
            if cache is not None:
                _save(cache, pd.concat([keys, pd.DataFrame(columns)], axis=1)[keep])
    elif stale and cache is not None:  # files are gone
        _save(cache, pd.concat([keys, pd.DataFrame(columns)], axis=1))
    return pd.DataFrame(columns)


def _receive(partners: hosts.Hosts, rows: np.ndarray, columns: dict[str, np.ndarray], todo: np.ndarray) -> None:
    """Fills `columns` at all `rows` with what each host has found for its part of them, and clears `todo` there."""
    if partners.count == 1:
        return
    own = partners.share(rows)
    found = partners.gather_table(pd.DataFrame({name: column[own] for name, column in columns.items()}))
    for index, part in enumerate(found):
        theirs = rows[index :: partners.count]
        for name in _DTYPES:
            columns[name][theirs] = part[name].to_numpy()
        todo[theirs] = False


def _inspect_all(reader: Reader, rows: np.ndarray, max_pixels: int, columns: dict[str, np.ndarray], todo: np.ndarray) -> None:
    """Fills `columns` at `rows` and clears `todo` there, chunk by chunk: whichever chunk is interrupted, the others stay."""
    if not len(rows):
        return
    chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]

    def work(chunk: np.ndarray) -> None:
        with ahead(reader, chunk.tolist()):
            results = [_inspect_row(reader, int(row), max_pixels) for row in chunk]
        for name, values in zip(_DTYPES, zip(*results, strict=True), strict=True):
            columns[name][chunk] = values
        todo[chunk] = False

    pool = ThreadPoolExecutor(min(len(chunks), os.cpu_count() or 1), thread_name_prefix="verify")
    try:
        with (
            native_messages.held_back() as stream,
            progress.bar(Console(file=stream, quiet=hosts.current().index != 0)) as bar,
            warnings.catch_warnings(),
        ):
            task = bar.add_task("Verifying images", total=len(rows))
            warnings.simplefilter("ignore", UserWarning)  # Pillow on odd metadata; the pixels are what is checked here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels judges that
            for chunk, _ in zip(chunks, pool.map(work, chunks), strict=True):
                bar.advance(task, len(chunk))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _inspect_row(reader: Reader, row: int, max_pixels: int) -> tuple:
    try:
        data, label = reader.encoded(row)
    except FileNotFoundError:
        return (*images.Inspection("missing", "no such file"), False, -1)
    except OSError as error:
        return (*images.Inspection("unreadable", error.strerror or str(error)), False, -1)
    before = native_messages.written()
    found = images.inspect(data, max_pixels)
    # Another thread's message may be taken for this image's: it is then decoded by Pillow, too, with the same pixels.
    return (*found, native_messages.written() != before, label)


def _load(cache: Path) -> pd.DataFrame | None:
    sources = [file for file in (*sorted(parts_of(cache).glob("0*.parquet"), reverse=True), cache) if file.exists()]
    if not sources:
        return None
    try:
        known = pd.concat([pd.read_parquet(file) for file in sources]) if len(sources) > 1 else pd.read_parquet(sources[0])
        return known.drop_duplicates("id").astype({"size": np.int64, "mtime_ns": np.int64, **_DTYPES})
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        _log.warning("The cache %s is damaged (%s): all images are verified anew.", cache, error)
        return None


def _save(cache: Path, table: pd.DataFrame) -> None:
    """Keeps what was learnt. A cache that can't be written costs time, not the run."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(cache, shared=True) as aside:  # hosts may share the folder of caches
            table.to_parquet(aside, index=False, compression="zstd")
    except OSError as error:
        _log.warning("The verification can't be kept in %s (%s): the next run will repeat it.", cache, error)
