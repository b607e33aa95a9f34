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

from imgclf.data import images
from imgclf.openimages import transport
from imgclf.openimages.rates import HostRates

_CHUNK = 64 << 10
_NOTHING_THERE = (404, 410)
_LATER = (408, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 300.0  # seconds; who asks for more is asked again in the next run
_PLACEHOLDER_NAME = re.compile(r"photo_unavailable|image_?not_?found", re.IGNORECASE)
# SHA-256 of pictures that stand for missing photos. Flickr's own are known by their names.
_PLACEHOLDERS = {"6b4966252973c581b521f804453c6a0649ea6a2ce7e3e5c7deeb7d80623de231": "imageNotFound.gif"}
_ROBOTS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_decoding = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))  # photos in memory at once


@dataclasses.dataclass(frozen=True)
class Job:
    """A photo to fetch. urls: (source, URL) in order of choice; size in bytes and md5 (base64) are the original's, 0 and "" = unknown."""

    image_id: str
    split: str
    urls: tuple[tuple[str, str], ...]
    size: int = 0
    md5: str = ""

    def file(self, kind: str = "photos") -> str:
        """Path below the folder: 256 folders, so that a million photos can be listed."""
        return f"{kind}/{self.image_id[:2]}/{self.image_id}.jpg"


@dataclasses.dataclass(frozen=True)
class Manners:
    """How photos are fetched.

    Attributes:
      timeout: seconds to wait for a connection, and between two bytes.
      max_bytes: larger files are not kept; max_pixels: nor photos with more pixels.
      tries: of a URL within a run, where another try can help.
      heed_robots: photos that their server marks X-Robots-Tag noai, noimageai, noindex or noimageindex are not kept.
    """

    timeout: float = 30.0
    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    tries: int = 4
    heed_robots: bool = True


class DiskError(Exception):
    """A photo or the journal can't be written: nothing more should be fetched."""


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
      rates: source → its limits.
      session_for: source → this thread's session.
      note: takes the journal's entries.
      stop: set when the run is to end; the photo under way is then left as it is.
    """

    folder: Path
    manners: Manners
    rates: Mapping[str, HostRates]
    session_for: Callable[[str], requests.Session]
    note: Callable[[dict[str, Any]], None]
    stop: threading.Event

    def fetch(self, job: Job) -> None:
        """Fetches a photo from the first of its URLs that gives it; each URL tried ends in one record for `note`.

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
        rates = self.rates[source]
        later = _Later("not tried")
        for attempt in range(self.manners.tries):
            rates.acquire(url, self.stop)
            if self.stop.is_set():
                return None
            try:
                return self._attempt(job, source, url, attempt + 1)
            except _Later as error:
                later = error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                later = _Later(transport.reason(error))
            except transport.ForbiddenAddressError as error:
                return _record(job, source, url, "refused", attempt + 1, detail=str(error))
            if self.stop.is_set():
                return None
            if later.wait is not None and later.wait > _LONGEST_WAIT:
                break
            if attempt + 1 < self.manners.tries:
                if later.wait is not None or later.http_status in (429, 503):  # the host speaks for itself: nobody asks it meanwhile
                    rates.pause(url, (later.wait or 0.0) + transport.backoff(attempt))
                else:
                    self.stop.wait(transport.backoff(attempt))
        return _record(job, source, url, "transient", attempt + 1, detail=str(later), http_status=later.http_status)

    def _attempt(self, job: Job, source: str, url: str, number: int) -> dict[str, Any] | None:
        """One request; returns its record, None where the run is being stopped."""
        with transport.get(self.session_for(source), url, timeout=self.manners.timeout) as response:
            code, final = response.status_code, response.url
            answer = f"{code} {response.reason or ''}".strip()
            known = {"http_status": code, "final_url": final}
            if code in _LATER:
                raise _Later(answer, transport.retry_after(response), code)
            if code in _NOTHING_THERE:
                return _record(job, source, url, "dead", number, detail=answer, **known)
            if code in (401, 403):  # a ban is no death: asked again in another run
                return _record(job, source, url, "transient", number, detail=answer, **known)
            if code != 200:
                return _record(job, source, url, "dead", number, detail=answer, **known)
            if _PLACEHOLDER_NAME.search(os.path.basename(urlsplit(final).path)):
                return _record(job, source, url, "dead", number, detail="redirected to a placeholder", **known)
            if self.manners.heed_robots and (directive := forbidden_by_robots(response)):
                return _record(job, source, url, "refused", number, detail=f"X-Robots-Tag: {directive}", **known)
            length = response.headers.get("Content-Length", "")
            announced = int(length) if length.isdigit() else None
            if announced is not None and announced > self.manners.max_bytes:
                return _record(job, source, url, "too_big", number, detail=f"{announced:,} bytes", **known)
            part = self.folder / (job.file() + ".part")
            start = {"started": job.image_id, "source": source, "url": url, "length": announced, "tries": number, **known}
            try:
                part.parent.mkdir(parents=True, exist_ok=True)
                with part.open("wb", buffering=0) as file:
                    self.note(start)
                    size = 0
                    while chunk := response.raw.read1(_CHUNK):
                        if self.stop.is_set():
                            return None
                        size += len(chunk)
                        if size > self.manners.max_bytes:
                            break
                        if file.write(chunk) < len(chunk):
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
            except urllib3.exceptions.HTTPError as error:
                raise _Later(transport.reason(error), http_status=code) from error
            except OSError as error:
                part.unlink(missing_ok=True)
                raise DiskError(f"{part.parent} can't be written ({error.strerror or error})") from error
        if size > self.manners.max_bytes:
            return _record(job, source, url, "too_big", number, detail=f"more than {self.manners.max_bytes:,} bytes", **known)
        if announced is not None and size != announced:
            raise _Later(f"the connection ended after {size:,} of {announced:,} bytes", http_status=code)
        return judge(job, start, self.folder, self.manners)


def conclude(job: Job, record: dict[str, Any], folder: Path, note: Callable[[dict[str, Any]], None]) -> None:
    """Notes the record, then gives the photo its name, or deletes what arrived."""
    part = folder / (job.file() + ".part")
    try:
        if record["file"]:
            target = folder / record["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
        note(record)
        if record["file"]:
            os.replace(part, target)
        else:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"{folder} can't be written ({error.strerror or error})") from error


def judge(job: Job, start: dict[str, Any], folder: Path, manners: Manners) -> dict[str, Any]:
    """Looks at a whole `.part`: is it a photo, and the one that was asked for? Returns its record.

    Args:
      start: the "started" entry of its download.
    """
    with _decoding:
        data = (folder / (job.file() + ".part")).read_bytes()
        found = images.inspect(data, manners.max_pixels)
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
    """The directive by which X-Robots-Tag asks not to use the image, or ""; directives for other robots by name don't count.

    As in img2dataset; grammar: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag#xrobotstag
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


def _record(job: Job, source: str, url: str, status: str, tries: int, **facts) -> dict[str, Any]:
    empty = {"final_url": "", "http_status": 0, "detail": "", "bytes": 0, "sha256": "", "width": 0, "height": 0, "file": ""}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    names = {"image_id": job.image_id, "split": job.split, "source": source, "url": url, "status": status, "tries": tries, "time": now}
    return names | empty | facts
