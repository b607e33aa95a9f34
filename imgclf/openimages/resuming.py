"""Fetches one large file: a transfer that breaks off is continued where it stopped, and the whole is compared with its checksum."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import urllib3

from imgclf import files
from imgclf.errors import UserError
from imgclf.openimages import transport
from imgclf.remote import retrying

_CHUNK = 1 << 20
_TRIES = 5  # in a row without a byte of progress

Advance = Callable[[int, int | None], None]  # takes the bytes that are there, and the length of the whole; None = unknown


class _BusyError(Exception):
    """The server answers that it can't give the file now; it may say how many seconds to wait."""

    def __init__(self, text: str, wait: float | None):
        super().__init__(text)
        self.wait = wait


def fetch(session: requests.Session, url: str, path: Path, timeout: float, advance: Advance) -> None:
    """Fetches `url` into `path`; a process that comes after an interruption continues what it finds.

    The contents grow in `path`.part. Beside it, `path`.part.json keeps what is known of the whole: `length` in bytes, `md5`, and the
    `validator` (ETag or date) by which the server knows whether it still has the same file.

    Args:
      timeout: seconds to wait for a connection, and between two bytes.
      advance: is called as the bytes arrive.

    Raises:
      UserError: if the file can't be had; what has arrived is kept.
    """
    part = files.part_of(path)
    known = _fetch_whole(session, url, part, timeout, advance)
    if not _is_sound(part, known):
        part.unlink()
        known = _fetch_whole(session, url, part, timeout, advance)
        if not _is_sound(part, known):
            part.unlink()
            raise UserError(f"{url} arrives damaged (its MD5 is not {known['md5']}), twice: try again later, or another base URL.")
    files.finish(part, path, durable=True)
    _note_of(part).unlink()


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _have(part: Path) -> int:
    """Returns how many bytes are there that can be continued."""
    return part.stat().st_size if part.exists() and _note_of(part).exists() else 0


def _fetch_whole(session: requests.Session, url: str, part: Path, timeout: float, advance: Advance) -> dict[str, Any]:
    """Sends requests until all of the file is in `part`; returns what is known of the whole."""
    retry = retrying.retries(_TRIES)
    while True:
        before = _have(part)
        try:
            return _continue(session, url, part, timeout, advance)
        except transport.ForbiddenAddressError as error:
            raise UserError(f"{url} leads where it must not ({error}): check the base URL.") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, _BusyError) as error:
            now = part.stat().st_size if part.exists() else 0
            hopeless = not now and isinstance(error, requests.ConnectionError)  # nobody is there, and never was
            try:
                retry = retrying.retries(_TRIES) if now > before else retry.increment("GET", url)
            except urllib3.exceptions.MaxRetryError:
                hopeless = True
            if hopeless:
                kept = f"; {now:,} bytes are kept, and the same command continues there" if now else ""
                raise UserError(f"{url} can't be fetched: {transport.reason(error)}{kept}. Check the network and the base URL.") from None
            wait = error.wait if isinstance(error, _BusyError) else None
            retrying.wait(min(retry.get_backoff_time() if wait is None else wait, transport.LONGEST_WAIT))


def _continue(session: requests.Session, url: str, part: Path, timeout: float, advance: Advance) -> dict[str, Any]:
    """Sends one request for what is missing; returns what is known of the whole, all of which is then in `part`."""
    have = _have(part)
    known = json.loads(_note_of(part).read_text()) if have else {}
    headers = {"Range": f"bytes={have}-", "If-Range": known["validator"]} if known.get("validator") else {}
    with transport.get(session, url, timeout=timeout, headers=headers) as response:
        if response.status_code in retrying.BUSY:
            raise _BusyError(f"it answers {response.status_code}", transport.retry_after(response))
        if response.status_code in (200, 206):
            have, known = _receive(response, part, have, known, advance)
        elif response.status_code != 416 or not have:
            raise UserError(f"{url} answers {response.status_code} {response.reason or ''}: check version, split and base URL.")
        elif known["length"] != have:  # 416: there is nothing left to send, since the file has become shorter
            part.unlink()
            raise _BusyError("the file has changed meanwhile", 0.0)
    if known["length"] is not None and have != known["length"]:
        raise requests.ConnectionError(f"the connection ended after {have:,} of {known['length']:,} bytes")
    return known


def _receive(response: requests.Response, part: Path, have: int, known: dict[str, Any], advance: Advance) -> tuple[int, dict[str, Any]]:
    """Appends the body (206) or begins anew with it (200); returns the size of the file and what is known of the whole."""
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        known = known | {"length": int(total) if total.isdigit() else None}
    else:
        have = 0
        length = response.headers.get("Content-Length", "")
        # A weak ETag says "about the same", which is not enough to join two halves.
        etag = response.headers.get("ETag", "")
        known = {
            "length": int(length) if length.isdigit() else None,
            "md5": _announced_md5(response),
            "validator": etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", ""),
        }
        part.unlink(missing_ok=True)
        _note_of(part).write_text(json.dumps(known))
    with part.open("ab") as file:
        # Not iter_content: it loses the last piece when the connection ends within it.
        while chunk := response.raw.read1(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            advance(have, known["length"])
    return have, known


def _announced_md5(response: requests.Response) -> str | None:
    """Returns the MD5 in hexadecimal where the server states it: Google's x-goog-hash, Content-MD5, or S3's ETag of a plain upload."""
    stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", response.headers.get("x-goog-hash", ""))
    text = stated[1] if stated else response.headers.get("Content-MD5", "")
    if re.fullmatch(r"[A-Za-z0-9+/]{22}==", text):
        return base64.b64decode(text).hex()
    etag = response.headers.get("ETag", "").strip('"')
    return etag if "x-amz-request-id" in response.headers and re.fullmatch(r"[0-9a-f]{32}", etag) else None


def _is_sound(part: Path, known: dict[str, Any]) -> bool:
    """Tells whether the file has the MD5 that the server has stated, if it has stated one."""
    if known["md5"] is None:
        return True
    with part.open("rb") as file:
        return bool(hashlib.file_digest(file, "md5").hexdigest() == known["md5"])
