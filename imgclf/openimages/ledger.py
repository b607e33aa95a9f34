"""The ledger of downloads: `downloads.parquet`, with a row for each URL, and journals that survive a crash at any moment.

While photos are fetched, every fact is a line that one write appends to `downloads-NAME.journal`. There are two kinds of lines: "started"
says that an answer has begun, and how long it will be; a record says how a URL ended. A record is written before the photo gets its name,
so that there is no name without a record, and an unfinished file of the announced length needs no second download. At the start and at
the end of a run the journals are merged into the parquet file, which replaces the old one in one move; merging twice changes nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf import files

STATUSES = ("ok", "dead", "changed", "transient", "abandoned", "refused", "not_image", "too_big")
# A URL with one of these is not asked again; "abandoned" is one that failed for the moment in as many runs as it may.
FINAL = frozenset(STATUSES) - {"transient", "abandoned"}
COLUMNS = {
    "image_id": "str", "split": "str", "source": "str", "url": "str", "final_url": "str", "status": "str", "http_status": "int64",
    "detail": "str", "tries": "int64", "runs": "int64", "bytes": "int64", "sha256": "str", "width": "int64", "height": "int64",
    "file": "str", "time": "str",
}  # fmt: skip
LEDGER = "downloads.parquet"


def open_journal(folder: Path, name: str) -> files.JsonLines:
    """Opens the journal of one process that fetches into `folder`."""
    return files.JsonLines(folder / f"downloads-{name}.journal")


def read_journals(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the entries of all journals in order."""
    for path in sorted(folder.glob("downloads-*.journal")):
        yield from (entry for entry in files.read_json_lines(path) if "started" in entry or "image_id" in entry)


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
        tables = [_with_all_columns(pd.read_parquet(path))] if path.exists() else []
        self.started: dict[str, dict[str, Any]] = {}
        entries = []
        for entry in read_journals(folder):
            if "started" in entry:
                self.started[entry["started"]] = entry
            else:
                entries.append(entry)
                self.started.pop(entry["image_id"], None)
        if entries:
            tables.append(_with_all_columns(pd.DataFrame(entries)))
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
        table = pd.concat(tables, ignore_index=True) if tables else empty
        self.records = table.drop_duplicates(["image_id", "url"], keep="last").reset_index(drop=True)

    def compact(self) -> None:
        """Merges the journals into downloads.parquet. No process may be writing to them meanwhile."""
        journals = list(self._folder.glob("downloads-*.journal"))
        if not journals:
            return
        with files.replacing(self._folder / LEDGER, durable=True) as aside:
            self.records.to_parquet(aside, index=False, compression="zstd")
        for journal in journals:
            journal.unlink()

    def status(self) -> pd.Series:
        """Returns image id → what became of it: "ok" if any of its URLs gave it, else the status of the URL that was tried last."""
        latest = self.records.assign(good=self.records["status"] == "ok").sort_values(["good", "time"], kind="stable")
        return latest.drop_duplicates("image_id", keep="last").set_index("image_id")["status"]


def _with_all_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Completes the records of a ledger that an earlier version wrote, which did not count runs."""
    return table.assign(runs=table.get("runs", 0)).reindex(columns=list(COLUMNS)).astype(COLUMNS)
