"""Writes a pack: shards in parallel, each verified and entered in a ledger, so that an interrupted pack continues where it stopped.

What is written depends on the photos and on the form alone: neither on the number of workers, nor on where a run was killed. A shard is a
row of photos in the table's order, of a length that depends on their number only.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import mmap
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import progress
from imgclf.data import main_guard, worker_start
from imgclf.data.images import ImageError
from imgclf.data.packing import damage, manifest, records
from imgclf.data.packing.forms import Form, Stored
from imgclf.data.packing.manifest import Manifest, ShardFile
from imgclf.data.packing.places import Place
from imgclf.data.packing.records import Span
from imgclf.data.prepare import Prepared
from imgclf.data.readers import ImageReader
from imgclf.errors import UserError

# At most 512 shards, so that a reader may keep all of them open; at least 64 photos each, so that a small set is not all files.
_MOST_SHARDS, _LEAST_PHOTOS = 512, 64
_CHUNK = 8 << 20  # bytes of a shard that are read at once
_FACTS = ("offset", "length", "record_sha256", "kept_height", "kept_width", "exact")  # columns of the index, and of the ledger
_TICK = 0.2  # seconds between two looks at what the workers have done


@dataclasses.dataclass(frozen=True)
class Packed:
    """What was done.

    Attributes:
      manifest: of the pack.
      made, found: shards that were written, and that were there already.
    """

    manifest: Manifest
    made: int
    found: int


def write(prepared: Prepared, form: Form, place: Place, *, workers: int, console: Console) -> Packed:
    """Packs the photos of a config with their classes, splits, groups and quarantine.

    Args:
      prepared: of the config. All photos are packed, those too that the audit drops: it does so again when the pack is read.
      form: how pictures are kept.
      place: empty, absent, begun by the same call, or its finished pack, of which damaged shards are then written anew.
      workers: processes.
      console: for the progress.

    Raises:
      UserError: for a place that holds something else, a photo that can't be read or has changed, and what can't be written.
    """
    table = prepared.loaded.table
    job = _Job(
        place=place,
        form=form,
        reader=prepared.loaded.reader,
        ids=table["id"].to_numpy(object),
        sha256=table["sha256"].to_numpy(object),
        sizes=table[["height", "width"]].to_numpy(np.int32),
        bounds=_bounds(len(table)),
    )
    digest = _digest(prepared, form)
    try:
        with _begun(place, prepared, digest):
            entries = _found(place, job, console)
            found = len(entries)
            _make_all(job, [shard for shard in range(len(job.bounds) - 1) if shard not in entries], entries, workers, console)
            about = _finish(prepared, job, entries, digest)
    except OSError as error:
        where, why = error.filename or place, error.strerror or str(error)
        way_out = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "allow writing there"
        raise UserError(f"{where} can't be written ({why}): {way_out}, then give the same command to continue.") from error
    return Packed(about, len(entries) - found, found)


def _bounds(count: int) -> tuple[int, ...]:
    """The first row of each shard, and the number of rows."""
    size = max(_LEAST_PHOTOS, -(-count // _MOST_SHARDS))
    return (*range(0, count, size), count)


def _digest(prepared: Prepared, form: Form) -> str:
    """Of all that is packed, and of how: what may be continued, and what is another pack."""
    about = [manifest.VERSION, dataclasses.asdict(form), cv2.__version__, sorted(prepared.loaded.ignored.items())]
    digest = hashlib.sha256(json.dumps(about).encode())
    for table in (prepared.loaded.table.drop(columns="source"), prepared.loaded.quarantine):
        digest.update(table.to_csv(index=False).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """What a worker has to know; sent to each once.

    Attributes:
      place, form: see `write`.
      reader, ids, sha256, sizes: of the photos; sizes int32 [n, 2], (height, width).
      bounds: see `_bounds`.
    """

    place: Place
    form: Form
    reader: ImageReader
    ids: np.ndarray
    sha256: np.ndarray
    sizes: np.ndarray
    bounds: tuple[int, ...]

    def name(self, shard: int) -> str:
        return f"images-{shard:05d}-of-{len(self.bounds) - 1:05d}.array_record"

    def make(self, shard: int, tick: Callable[[], None]) -> "_Entry":
        """Writes a shard, reads it back, and enters it in the ledger."""
        name, facts = self.name(shard), list[tuple[str, Stored]]()
        with self.place.writing(name) as path:
            records.write(path, self._records(range(*self.bounds[shard : shard + 2]), facts, tick))
            entry = _verified(path, name, facts)
        self.place.write(_ledger(shard), json.dumps(dataclasses.asdict(entry)).encode())
        return entry

    def _records(self, rows: Sequence[int], facts: list[tuple[str, Stored]], tick: Callable[[], None]) -> Iterator[bytes]:
        for row in rows:
            try:
                height, width = self.sizes[row].tolist()
                stored = self.form.store(self.reader, row, str(self.sha256[row]), (height, width))
            except (OSError, ImageError) as error:
                raise UserError(
                    f"{self.ids[row]} can no longer be read ({error}): restore the file, or start again to verify the photos anew."
                ) from error
            facts.append((hashlib.sha256(stored.record).hexdigest(), stored._replace(record=b"")))
            yield stored.record
            tick()


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A finished shard in the ledger: its file, and a row per record of offset, length, sha256, height, width and exactness."""

    file: ShardFile
    rows: list[tuple[int, int, str, int, int, bool]]


