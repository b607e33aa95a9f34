"""The ledger of downloads: `downloads.parquet`, a row per URL, and journals that survive any crash.

While photos are fetched, every fact is a line appended to `downloads-NAME.journal` by one write, so that a killed process loses none. Two
kinds: "started" (the answer's headers are there; it states the length) and a final record. A record is written before the photo gets its
name, so that a name without a record can't be, and a `.part` of the announced length needs no second download. At the start and the end of
a run the journals are merged into the parquet file, which replaces the old one in one move; merging twice changes nothing.
"""

import errno
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

STATUSES = ("ok", "dead", "changed", "transient", "refused", "not_image", "too_big")
FINAL = frozenset(STATUSES) - {"transient"}  # not tried again
COLUMNS = {
    "image_id": "str", "split": "str", "source": "str", "url": "str", "final_url": "str", "status": "str", "http_status": "int64",
    "detail": "str", "tries": "int64", "bytes": "int64", "sha256": "str", "width": "int64", "height": "int64", "file": "str", "time": "str",
}  # fmt: skip
LEDGER = "downloads.parquet"


class Journal:
    """Appends lines; threads may share it."""

    def __init__(self, folder: Path, name: str):
        self._path = folder / f"downloads-{name}.journal"
        self._lock = threading.Lock()
        self._file = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":  # of a machine that lost power
            os.write(self._file, b"\n")

    def append(self, entry: dict[str, Any]) -> None:
        """Writes an entry; it outlives the process at once, and a power failure from the next `sync` on."""
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.fsync(self._file)
        os.close(self._file)


class Ledger:
    """All that is known of a folder's downloads.

    Attributes:
      records: a row per (image_id, url), see COLUMNS.
      started: image id → the latest "started" entry without a record after it.
    """

    def __init__(self, folder: Path):
        """Reads the parquet file and all journals; changes nothing."""
        self._folder = folder
        path = folder / LEDGER
        tables = [pd.read_parquet(path)] if path.exists() else []
        self.started: dict[str, dict] = {}
        entries = []
        for entry in read_journals(folder):
            if "started" in entry:
                self.started[entry["started"]] = entry
            else:
                entries.append(entry)
                self.started.pop(entry["image_id"], None)
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
        if entries:
            tables.append(pd.DataFrame(entries).reindex(columns=list(COLUMNS)).astype(COLUMNS))
        table = pd.concat(tables, ignore_index=True) if tables else empty
        self.records = table.drop_duplicates(["image_id", "url"], keep="last").reset_index(drop=True)

    def compact(self) -> None:
        """Merges the journals into downloads.parquet. No process may be writing to them."""
        journals = list(self._folder.glob("downloads-*.journal"))
        if not journals:
            return
        aside = self._folder / (LEDGER + ".part")
        self.records.to_parquet(aside, index=False, compression="zstd")
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, self._folder / LEDGER)
        for journal in journals:
            journal.unlink()

    def status(self) -> pd.Series:
        """image id → what became of it: ok if any of its URLs was, else the record of the last one tried."""
        latest = self.records.assign(good=self.records["status"] == "ok").sort_values(["good", "time"], kind="stable")
        return latest.drop_duplicates("image_id", keep="last").set_index("image_id")["status"]


def read_journals(folder: Path) -> Iterable[dict[str, Any]]:
    """The entries of all journals in order; a line cut short by a power failure is no entry."""
    for path in sorted(folder.glob("downloads-*.journal")):
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and ("started" in entry or "image_id" in entry):
                    yield entry
