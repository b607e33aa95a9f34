"""Verification beside the training: every image of a large set is decoded once in a process of its own, which yields to all others.

What is learnt goes to the cache that `verify` reads, a block of images at a time, so that it continues where it was ended. Nothing that
training or evaluation computes depends on how far it is: whether an image can be used is told from its bytes where it is met
(`pipeline`), and both tell the same.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from imgclf import files, progress
from imgclf.data.columns import Texts
from imgclf.data.readers import FileReader
from imgclf.data.verify import parts_of, verify
from imgclf.errors import UserError

BLOCK = 8_192  # images that are kept at a time
_JOB, _DONE = "job.parquet", "done.json"
_BUSY = 3  # exit code: another process verifies the same images
LEARNT = ("reason", "detail", "sha256", "width", "height", "phash")


@dataclasses.dataclass(frozen=True, eq=False)
class Unverified:
    """Image files that were listed and not decoded yet; a row per file.

    Attributes:
      reader: of the files.
      ids: their names.
      sizes, mtimes_ns: int64 [n], as in `Listing`.
      max_pixels: `config.data.max_pixels`.
      cache: see `verify.cache_file`.
    """

    reader: FileReader
    ids: Texts
    sizes: np.ndarray
    mtimes_ns: np.ndarray
    max_pixels: int
    cache: Path

    def digest(self) -> str:
        """Tells these files, as they were listed, from all others."""
        state = hashlib.blake2b(digest_size=16)
        for part in (self.ids.offsets, self.ids.data, self.sizes, self.mtimes_ns):
            state.update(np.ascontiguousarray(part).data)
        return state.hexdigest()

    def learnt(self) -> pd.DataFrame:
        """What is known of each file by now.

        Returns:
          A row per file, in order: reason ("" = good; "unverified" = not looked at yet), detail, sha256, width, height, phash.
        """
        sources = [file for file in (self.cache, *sorted(parts_of(self.cache).glob("0*.parquet"))) if file.exists()]
        columns = ["id", "size", "mtime_ns", *LEARNT]
        known = pa.concat_tables([pq.read_table(file, columns=columns) for file in sources]) if sources else None
        found = pd.DataFrame(
            {"reason": "unverified", "detail": "", "sha256": "", "width": 0, "height": 0, "phash": 0}, range(len(self.ids))
        )
        if known is not None:
            frame = known.to_pandas().drop_duplicates("id", keep="last")
            at = pd.Index(frame["id"]).get_indexer(pd.Index(self.ids.to_pandas()))
            same = at >= 0
            for name, mine in (("size", self.sizes), ("mtime_ns", self.mtimes_ns)):
                same[same] = frame[name].to_numpy()[at[same]] == mine[same]
            rows = np.flatnonzero(same)
            taken = frame.iloc[at[rows]]
            for name in LEARNT:
                column = found[name].array.copy()
                column[rows] = taken[name].array
                found[name] = column
        if (done := _done(self.cache)).get("digest") == self.digest():
            for row, reason, detail in done["unkept"]:
                found.loc[row, ["reason", "detail"]] = [reason, detail]
        return found.astype({"width": np.int32, "height": np.int32, "phash": np.int64})

    def known(self) -> int:
        """How many files have been looked at, without reading what was learnt."""
        if _done(self.cache).get("digest") == self.digest():
            return len(self.ids)
        return min(len(self.ids), BLOCK * sum(1 for _ in parts_of(self.cache).glob("0*.parquet")))


class Verification:
    """The process that verifies; `close` ends it wherever it is."""

    def __init__(self, unverified: Unverified):
        self._unverified = unverified
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def start(self) -> None:
        """Begins, or continues; does nothing where all is known."""
        folder = parts_of(self._unverified.cache)
        if self._unverified.known() == len(self._unverified.ids):
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_job(self._unverified, folder / _JOB)
        except OSError as error:
            raise UserError(
                f"The verification of the images can't be kept in {folder} ({error.strerror}): make room, or name another cache by "
                "IMGCLF_CACHE."
            ) from error
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": paths},
            process_group=0,  # Ctrl-C is for the training, which ends this process; in a session of its own it would not yield on Linux
        )

    def wait(self, console: Console) -> None:
        """Waits until every image has been looked at, with a progress bar.

        Raises:
          RuntimeError: if the process has failed.
        """
        total = len(self._unverified.ids)
        with progress.bar(console) as bar:
            task = bar.add_task("Verifying images", total=total, completed=self._unverified.known())
            while (known := self._unverified.known()) < total:
                bar.update(task, completed=known)
                if self._process is None:
                    self.start()
                    continue
                try:
                    code = self._process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
                if code not in (0, _BUSY):
                    raise RuntimeError(f"The verification of the images has failed: {self._said()}")
                self.close()
                if code == _BUSY:  # another run is at it
                    threading.Event().wait(1)

    def close(self) -> None:
        """Ends the process; blocks that it has finished stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _said(self) -> str:
        assert self._errors is not None
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]