def _verified(path: Path, name: str, facts: list[tuple[str, Stored]]) -> _Entry:
    """Reads all records of a shard back, by number and by range, and compares their hashes."""
    shard = records.Shard(str(path), len(facts))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        places = records.spans(data, len(facts))
        for number, ((digest, _), (offset, length)) in enumerate(zip(facts, places, strict=True)):
            record = shard.read(number, Span(offset, length))
            if hashlib.sha256(record).hexdigest() != digest or records.unwrap(data[offset : offset + length], offset) != record:
                raise OSError(errno.EIO, f"record {number} was read back with other bytes than were written: check the disk", str(path))
        about = ShardFile(name, len(facts), len(data), hashlib.sha256(data).hexdigest())
    shard.close()
    return _Entry(about, [(*place, digest, *stored[1:]) for (digest, stored), place in zip(facts, places, strict=True)])


def _ledger(shard: int) -> str:
    return f"{manifest.LEDGER}/{shard:05d}.json"


@contextlib.contextmanager
def _begun(place: Place, prepared: Prepared, digest: str) -> Iterator[None]:
    """Has the place to itself for this pack; what it was begun for stands in the ledger."""
    begun, there = f"{manifest.LEDGER}/{manifest.ABOUT}", place.sizes()
    known = False
    for name in (begun, manifest.ABOUT):
        data = place.read(name)
        if data is None:
            continue
        known = True
        there_for = _digest_in(data)
        if not there_for and not _packs_the_same(place, prepared):
            raise UserError(
                f"{place} holds a pack whose {name} is damaged, and nothing else there says that it is one of the same photos: choose "
                f"another --out, or remove {place}."
            )
        if there_for and there_for != digest:
            raise UserError(f"{place} holds a pack of other photos, or in another form (see {place}/{name}): choose another --out.")
    if not known and there.keys() - {manifest.LEDGER}:
        raise UserError(f"{place} holds other files, and nothing is overwritten: choose another --out.")
    told = f"Another process is packing into {place}: wait until it is done, or choose another --out."
    with place.locked(f"{manifest.LEDGER}/lock", told):
        place.write(begun, json.dumps({"digest": digest}).encode())
        yield


