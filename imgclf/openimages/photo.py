"""One photo: from its URLs to a verified file, or to the reason why there is none."""

import base64
import dataclasses
import datetime
import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from imgclf import files
from imgclf.data import images
from imgclf.openimages import transport
from imgclf.openimages.jobs import FetchOptions, Job
from imgclf.openimages.rates import HostRates
from imgclf.remote import retrying

_CHUNK = 64 << 10
_PLACEHOLDER_NAME = re.compile(r"photo_unavailable|image_?not_?found", re.IGNORECASE)
# The SHA-256 of pictures that stand for missing photos. Flickr's own are recognised by their names.
_PLACEHOLDERS = {"6b4966252973c581b521f804453c6a0649ea6a2ce7e3e5c7deeb7d80623de231": "imageNotFound.gif"}
_ROBOTS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_decoding = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))  # so many photos are in memory at once


class DiskError(Exception):
    """A photo or the journal can't be written, so that nothing more should be fetched."""

    def __init__(self, place: Path, error: OSError):
        super().__init__(f"{place} can't be written ({error.strerror or error})")


class _Later(Exception):
    """Another try may help, after `wait` seconds."""

    def __init__(self, detail: str, wait: float | None = None, http_status: int = 0):
        super().__init__(detail)
        self.wait = wait
        self.http_status = http_status


@dataclasses.dataclass(frozen=True)
class Fetcher:
    """Fetches photos into a folder; one for each thread.

    Attributes:
      options: how photos are fetched.
      rates: source → its limits.
      session_for: source → this thread's session.
      note: takes the journal's entries.
      stop: is set when the run is to end; the photo under way is then left as it is.
    """

    folder: Path
    options: FetchOptions
    rates: Mapping[str, HostRates]
    session_for: Callable[[str], requests.Session]
    note: Callable[[dict[str, Any]], None]
    stop: threading.Event

    def fetch(self, job: Job) -> None:
        """Fetches a photo from the first of its URLs that gives it; each URL that is tried ends in one record for `note`.

        Raises:
          DiskError: if a file can't be written.
        """
        for source, url in job.urls:
            record = self._fetch_url(job, source, url)
            if record is None:  # stopped
                return
            conclude(job, record, self.folder, self.note)
            if record["status"] == "ok":
                return

    def _fetch_url(self, job: Job, source: str, url: str) -> dict[str, Any] | None:
        """Tries a URL as often as it may be; returns its record, or None where the run is being stopped."""
        rates = self.rates[source]
        retry = retrying.retries(self.options.tries)
        tries = 0
        while True:
            rates.acquire(url, self.stop)
            if self.stop.is_set():
                return None
            tries += 1
            try:
                return self._attempt(job, source, url, tries)
            except _Later as error:
                later = error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                later = _Later(transport.reason(error))
            except transport.ForbiddenAddressError as error:
                return _record(job, source, url, "refused", tries, detail=str(error))
            if self.stop.is_set():
                return None
            try:
                retry = retry.increment("GET", url)
            except urllib3.exceptions.MaxRetryError:
                break
            if later.wait is not None and later.wait > transport.LONGEST_WAIT:
                break
            if later.wait is not None or later.http_status in (429, 503):  # this concerns the host, and nobody asks it meanwhile
                rates.pause(url, (later.wait or 0.0) + retry.get_backoff_time())
            else:
                self.stop.wait(retry.get_backoff_time())
        return self._failed(job, source, url, tries, detail=str(later), http_status=later.http_status)

    def _failed(self, job: Job, source: str, url: str, tries: int, **facts: str | int) -> dict[str, Any]:
        """Returns the record of a URL that failed for the moment; in the last run that it has, it is abandoned."""
        runs = job.runs.get(url, 0) + 1
        return _record(job, source, url, "transient" if runs < self.options.runs else "abandoned", tries, runs=runs, **facts)

    def _attempt(self, job: Job, source: str, url: str, number: int) -> dict[str, Any] | None:
        """Makes one request; returns the record of the URL, or None where the run is being stopped.

        Raises:
          _Later: where another try may help.
        """
        with transport.get(self.session_for(source), url, timeout=self.options.timeout) as response:
            known: dict[str, Any] = {"http_status": response.status_code, "final_url": response.url}
            if record := self._judge_headers(job, source, url, number, response):
                return record | known
            length = response.headers.get("Content-Length", "")
            start: dict[str, Any] = {"started": job.image_id, "source": source, "url": url, "tries": number, **known}
            start["length"] = int(length) if length.isdigit() else None
            size = self._receive(response, files.part_of(self.folder / job.file()), start)
        if size is None:
            return None
        if size > self.options.max_bytes:
            return _record(job, source, url, "too_big", number, detail=f"more than {self.options.max_bytes:,} bytes", **known)
        if start["length"] is not None and size != start["length"]:
            raise _Later(f"the connection ended after {size:,} of {start['length']:,} bytes", http_status=known["http_status"])
        return judge(job, start, self.folder, self.options)

    def _judge_headers(self, job: Job, source: str, url: str, number: int, response: requests.Response) -> dict[str, Any] | None:
        """Returns the record of an answer whose body is not worth reading; None for one that may be the photo."""
        code = response.status_code
        answer = f"{code} {response.reason or ''}".strip()
        if code in retrying.BUSY:
            raise _Later(answer, transport.retry_after(response), code)
        if code in (401, 403):  # the host may have banned us for a while: the photo is not dead, and another run asks again
            return self._failed(job, source, url, number, detail=answer)
        if code != 200:
            return _record(job, source, url, "dead", number, detail=answer)
        if _PLACEHOLDER_NAME.search(os.path.basename(urlsplit(response.url).path)):
            return _record(job, source, url, "dead", number, detail="redirected to a placeholder")
        if self.options.heed_robots and (directive := forbidden_by_robots(response)):
            return _record(job, source, url, "refused", number, detail=f"X-Robots-Tag: {directive}")
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > self.options.max_bytes:
            return _record(job, source, url, "too_big", number, detail=f"{int(length):,} bytes")
        return None

    def _receive(self, response: requests.Response, part: Path, start: dict[str, Any]) -> int | None:
        """Writes the body to `part`; returns its bytes, one piece over the limit at most, or None where the run is being stopped."""
        size = 0
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb", buffering=0) as file:
                self.note(start)
                while size <= self.options.max_bytes and (chunk := response.raw.read1(_CHUNK)):
                    if self.stop.is_set():
                        return None
                    size += len(chunk)
                    if file.write(chunk) < len(chunk):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
        except urllib3.exceptions.HTTPError as error:
            raise _Later(transport.reason(error), http_status=response.status_code) from error
        except OSError as error:
            part.unlink(missing_ok=True)
            raise DiskError(part.parent, error) from error
        return size


