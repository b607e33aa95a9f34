"""Open Images' metadata on this machine: each file is fetched once, with resume and checksum, and kept as parquet.

They lie in `cache_dir()/openimages/HOST/PATH`, PATH as in the release, so that versions that share a file share its copy.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import requests
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from imgclf.errors import UserError
from imgclf.files import cache_dir
from imgclf.openimages import releases, tables, transport

_CHUNK = 1 << 20
_TRIES = 5  # in a row without a byte of progress
SCAN_ABOVE = 256 << 20  # bytes: the first query of a CSV this large scans it, and conversion to parquet can wait
SCAN_LABELS = 16  # … if it asks for no more labels than these


class Metadata:
    """The files of a version, fetched when they are asked for.

    Attributes:
      version: "V4" … "V7"; base_url: ends with a slash; folder: where the files are kept.
    """

    def __init__(
        self,
        version: str = "V7",
        base_url: str = releases.BASE_URL,
        *,
        timeout: float = 30.0,
        console: Console | None = None,
    ):
        """Fetches nothing yet.

        Args:
          base_url: of a private mirror with the same paths; the official one by default.
          timeout: seconds to wait for a connection, and between two bytes.
          console: for the progress bar; None = none.
        """
        self.version = releases.check_version(version)
        self.base_url = transport.check_url(base_url, "base_url")
        parts = urlsplit(self.base_url)
        place = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{parts.netloc}{parts.path}".rstrip("/"))
        self.folder = cache_dir() / "openimages" / place
        self._timeout = timeout
        self._console = console or Console(quiet=True)

    def boxes(self, split: str, labels: Collection[str]) -> pa.Table:
        """The boxes with one of these labels: columns of `tables.BOXES`; ids and labels as strings.

        Raises:
          UserError: if the file can't be fetched or a line of it can't be read.
        """
        return self._select(releases.boxes_file(self.version, split), tables.BOXES, labels)

    def labels(self, split: str, labels: Collection[str], *, boxable: bool) -> pa.Table:
        """The human-verified image-level labels among these: columns of `tables.LABELS`; Confidence 1 = there, 0 = not there."""
        return self._select(releases.labels_file(self.version, split, boxable), tables.LABELS, labels)

    def images(self, split: str, ids: Collection[str], *, boxable: bool) -> pa.Table:
        """The image list's rows of these ids: columns of `tables.IMAGES`."""
        return tables.query(self._parquet(releases.images_file(split, boxable), tables.IMAGES), "ImageID", ids)

    def box_counts(self, split: str) -> dict[str, int]:
        """Label → number of boxes in a split."""
        return tables.count(self._parquet(releases.boxes_file(self.version, split), tables.BOXES))

    def has_boxes(self, split: str) -> bool:
        """Whether the boxes of a split are on this machine already."""
        path = self._path(releases.boxes_file(self.version, split))
        return path.exists() or path.with_suffix(".parquet").exists()

    def text(self, name: str) -> Path:
        """A small file as it is: class names, hierarchy."""
        with self._claim(name):
            return self._fetched(name)

    def keep(self) -> None:
        """Converts what has been scanned only, so that later queries read parquet; the CSVs are deleted."""
        for path in sorted(self.folder.rglob("*-annotations-*.csv")):
            self._parquet(str(path.relative_to(self.folder)), tables.LABELS if "imagelabels" in path.name else tables.BOXES)

    def _select(self, name: str, schema: tables.Schema, labels: Collection[str]) -> pa.Table:
        with self._claim(name):
            if not self._path(name).with_suffix(".parquet").exists():
                path = self._fetched(name)
                if path.stat().st_size > SCAN_ABOVE and len(labels) <= SCAN_LABELS:
                    return tables.scan(path, schema, labels)
        return tables.query(self._parquet(name, schema), "LabelName", labels)

    def _path(self, name: str) -> Path:
        return self.folder / name

    @contextlib.contextmanager
    def _claim(self, name: str) -> Iterator[None]:
        """Keeps other processes from fetching or converting the same file meanwhile."""
        lock = self._path(name + ".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with lock.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise UserError(
                f"{lock.parent} can't be written ({error.strerror or error}): make room, or set IMGCLF_CACHE to another disk; "
                "what is fetched already is kept and continued."
            ) from None

    def _parquet(self, name: str, schema: tables.Schema) -> Path:
        target = self._path(name).with_suffix(".parquet")
        with self._claim(name):
            if not target.exists():
                path = self._fetched(name)
                with self._bar() as bar:
                    task = bar.add_task(f"Converting {path.name}", total=path.stat().st_size)
                    tables.convert(path, target, schema, lambda count: bar.advance(task, count))
                path.unlink()
        return target

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def _fetched(self, name: str) -> Path:
        """The file, fetched if it is not there yet; what an interruption left is continued."""
        path = self._path(name)
        if not path.exists():
            with transport.create_session(allow_private=transport.leads_to_private(self.base_url)) as session, self._bar() as bar:
                _download(session, self.base_url + name, path, self._timeout, bar)
        return path