def _digest_in(data: bytes) -> str:
    """The digest in a file of JSON; "" where the file is damaged."""
    try:
        return str(json.loads(data)["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def _packs_the_same(place: Place, prepared: Prepared) -> bool:
    """Whether the index in a place, whose pack.json tells nothing, is that of these photos."""
    try:
        index = manifest.read_table(place, manifest.INDEX)
    except UserError:
        return False
    table = prepared.loaded.table
    return all(name in index and index[name].tolist() == table[name].tolist() for name in ("id", "sha256"))


def _found(place: Place, job: _Job, console: Console) -> dict[int, _Entry]:
    """The shards that are there and whole, by their sha256: those of the ledger, and those of a finished pack."""
    sizes = place.sizes()
    claimed = _in_finished(place, sizes) | _in_ledger(place, job, sizes)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(console) as bar:
        same = pool.map(lambda entry: _sha256(place, entry.file) == entry.file.sha256, claimed.values())
        checked = bar.track(same, len(claimed), description="Comparing files") if claimed else ()
        return {shard: entry for (shard, entry), whole in zip(claimed.items(), checked, strict=True) if whole}


def _in_ledger(place: Place, job: _Job, sizes: dict[str, int]) -> dict[int, _Entry]:
    entries, ledger = {}, place.sizes(manifest.LEDGER)
    for shard in range(len(job.bounds) - 1):
        data = place.read(_ledger(shard)) if f"{shard:05d}.json" in ledger else None
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a power failure has cut it short
            fields = json.loads(data or b"")
            entry = _Entry(ShardFile(**fields["file"]), [tuple(row) for row in fields["rows"]])
            if sizes.get(entry.file.name) == entry.file.bytes:
                entries[shard] = entry
    return entries


def _in_finished(place: Place, sizes: dict[str, int]) -> dict[int, _Entry]:
    """Those of the pack that pack.json describes; none where that, or the index, is not what was written: then all is made anew."""
    if manifest.ABOUT not in sizes:
        return {}
    try:
        about = manifest.read(place)
        if manifest.INDEX in damage.tables(place, about):
            return {}
        index = manifest.read_table(place, manifest.INDEX)
    except UserError:
        return {}
    entries = {}
    for shard, file in enumerate(about.shards):
        if sizes.get(file.name) == file.bytes:
            rows = index[index["shard"] == shard]
            entries[shard] = _Entry(file, list(zip(*(rows[name].tolist() for name in _FACTS), strict=True)))
    return entries


def _sha256(place: Place, file: ShardFile) -> str:
    digest = hashlib.sha256()
    for start in range(0, file.bytes, _CHUNK):
        digest.update(place.read_range(file.name, start, min(_CHUNK, file.bytes - start)))
    return digest.hexdigest()


_job: _Job  # of a worker process, with what it shares with the others: how many photos are done, and whether to stop
_done: Any
_stop: Any


def _start(jobs: Any, done: Any, stop: Any) -> None:
    global _job, _done, _stop
    worker_start.start()
    _job, _done, _stop = jobs.get(), done, stop


def _put(jobs: Any, job: _Job, times: int) -> None:
    for _ in range(times):
        jobs.put(job)


def _make(shard: int) -> _Entry:
    def tick() -> None:
        if _stop.is_set():
            raise InterruptedError("another worker has failed")
        with _done.get_lock():
            _done.value += 1

    return _job.make(shard, tick)


def _make_all(job: _Job, pending: list[int], entries: dict[int, _Entry], workers: int, console: Console) -> None:
    """Fills `entries`, with a progress bar."""
    total = sum(job.bounds[shard + 1] - job.bounds[shard] for shard in pending)
    with progress.bar(console, rate="images") as bar:
        task = bar.add_task("Packing", total=total)
        workers = min(workers, len(pending))
        if workers <= 1:
            for shard in pending:
                entries[shard] = job.make(shard, lambda: bar.advance(task))
            return
        spawn = multiprocessing.get_context("spawn")
        done, stop, jobs = spawn.Value("q", 0), spawn.Event(), spawn.SimpleQueue()
        # Not among the arguments: one that is larger than a pipe would be waited for without end where a worker ends before it reads it.
        threading.Thread(target=_put, args=(jobs, job, workers), daemon=True).start()
        with ProcessPoolExecutor(workers, spawn, _start, (jobs, done, stop)) as pool:
            futures: dict[Future[_Entry], int] = {pool.submit(_make, shard): shard for shard in pending}
            left = set(futures)
            try:
                while left:
                    finished, left = wait(left, timeout=_TICK, return_when=FIRST_COMPLETED)
                    bar.update(task, completed=done.value)
                    for future in finished:
                        entries[futures[future]] = future.result()
            except BrokenProcessPool as error:
                if (told := main_guard.explained(error)) is not None:
                    raise told from None
                raise UserError(
                    "A worker process has ended, as it happens where memory runs out, or in a script without a main guard: give the same "
                    "command to continue, with fewer --workers (1 needs no process)."
                ) from error
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def _finish(prepared: Prepared, job: _Job, entries: dict[int, _Entry], digest: str) -> Manifest:
    """Writes the tables, and pack.json last of all; then the ledger goes."""
    config, loaded, place = prepared.config, prepared.loaded, job.place
    done = [entries[shard] for shard in range(len(job.bounds) - 1)]
    facts = pd.DataFrame([row for entry in done for row in entry.rows], columns=list(_FACTS))
    facts.insert(0, "shard", [shard for shard, entry in enumerate(done) for _ in entry.rows])
    facts.insert(1, "record", [record for entry in done for record in range(len(entry.rows))])
    index = pd.concat([loaded.table.drop(columns="source"), facts.astype(manifest.PLACES)], axis=1)
    tables = {
        manifest.INDEX: index.to_parquet(index=False, compression="zstd"),
        manifest.QUARANTINE: loaded.quarantine.to_parquet(index=False, compression="zstd"),
        manifest.AUDIT: _json(prepared.audit_report),
    }
    patch = config.data.label_patch
    about = Manifest(
        name=config.name,
        digest=digest,
        form=job.form,
        exact=all(row[-1] for entry in done for row in entry.rows),
        images=len(index),
        class_names=loaded.class_names,
        class_map=tuple(config.data.class_map),
        label_patch=hashlib.sha256(Path(patch).expanduser().read_bytes()).hexdigest() if patch else "",
        color_profile=config.data.color_profile,
        scenes="scene" in index,
        value_range=loaded.value_range,
        ignored=loaded.ignored,
        shards=tuple(entry.file for entry in done),
        tables={name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    )
    for name, data in tables.items():
        place.write(name, data)
    place.remove(manifest.DAMAGED)  # what was damaged has been written anew
    place.write(manifest.ABOUT, _json(about.to_json()))
    place.remove_folder(manifest.LEDGER)
    return about


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
