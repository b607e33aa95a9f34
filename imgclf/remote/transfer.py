"""Reading, listing and writing what lies at a URL, with tries again until `retrying.patience` is over.

What fsspec and its file systems do, measured through a proxy that breaks connections (fsspec 2026.9, s3fs 2026.9): s3fs tries five times,
with waits that have no jitter, and 25 times with botocore's own tries; a body that ends early is noticed by aiohttp where the server has
said its length; a server that sends a byte now and then is waited for without end. fsspec's https:// tries once, and its `info` and
`walk` take a failure for a file that is not there. So here: one policy of tries for all of them, a limit for each, and lengths compared.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imgclf import files
from imgclf.remote import places, retrying

CHUNK = 8 << 20  # bytes that one request asks for of a large file


class _ShortBodyError(OSError):
    """Fewer or more bytes than the server has announced."""


def read(url: str, size: int = -1, seconds: float | None = None) -> bytes:
    """The whole of a file.

    Args:
      url: of it.
      size: bytes that the listing has announced; -1 = unknown. A body of another length is asked for once more: if it is as long again,
        the file has changed, which is for the caller to say.
      seconds: of patience at most; None = `retrying.patience`.

    Raises:
      FileNotFoundError, PermissionError: where there is none, or it may not be read.
      Unreachable: where it can't be had within that time.
    """
    system = places.system(url)
    path = path_in(system, url)
    lengths: list[int] = []

    def attempt(seconds: float) -> bytes:
        data: bytes = call(system, "cat_file", seconds, path)
        if size >= 0 and len(data) != size and len(data) not in lengths:
            lengths.append(len(data))
            raise _ShortBodyError(f"{len(data):,} bytes instead of {size:,}")
        return data

    return retrying.persistent(attempt, told(url, "read"), seconds)


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` (not included) of a file that has them all.

    Raises:
      FileNotFoundError, PermissionError, Unreachable: as `read` does.
    """
    system = places.system(url)
    path = path_in(system, url)

    def attempt(seconds: float) -> bytes:
        data: bytes = call(system, "cat_file", seconds, path, start=start, end=stop)
        if len(data) != stop - start:
            raise _ShortBodyError(f"{len(data):,} bytes instead of {stop - start:,}")
        return data

    return b"" if stop <= start else retrying.persistent(attempt, told(url, "read"))


def chunks(url: str, size: int) -> Iterator[bytes]:
    """The contents of a file of `size` bytes, `CHUNK` at a time: what has arrived is not asked for again."""
    for start in range(0, size, CHUNK):
        yield read_range(url, start, min(start + CHUNK, size))


def download(url: str, path: Path, size: int) -> str:
    """Fetches a file of `size` bytes, in one move; returns its SHA-256."""
    digest = hashlib.sha256()
    with files.replacing(path) as aside, aside.open("wb") as file:
        for chunk in chunks(url, size):
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def write(url: str, source: Path | bytes) -> None:
    """Writes a file; readers see the old one or the new one (S3, GCS and the hub put objects as a whole).

    Raises:
      PermissionError, Unreachable: where it can't be written.
    """
    system = places.system(url)
    path = path_in(system, url)

    def attempt(seconds: float) -> None:
        if isinstance(source, bytes):
            call(system, "pipe_file", seconds, path, source)
        else:
            call(system, "put_file", None, str(source), path)  # as long as it takes: its parts have limits of their own

    retrying.persistent(attempt, told(url, "written"))


def remove(url: str) -> None:
    """Removes a file; one that is gone already is no error.

    Raises:
      PermissionError, Unreachable: where it can't be removed.
    """
    system = places.system(url)
    path = path_in(system, url)

    def attempt(seconds: float) -> None:
        try:
            call(system, "rm_file", seconds, path)
        except FileNotFoundError:
            return

    retrying.persistent(attempt, told(url, "removed"))


def call(system: Any, name: str, seconds: float | None, *arguments: Any, **options: Any) -> Any:
    """Calls a method of a file system; those that are asynchronous inside are stopped after so many seconds."""
    if getattr(system, "async_impl", False) and not getattr(system, "asynchronous", False):
        from fsspec.asyn import sync

        return sync(system.loop, getattr(system, f"_{name}"), *arguments, timeout=seconds, **options)
    return getattr(system, name)(*arguments, **options)


def path_in(system: Any, url: str) -> str:
    return str(system._strip_protocol(url))


def told(url: str, done: str) -> Callable[[Exception], str]:
    return lambda error: reason(error, url, done)


def reason(error: Exception, url: str, done: str) -> str:
    """What went wrong in a sentence without a point, with the way out where there is one; `done` is such as "read" or "written"."""
    text = " ".join(f"{type(error).__name__} {error} {error.__cause__ or ''}".split())
    place, kind = places.shown(url), places.protocol(url)
    bucket = url.partition("://")[2].split("/")[0]
    status = retrying.status_of(error)
    if retrying.without_credentials(error):
        means = {
            "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        }.get(kind, "the environment variables of its client")
        return f"{place} can't be {done}: no credentials were found; set {means}"
    if "NoSuchBucket" in text or "bucket does not exist" in text:
        return f"{place} can't be {done}: there is no bucket {bucket!r}; make it, or name another"
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"{place} can't be {done}: it is forbidden to you (403); ask its owner, or give other credentials in the environment"
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return f"{place} can't be {done}: it is not there"
    answered = f"it answers {status}" if status else text[:200] if not isinstance(error, TimeoutError) else "no answer in time"
    return f"{place} can't be {done} ({answered})"