def _download(session: requests.Session, url: str, path: Path, timeout: float, bar: Progress) -> None:
    """Fetches `url` into `path`, by way of `path`.part and, beside it, the ETag that tells whether it is still the same file."""
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    task = bar.add_task(f"Fetching {path.name}", total=None)
    idle = damaged = 0
    while True:
        have = part.stat().st_size if part.exists() and note.exists() else 0
        known = json.loads(note.read_text()) if have else {}
        headers = {"Range": f"bytes={have}-", "If-Range": known["validator"]} if have and known.get("validator") else {}
        try:
            with transport.get(session, url, timeout=timeout, headers=headers) as response:
                if _is_busy(response):
                    wait = transport.retry_after(response) or transport.backoff(idle)
                    raise _BusyError(f"it answers {response.status_code}", wait)
                if response.status_code == 416:  # nothing is left to send, or the file shrank
                    if known.get("length") != have:
                        part.unlink()
                        continue
                elif response.status_code in (200, 206):
                    have, known = _receive(response, part, note, have, lambda done, total: bar.update(task, completed=done, total=total))
                else:
                    raise UserError(f"{url} answers {response.status_code} {response.reason or ''}: check version, split and base URL.")
            if known["length"] is not None and have != known["length"]:
                raise requests.ConnectionError(f"the connection ended after {have:,} of {known['length']:,} bytes")
        except transport.ForbiddenAddressError as error:
            raise UserError(f"{url} leads where it must not ({error}): check the base URL.") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, _BusyError) as error:
            now = part.stat().st_size if part.exists() else 0
            idle = 0 if now > have else idle + 1
            if idle >= _TRIES or (idle and isinstance(error, requests.ConnectionError) and not now):
                kept = f"; {now:,} bytes are kept, and the same command continues there" if now else ""
                raise UserError(f"{url} can't be fetched: {transport.reason(error)}{kept}. Check the network and the base URL.") from None
            time.sleep(error.wait if isinstance(error, _BusyError) else transport.backoff(idle))
            continue
        if known["md5"] is None or _md5(part) == known["md5"]:
            break
        part.unlink()
        damaged += 1
        if damaged == 2:
            raise UserError(f"{url} arrives damaged (its MD5 is not {known['md5']}), twice: try again later, or another base URL.")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    note.unlink()


class _BusyError(Exception):
    def __init__(self, text: str, wait: float):
        super().__init__(text)
        self.wait = min(wait, 300.0)


def _is_busy(response: requests.Response) -> bool:
    return response.status_code in (408, 429, 500, 502, 503, 504)


def _receive(response: requests.Response, part: Path, note: Path, have: int, update) -> tuple[int, dict]:
    """Appends (206) or writes (200) the body; returns the size of the file and what is known of the whole."""
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        known = json.loads(note.read_text()) | {"length": int(total) if total.isdigit() else None}
    else:
        have = 0
        length = response.headers.get("Content-Length", "")
        known = {"length": int(length) if length.isdigit() else None, "md5": _announced_md5(response)}
        # A weak ETag says "about the same", which is not enough to join two halves.
        etag = response.headers.get("ETag", "")
        known["validator"] = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        part.unlink(missing_ok=True)
        note.write_text(json.dumps(known))
    with part.open("ab") as file:
        # Not iter_content: it loses the last piece when the connection ends within it.
        while chunk := response.raw.read1(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            update(have, known["length"])
    return have, known


def _announced_md5(response: requests.Response) -> str | None:
    """The MD5 in hexadecimal where the server states it: Google's x-goog-hash, Content-MD5, or S3's ETag of a plain upload."""
    stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", response.headers.get("x-goog-hash", ""))
    text = stated[1] if stated else response.headers.get("Content-MD5", "")
    if re.fullmatch(r"[A-Za-z0-9+/]{22}==", text):
        return base64.b64decode(text).hex()
    etag = response.headers.get("ETag", "").strip('"')
    return etag if "x-amz-request-id" in response.headers and re.fullmatch(r"[0-9a-f]{32}", etag) else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
