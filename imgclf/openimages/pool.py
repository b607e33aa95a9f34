"""A share of a download: one process, with a pool of threads and a journal of its own."""

import dataclasses
import queue
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from imgclf.errors import UserError
from imgclf.openimages import transport
from imgclf.openimages.jobs import RATES, DownloadOptions, History, Job, jobs_of
from imgclf.openimages.ledger import open_journal
from imgclf.openimages.photo import DiskError, Fetcher
from imgclf.openimages.rates import HostRates
from imgclf.openimages.selection import check_ids

GIVE_UP = 10  # photos in a row that nobody answers, with no answer before them


class SilenceError(UserError):
    """Nobody answered: the network or the mirror is down, or all URLs that are left are bad ones."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process fetches.

    Attributes:
      folder: of the selection.
      images: the share's rows of the selection's images.
      history: what is known of their URLs.
      options: of the download; `workers` are this share's own.
      base_url: where the selection's metadata came from: private addresses are allowed where it is one.
      name: of the journal.
    """

    folder: Path
    images: pd.DataFrame
    history: History
    options: DownloadOptions
    base_url: str
    name: str


def fetch_apart(share: Share) -> UserError | None:
    """Fetches a share in another process or on another machine; a problem is returned, since it has to travel."""
    try:
        fetch(share, Counter(), lambda: None)
    except UserError as error:
        return error
    except DiskError as error:
        return UserError(disk_is_full(error))
    return None


def disk_is_full(error: DiskError) -> str:
    """Returns what the user is told where nothing more can be written."""
    return f"{error}: make room and give the same command again; what was fetched is kept."


def fetch(share: Share, counts: Counter[str], refresh: Callable[[], None]) -> None:
    """Fetches a share.

    Args:
      counts: is brought up to date: status → number of URLs, and "bytes".
      refresh: called after each photo.

    Raises:
      SilenceError: if nobody answers.
      DiskError: if a file can't be written.
    """
    check_ids(share.images["image_id"], str(share.folder))
    pool = _Pool(share, counts, refresh)
    try:
        pool.run()
    finally:
        pool.journal.close()
    if pool.problems:
        raise pool.problems[0]


class _Pool:
    """The threads of a share, and what they have in common."""

    def __init__(self, share: Share, counts: Counter[str], refresh: Callable[[], None]):
        self.problems: list[BaseException] = []  # the first one is reported
        self._share, self._counts, self._refresh = share, counts, refresh
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._waiting: queue.Queue[Job | None] = queue.Queue(maxsize=2 * share.options.workers)  # None ends one thread
        self._rates = _rates(share.options)
        # The user's own addresses may lie in a private network, such as a mirror in the laboratory.
        self._private = {
            source: transport.leads_to_private(share.options.mirror_url if source == "mirror" else share.base_url)
            for source in share.options.sources
        }
        self._silent = self._heard = 0  # URLs without an answer, and with one
        self.journal = open_journal(share.folder, share.name)

    def run(self) -> None:
        """Hands the photos to the threads and waits for them."""
        threads = [
            threading.Thread(target=self._work, name=f"download-{number}", daemon=True) for number in range(self._share.options.workers)
        ]
        try:
            for thread in threads:
                thread.start()
            for job in jobs_of(self._share.images, self._share.options, self._share.history):
                if self._stop.is_set():
                    break
                self._waiting.put(job)
        except BaseException:  # such as Ctrl-C: what is under way is dropped
            self._stop.set()
            raise
        finally:
            self._join(threads)

    def _join(self, threads: list[threading.Thread]) -> None:
        try:
            for _ in threads:
                self._waiting.put(None)
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C while the last photos are under way
            self._stop.set()
            for thread in threads:
                thread.join()
            raise

    def _work(self) -> None:
        """Fetches one photo after another until there is none left."""
        sessions: dict[bool, requests.Session] = {}

        def session_for(source: str) -> requests.Session:
            private = self._private[source]
            if private not in sessions:
                sessions[private] = transport.create_session(allow_private=private)
            return sessions[private]

        fetcher = Fetcher(self._share.folder, self._share.options.fetch, self._rates, session_for, self._note, self._stop)
        try:
            while (job := self._waiting.get()) is not None:
                if not self._stop.is_set():
                    fetcher.fetch(job)
                    self._refresh()
        except BaseException as error:  # the main thread reports it
            self.problems.append(error)
            self._stop.set()
            while self._waiting.get() is not None:
                pass
        finally:
            for session in sessions.values():
                session.close()

    def _note(self, entry: dict[str, Any]) -> None:
        """Writes an entry to the journal, counts it, and stops the run where nobody answers."""
        try:
            self.journal.append(entry)
        except OSError as error:
            raise DiskError(self._share.folder, error) from error
        if "started" in entry:
            return
        with self._lock:
            self._counts[entry["status"]] += 1
            self._counts["bytes"] += entry["bytes"]
            if entry["status"] in ("transient", "abandoned") and not entry["http_status"]:
                self._silent += 1
            else:
                self._heard += 1
            if not self._heard and self._silent >= min(GIVE_UP, len(self._share.images)):
                self.problems.append(
                    SilenceError(f"{entry['url']} can't be reached ({entry['detail']}): check the network and the mirror's URL.")
                )
                self._stop.set()


def _rates(options: DownloadOptions) -> dict[str, HostRates]:
    """Returns source → limits, this process's share of them; Flickr's two sources have theirs in common."""
    chosen = {source: (rate if options.rate is None else options.rate) / options.jobs for source, rate in RATES.items()}
    flickr = HostRates(chosen["original"])
    return {"mirror": HostRates(chosen["mirror"]), "original": flickr, "thumbnail": flickr}
