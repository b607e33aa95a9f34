"""Fetches the photos of a selection: each once, politely, and so that a crash at any moment costs nothing that had arrived."""

import contextlib
import dataclasses
import fcntl
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import requests
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from imgclf.errors import UserError, nearest
from imgclf.openimages import attribution, photo, releases, transport
from imgclf.openimages.ledger import FINAL, STATUSES, Journal, Ledger, read_journals
from imgclf.openimages.photo import DiskError, Fetcher, Job, Manners
from imgclf.openimages.rates import HostRates
from imgclf.openimages.selection import Selection, check_ids, load_selection
from imgclf.runtime import parallel

SOURCES = ("mirror", "original", "thumbnail")
ENGINES = ("threads", "processes", "ray")
RATES = {"mirror": 200.0, "original": 5.0, "thumbnail": 5.0}  # requests per second and host, where the user names none
_GIVE_UP = 10  # photos in a row that nobody answers, and none before


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where photos come from, and how they are fetched.

    Attributes:
      sources: in order of choice, of mirror (longest side 1,024 px), original (Flickr), thumbnail (300,000 pixels, Flickr).
      mirror_url: of the mirror; photos lie at SPLIT/ID.jpg below it.
      workers: photos under way at once, over all jobs.
      rate: requests per second and host, over all jobs; None = RATES.
      jobs: processes that share the work; engine: threads of this process, processes (joblib's), or ray (a Ray cluster's).
      manners: timeouts and limits.
    """

    sources: Sequence[str] = ("mirror",)
    mirror_url: str = releases.MIRROR_URL
    workers: int = 16
    rate: float | None = None
    jobs: int = 1
    engine: str = "threads"
    manners: Manners = dataclasses.field(default_factory=Manners)


def download(folder: Path, plan: Plan | None = None, console: Console | None = None) -> pd.DataFrame:
    """Fetches what the selection in `folder` lacks, into `folder`/photos/; what differs from its metadata goes to `folder`/changed/.

    Photos are named by their id. Every URL ends in `folder`/downloads.parquet, see `ledger`; what is final there is not asked for again.
    Writes ATTRIBUTION.csv for the photos that are there.

    Returns:
      A row per image: image_id, status (see `ledger.STATUSES`).

    Raises:
      UserError: without a selection, with a full disk, or when nobody answers; what was fetched is kept.
    """
    plan = plan or Plan()
    console = console or Console(quiet=True)
    _check(plan)
    selection = load_selection(folder)
    with _claim(folder):
        try:
            _recover(folder, plan, selection, Ledger(folder))
            ledger = Ledger(folder)
            ledger.compact()
            todo, answered = _todo(selection, plan, ledger)
            if len(todo):
                _fetch_all(folder, todo, answered, plan, selection.request["base_url"], console)
        except DiskError as error:
            raise UserError(_disk_is_full(error)) from None
        finally:
            ledger = Ledger(folder)
            with contextlib.suppress(OSError):  # of a full disk, which is told already: the journals hold all
                ledger.compact()
        status = ledger.status().reindex(selection.images["image_id"]).fillna("transient")
        _write_attribution(folder, selection, ledger)
    return status.rename("status").rename_axis("image_id").reset_index()


def _check(plan: Plan) -> None:
    for source in plan.sources:
        if source not in SOURCES:
            raise UserError(f"--source={source!r} is unknown; {nearest(source, SOURCES)}")
    if plan.engine not in ENGINES:
        raise UserError(f"--engine={plan.engine!r} is unknown; {nearest(plan.engine, ENGINES)}")
    transport.check_url(plan.mirror_url, "--mirror-url")
    for name, value in (
        ("workers", plan.workers),
        ("jobs", plan.jobs),
        ("timeout", plan.manners.timeout),
        ("max-bytes", plan.manners.max_bytes),
    ):
        if value <= 0:
            raise UserError(f"--{name}={value} must be greater than 0.")


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[None]:
    try:
        lock = (folder / ".download.lock").open("w")
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}); choose another folder.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another download is running in {folder}; wait for it, or choose another folder.") from None
        yield


def _disk_is_full(error: DiskError) -> str:
    return f"{error}: make room and give the same command again; what was fetched is kept."


def _jobs(images: pd.DataFrame, plan: Plan, answered: frozenset[str] = frozenset()) -> Iterator[Job]:
    """The photos with those of their URLs that have not been answered for good."""
    mirror = transport.check_url(plan.mirror_url, "--mirror-url")
    columns = ["image_id", "split", "original_url", "thumbnail_url", "original_size", "original_md5"]
    for image_id, split, original, thumbnail, size, md5 in images[columns].fillna("").itertuples(index=False):
        places = {"mirror": f"{mirror}{split}/{image_id}.jpg", "original": original, "thumbnail": thumbnail}
        urls = tuple((source, places[source]) for source in plan.sources if places[source] and places[source] not in answered)
        yield Job(image_id, split, urls, int(size), md5)


def _todo(selection: Selection, plan: Plan, ledger: Ledger) -> tuple[pd.DataFrame, frozenset[str]]:
    """The images that are not there and have a URL left to ask; and those of their URLs that are answered for good."""
    records = ledger.records
    images = selection.images[~selection.images["image_id"].isin(set(records.loc[records["status"] == "ok", "image_id"]))]
    final = records["status"].isin(list(FINAL)) & records["image_id"].isin(set(images["image_id"]))
    answered = frozenset(records.loc[final, "url"])
    left = [bool(job.urls) for job in _jobs(images, plan, answered)]
    return images[left].reset_index(drop=True), answered


def _recover(folder: Path, plan: Plan, selection: Selection, ledger: Ledger) -> None:
    """Finishes what a killed process left: whole `.part` files get their record and name, others go."""
    named = ledger.records[ledger.records["file"] != ""].to_dict("records")
    known = {record["image_id"] for record in named}
    lost = {record["image_id"]: record for record in named if not (folder / record["file"]).exists()}
    parts = {path.name.removesuffix(".jpg.part"): path for path in folder.glob("photos/??/*.jpg.part")}
    there = {path.stem for path in folder.glob("photos/??/*.jpg")}
    stray = there - known  # a power failure took the journal's last lines
    jobs = {job.image_id: job for job in _jobs(selection.images[selection.images["image_id"].isin(set(parts) | stray)], plan)}
    journal = Journal(folder, "recovered")
    try:
        for image_id, part in parts.items():
            record, start = lost.get(image_id), ledger.started.get(image_id)
            if record and part.stat().st_size == record["bytes"]:  # killed between record and name
                del lost[image_id]
                target = folder / record["file"]
                target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
            elif start and image_id in jobs and start["length"] == part.stat().st_size:
                job = jobs[image_id]
                photo.conclude(job, photo.judge(job, start, folder, plan.manners), folder, journal.append)
            else:
                part.unlink()
        for image_id in stray & set(jobs):
            job = jobs[image_id]
            target = folder / job.file()
            target.rename(target.with_name(target.name + ".part"))
            source, url = job.urls[0] if job.urls else ("", "")
            start = ledger.started.get(image_id) or {"source": source, "url": url, "tries": 1, "http_status": 0, "final_url": url}
            photo.conclude(job, photo.judge(job, start, folder, plan.manners), folder, journal.append)
        for record in lost.values():  # deleted by somebody: to be fetched again
            journal.append({**record, "status": "transient", "detail": "the file is gone", "file": ""})
    finally:
        journal.close()


def _fetch_all(folder: Path, todo: pd.DataFrame, answered: frozenset[str], plan: Plan, base_url: str, console: Console) -> None:
    counts: Counter = Counter()
    with _progress(len(todo), counts, console) as refresh:
        if plan.engine == "threads" and plan.jobs == 1:
            _fetch_part(folder, todo, answered, plan, base_url, "0", counts, refresh)
            return
        shares = dataclasses.replace(plan, workers=max(1, plan.workers // plan.jobs))
        parts = [(todo.iloc[number :: plan.jobs].reset_index(drop=True), str(number)) for number in range(plan.jobs)]
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(folder, counts, refresh, over), daemon=True)
        watcher.start()
        try:
            with parallel.backend(plan.engine, plan.jobs):
                problems = Parallel()(delayed(_fetch_part_apart)(folder, part, answered, shares, base_url, name) for part, name in parts)
        finally:
            over.set()
            watcher.join()
        for problem in filter(None, problems):
            raise UserError(problem)


def _fetch_part_apart(folder: Path, images: pd.DataFrame, answered: frozenset[str], plan: Plan, base_url: str, name: str) -> str:
    """`_fetch_part` in another process or on another machine; an error comes back as its sentence."""
    try:
        _fetch_part(folder, images, answered, plan, base_url, name, Counter(), lambda: None)
    except UserError as error:
        return str(error)
    except DiskError as error:
        return _disk_is_full(error)
    return ""


def _fetch_part(
    folder: Path,
    images: pd.DataFrame,
    answered: frozenset[str],
    plan: Plan,
    base_url: str,
    name: str,
    counts: Counter,
    refresh: Callable[[], None],
) -> None:
    """Fetches a share of the photos with a pool of threads and a journal of its own."""
    stop, lock = threading.Event(), threading.Lock()
    problems: list[BaseException] = []
    rates = _rates(plan)
    check_ids(images["image_id"], str(folder))
    waiting: queue.Queue = queue.Queue(maxsize=2 * plan.workers)
    private = {source: transport.leads_to_private(plan.mirror_url if source == "mirror" else base_url) for source in plan.sources}
    silent = heard = 0
    journal = Journal(folder, name)

    def note(entry: dict[str, Any]) -> None:
        nonlocal silent, heard
        try:
            journal.append(entry)
        except OSError as error:
            raise DiskError(f"{folder} can't be written ({error.strerror or error})") from error
        if "started" in entry:
            return
        with lock:
            counts[entry["status"]] += 1
            counts["bytes"] += entry["bytes"]
            if entry["status"] == "transient" and not entry["http_status"]:
                silent += 1
            else:
                heard += 1
            if not heard and silent >= min(_GIVE_UP, len(images)):
                problems.append(UserError(f"{entry['url']} can't be reached ({entry['detail']}): check the network and the mirror's URL."))
                stop.set()

    def work() -> None:
        sessions: dict[bool, requests.Session] = {}

        def session_for(source: str) -> requests.Session:
            guarded = not private[source]
            if guarded not in sessions:
                sessions[guarded] = transport.create_session(allow_private=not guarded)
            return sessions[guarded]

        fetcher = Fetcher(folder, plan.manners, rates, session_for, note, stop)
        try:
            while (job := waiting.get()) is not None:
                if not stop.is_set():
                    fetcher.fetch(job)
                    refresh()
        except BaseException as error:  # reported by the main thread
            problems.append(error)
            stop.set()
            while waiting.get() is not None:
                pass
        finally:
            for session in sessions.values():
                session.close()

    threads = [threading.Thread(target=work, name=f"download-{number}", daemon=True) for number in range(plan.workers)]
    try:
        for thread in threads:
            thread.start()
        for job in _jobs(images, plan, answered):
            if stop.is_set():
                break
            waiting.put(job)
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
    except BaseException:  # such as Ctrl-C: what is under way is dropped, and the threads end
        stop.set()
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
        raise
    finally:
        journal.close()
    if problems:
        raise problems[0]


def _rates(plan: Plan) -> dict[str, HostRates]:
    """Source → limits, this job's share of them; both of Flickr's sources have theirs in common."""
    chosen = {source: (rate if plan.rate is None else plan.rate) / plan.jobs for source, rate in RATES.items()}
    flickr = HostRates(chosen["original"])
    return {"mirror": HostRates(chosen["mirror"]), "original": flickr, "thumbnail": flickr}


@contextlib.contextmanager
def _progress(total: int, counts: Counter, console: Console) -> Iterator:
    """Yields refresh(), which shows the counts: photos, rate, ETA, and failures by kind."""
    progress = Progress(
        TextColumn("Fetching photos"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failures]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = progress.add_task("", total=total, rate="", failures="")

    def refresh() -> None:
        done = sum(counts[status] for status in STATUSES)
        elapsed = progress.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed:.1f} photos/s, {counts['bytes'] / elapsed / 1e6:.1f} MB/s" if elapsed > 0.5 else ""
        failures = ", ".join(f"{counts[status]} {status}" for status in STATUSES[1:] if counts[status])
        progress.update(task, completed=done, rate=rate, failures=failures)

    with progress:
        yield refresh
        refresh()


def _watch(folder: Path, counts: Counter, refresh, over: threading.Event) -> None:
    """Follows the journals of other processes for the progress bar."""
    while not over.wait(1.0):
        records = [entry for entry in read_journals(folder) if "image_id" in entry]
        counts.clear()
        counts.update(entry["status"] for entry in records)
        counts["bytes"] = sum(entry["bytes"] for entry in records)
        refresh()


def _write_attribution(folder: Path, selection: Selection, ledger: Ledger) -> None:
    good = ledger.records[ledger.records["status"] == "ok"].drop_duplicates("image_id", keep="last")
    files = dict(zip(good["image_id"], good["file"], strict=True))
    smaller = {
        "mirror": "none; the copy of Open Images' mirror, longest side 1,024 px",
        "thumbnail": "none; Flickr's copy of 300,000 pixels",
    }
    changes = {image_id: smaller.get(source, "none") for image_id, source in zip(good["image_id"], good["source"], strict=True)}
    attribution.write(folder, selection.images, changes, files)


def summarize(status: pd.DataFrame) -> list[tuple[str, int]]:
    """Status → number of photos, in the order of `ledger.STATUSES`."""
    counts: Iterable = status["status"].value_counts().to_dict().items()
    return sorted(counts, key=lambda item: STATUSES.index(item[0]))
