"""Fetches the photos of a selection: each once, politely, and so that a crash at any moment costs nothing that had arrived."""

import contextlib
import dataclasses
import datetime
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from rich.console import Console

from imgclf import files, progress
from imgclf.errors import UserError
from imgclf.openimages import attribution, pool
from imgclf.openimages.jobs import DownloadOptions, remaining
from imgclf.openimages.ledger import LEDGER, STATUSES, Ledger, open_journal, read_journals
from imgclf.openimages.photo import DiskError
from imgclf.openimages.recovery import recover
from imgclf.openimages.selection import Selection, load_selection
from imgclf.runtime import parallel


@dataclasses.dataclass(frozen=True)
class Downloads:
    """What a folder holds after a download.

    Attributes:
      folder: of the selection.
      status: a row per image: image_id, status (see `ledger.STATUSES`).
      attribution: the table of ATTRIBUTION.csv, a row per photo that is there.
      silence: why this run ended before all photos were asked for: nobody answered; "" = it did not.
    """

    folder: Path
    status: pd.DataFrame
    attribution: pd.DataFrame
    silence: str = ""

    def counts(self) -> dict[str, int]:
        """Returns status → number of photos, in the order of `ledger.STATUSES`; statuses that no photo has are left out."""
        counts = self.status["status"].value_counts()
        return {status: int(counts[status]) for status in STATUSES if status in counts}

    @property
    def missing(self) -> int:
        """The number of photos that are not there."""
        return int((self.status["status"] != "ok").sum())

    def check(self) -> None:
        """Raises a UserError where not a single photo is there."""
        if self.missing == len(self.status):
            raise UserError(f"None of the {len(self.status):,} photos could be had; {self.folder / LEDGER} says why for each.")


def download(folder: Path, options: DownloadOptions | None = None, console: Console | None = None) -> Downloads:
    """Fetches what the selection in `folder` lacks, into `folder`/photos/; what differs from its metadata goes to `folder`/changed/.

    Photos are named by their id. Every URL ends in `folder`/downloads.parquet, see `ledger`. What is final there is not asked for again;
    what fails for the moment is asked again in later runs, `FetchOptions.runs` of them in all. A photo that can't be had stops nothing.
    Writes ATTRIBUTION.csv for the photos that are there.

    Args:
      console: for the progress bar.

    Raises:
      UserError: without a selection, with a full disk, or where nobody answers and no photo is there yet; what was fetched is kept.
    """
    options = options or DownloadOptions()
    options.check()
    selection = load_selection(folder)
    silence = ""
    with _claim(folder):
        begun = _now()
        try:
            recover(folder, options, selection, Ledger(folder))
            ledger = Ledger(folder)
            ledger.compact()
            todo, history = remaining(selection.images, options, ledger)
            if len(todo):
                whole = pool.Share(folder, todo, history, options, selection.request["base_url"], "0")
                _fetch_all(whole, console or Console(quiet=True))
        except pool.SilenceError as error:
            if not (Ledger(folder).records["status"] == "ok").any():
                _uncount(folder, begun)
                raise
            if len(todo) > pool.GIVE_UP:  # else all of them were asked
                silence = str(error)
        except DiskError as error:
            raise UserError(pool.disk_is_full(error)) from None
        finally:
            ledger = Ledger(folder)
            with contextlib.suppress(OSError):  # of a full disk, which is told already: the journals hold all
                ledger.compact()
        status = ledger.status().reindex(selection.images["image_id"]).fillna("transient")
        _write_attribution(folder, selection, ledger)
        table = status.rename("status").rename_axis("image_id").reset_index()
        return Downloads(folder, table, attribution.read(folder), silence)


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[None]:
    """Keeps a second download out of the folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                files.locked(folder / ".download.lock", f"Another download is running in {folder}; wait for it, or choose another folder.")
            )
        except OSError as error:
            raise UserError(f"{folder} can't be written ({error.strerror}); choose another folder.") from None
        yield


def _now() -> str:
    """Returns the time as the ledger has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _uncount(folder: Path, begun: str) -> None:
    """Takes back the failures since `begun`: where nobody at all could be reached, they say nothing about a URL."""
    records = Ledger(folder).records
    journal = open_journal(folder, "uncounted")
    try:
        for record in records[(records["time"] >= begun) & (records["runs"] > 0)].to_dict("records"):
            entry = {str(name): value for name, value in record.items()}
            journal.append({**entry, "runs": entry["runs"] - 1, "status": "transient"})
    finally:
        journal.close()


def _fetch_all(whole: pool.Share, console: Console) -> None:
    """Fetches the photos in this process, or shares them among several."""
    counts: Counter[str] = Counter()
    options = whole.options
    with _progress(len(whole.images), counts, console) as refresh:
        if options.engine == "threads" and options.jobs == 1:
            pool.fetch(whole, counts, refresh)
            return
        own = dataclasses.replace(options, workers=max(1, options.workers // options.jobs))
        number = min(options.jobs, len(whole.images))
        shares = [
            dataclasses.replace(whole, images=whole.images.iloc[n::number].reset_index(drop=True), options=own, name=str(n))
            for n in range(number)
        ]
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(whole.folder, counts, refresh, over), daemon=True)
        watcher.start()
        try:
            with parallel.backend(options.engine, options.jobs):
                problems = Parallel()(delayed(pool.fetch_apart)(share) for share in shares)
        finally:
            over.set()
            watcher.join()
        _report([problem for problem in problems if problem], len(shares))


def _report(problems: list[UserError], shares: int) -> None:
    """Raises a problem of the shares. Silence is one only where all of them met it: an answer shows that somebody is there."""
    for problem in problems:
        if not isinstance(problem, pool.SilenceError):
            raise problem
    if problems and len(problems) == shares:
        raise problems[0]


@contextlib.contextmanager
def _progress(total: int, counts: Counter[str], console: Console) -> Iterator[Callable[[], None]]:
    """Yields refresh(), which shows the counts: photos, their rate, the time that is left, and failures by kind."""
    with progress.bar(console, "{task.fields[rate]}", "{task.fields[failures]}") as bar:
        task = bar.add_task("Fetching photos", total=total, rate="", failures="")

        def refresh() -> None:
            done = sum(counts[status] for status in STATUSES)
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{done / elapsed:.1f} photos/s, {counts['bytes'] / elapsed / 1e6:.1f} MB/s" if elapsed > 0.5 else ""
            failures = ", ".join(f"{counts[status]} {status}" for status in STATUSES[1:] if counts[status])
            bar.update(task, completed=done, rate=rate, failures=failures)

        yield refresh
        refresh()


def _watch(folder: Path, counts: Counter[str], refresh: Callable[[], None], over: threading.Event) -> None:
    """Follows the journals of other processes for the progress bar."""
    while not over.wait(1.0):
        records = [entry for entry in read_journals(folder) if "image_id" in entry]
        counts.clear()
        counts.update(entry["status"] for entry in records)
        counts["bytes"] = sum(entry["bytes"] for entry in records)
        refresh()


def _write_attribution(folder: Path, selection: Selection, ledger: Ledger) -> None:
    good = ledger.records[ledger.records["status"] == "ok"].drop_duplicates("image_id", keep="last")
    paths = dict(zip(good["image_id"], good["file"], strict=True))
    smaller = {
        "mirror": "none; the copy of Open Images' mirror, longest side 1,024 px",
        "thumbnail": "none; Flickr's copy of 300,000 pixels",
    }
    changes = {image_id: smaller.get(source, "none") for image_id, source in zip(good["image_id"], good["source"], strict=True)}
    attribution.write(folder, selection.images, changes, paths)