def conclude(job: Job, record: dict[str, Any], folder: Path, note: Callable[[dict[str, Any]], None]) -> None:
    """Notes the record, then gives the photo its name, or deletes what arrived."""
    part = files.part_of(folder / job.file())
    try:
        if record["file"]:
            target = folder / record["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
        note(record)
        if record["file"]:
            files.finish(part, target)
        else:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(folder, error) from error


def judge(job: Job, start: dict[str, Any], folder: Path, options: FetchOptions) -> dict[str, Any]:
    """Looks at a file that has arrived as a whole: is it a photo, and the one that was asked for? Returns its record.

    Args:
      start: the "started" entry of its download.
    """
    with _decoding:
        data = files.part_of(folder / job.file()).read_bytes()
        found = images.inspect(data, options.max_pixels)
        sha256, md5 = hashlib.sha256(data).hexdigest(), base64.b64encode(hashlib.md5(data).digest()).decode()
    status, detail, kind = "ok", "", "photos"
    size = len(data)
    same = not job.md5 or md5 == job.md5
    if sha256 in _PLACEHOLDERS:
        status, detail = "dead", f"the placeholder {_PLACEHOLDERS[sha256]}"
    elif start["source"] == "original" and not same and size < 20_000 and size * 20 < job.size:
        status, detail = "dead", f"{size:,} bytes instead of {job.size:,}: a placeholder"
    elif found.reason == "too_many_pixels":
        status, detail = "too_big", found.detail
    elif found.reason:
        status, detail = "not_image", f"{found.reason}: {found.detail}"
    elif start["source"] == "original" and ((job.size and size != job.size) or not same):
        status, kind = "changed", "changed"
        detail = f"{size:,} bytes instead of {job.size:,}" if job.size and size != job.size else "another MD5"
    return _record(
        job,
        start["source"],
        start["url"],
        status,
        start["tries"],
        detail=detail,
        http_status=start["http_status"],
        final_url=start["final_url"],
        bytes=size,
        sha256=sha256,
        width=found.width,
        height=found.height,
        file=job.file(kind) if status in ("ok", "changed") else "",
    )


def forbidden_by_robots(response: requests.Response) -> str:
    """Returns the directive by which X-Robots-Tag asks not to use the image, or ""; directives for other robots by name don't count.

    The directives are those that img2dataset heeds; their grammar: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag#xrobotstag
    """
    for line in response.raw.headers.getlist("X-Robots-Tag"):
        robot = ""
        for field in line.split(","):
            name, colon, rest = field.partition(":")
            if colon and name.strip().lower() not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
                robot, field = name.strip().lower(), rest
            if field.strip().lower() in _ROBOTS and robot in ("", "imgclf"):
                return field.strip().lower()
    return ""


def _record(job: Job, source: str, url: str, status: str, tries: int, **facts: str | int) -> dict[str, Any]:
    """Returns the ledger's row for a URL; facts that are not given are empty."""
    empty: dict[str, Any] = {"final_url": "", "http_status": 0, "detail": "", "runs": 0, "bytes": 0, "sha256": "", "file": ""}
    empty |= {"width": 0, "height": 0}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    names = {"image_id": job.image_id, "split": job.split, "source": source, "url": url, "status": status, "tries": tries, "time": now}
    return names | empty | facts