@contextlib.contextmanager
def verifying(unverified: Unverified | None) -> Iterator[Verification | None]:
    """Verifies in the background while the block runs; nothing where all images are verified (`unverified` is None)."""
    if unverified is None:
        yield None
        return
    with contextlib.closing(Verification(unverified)) as verification:
        verification.start()
        yield verification


def _write_job(unverified: Unverified, file: Path) -> None:
    table = pa.table(
        {
            "path": unverified.reader.paths.to_arrow(),
            "id": unverified.ids.to_arrow(),
            "size": unverified.sizes,
            "mtime_ns": unverified.mtimes_ns,
        }
    )
    about = {"root": unverified.reader.root, "max_pixels": unverified.max_pixels, "cache": str(unverified.cache)}
    with files.replacing(file) as aside:
        pq.write_table(table.replace_schema_metadata({"imgclf": json.dumps(about)}), aside)


def _read_job(file: Path) -> Unverified:
    table = pq.read_table(file)
    about = json.loads((table.schema.metadata or {})[b"imgclf"])
    sizes, mtimes = table["size"].to_numpy(), table["mtime_ns"].to_numpy()
    reader = FileReader(about["root"], Texts.from_arrow(table["path"]), sizes)
    return Unverified(reader, Texts.from_arrow(table["id"]), sizes, mtimes, about["max_pixels"], Path(about["cache"]))


def _done(cache: Path) -> dict:
    try:
        found: dict = json.loads((cache.with_suffix(".json")).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _verify_all(folder: Path) -> None:
    """Verifies block after block, and puts them together."""
    job = _read_job(folder / _JOB)
    count = len(job.ids)
    known = pq.read_table(job.cache) if job.cache.exists() else None
    unkept: list[tuple[int, str, str]] = []
    for first in range(0, count, BLOCK):
        rows = np.arange(first, min(first + BLOCK, count))
        part = _part(folder, first)
        ids = job.ids.take(rows)
        if known is not None and not part.exists():
            here = known.filter(pc.is_in(known["id"], ids.to_arrow().cast(known["id"].type)))
            with files.replacing(part) as aside:
                pq.write_table(here, aside)
        reader = FileReader(job.reader.root, job.reader.paths.take(rows), job.sizes[rows])
        found = verify(reader, ids, job.sizes[rows], job.mtimes_ns[rows], max_pixels=job.max_pixels, cache=part)
        for place in np.flatnonzero(np.isin(found["reason"].astype(str), ("unreadable", "missing"))).tolist():
            unkept.append((first + place, str(found["reason"].iloc[place]), str(found["detail"].iloc[place])))
    parts = [_part(folder, first) for first in range(0, count, BLOCK)]
    with files.replacing(job.cache) as aside:
        schema = pq.read_schema(parts[0])
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).cast(schema))
    files.write_json(job.cache.with_suffix(".json"), {"digest": job.digest(), "unkept": unkept})
    for part in [*parts, folder / _JOB]:
        part.unlink(missing_ok=True)


def _part(folder: Path, first: int) -> Path:
    return folder / f"{first:012d}.parquet"


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        threading.Event().wait(1)
    os._exit(1)


def main(folder: Path) -> int:
    """Verifies the job in a folder; returns the exit code."""
    parent = os.getppid()
    if hasattr(os, "nice"):
        os.nice(19)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        with files.locked(folder / ".lock", "busy"):
            _verify_all(folder)
    except UserError:
        return _BUSY
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
