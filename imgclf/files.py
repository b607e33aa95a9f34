"""The one place for files that others may read while they are written, for locks, and for the folder of what is worth keeping."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imgclf.errors import UserError


def cache_dir() -> Path:
    """Returns `$IMGCLF_CACHE`, `$XDG_CACHE_HOME/imgclf` or `~/.cache/imgclf`; the folder may not exist yet."""
    if os.environ.get("IMGCLF_CACHE"):
        return Path(os.environ["IMGCLF_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgclf"


def cached(kind: str, key: str, suffix: str = "") -> Path:
    """The place in the cache's folder `kind` for what `key`, any text, names: a hash of it, and a suffix. Nothing need be there."""
    return cache_dir() / kind / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:24]}{suffix}"


def temporary_folder() -> Path:
    """Makes a folder for what is only shown or handed on, outside of the working directory; the system's own rules clean it up."""
    return Path(tempfile.mkdtemp(prefix="imgclf-"))


def part_of(path: str | os.PathLike[str]) -> Path:
    """Returns the name that a file has while it is unfinished: `NAME.part`, beside it."""
    return Path(path).with_name(Path(path).name + ".part")


def finish(part: Path, path: str | os.PathLike[str], *, durable: bool = False) -> None:
    """Gives a finished file its name, in one move; for files that are continued after an interruption, which `replacing` would remove.

    Args:
      durable: see `replacing`.
    """
    if durable:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    part.replace(path)


def path_of(value: object, what: str) -> Path:
    """Returns what a caller gave as a path, with "~" as the home folder; a file:// URL is a path, too.

    Raises:
      UserError: if it is none; `what` says what it should be, such as "the folder of a run".
    """
    if not isinstance(value, str | bytes | os.PathLike):
        raise UserError(f"A value of type {type(value).__name__} stands where {what} is needed: give one path.")
    text = os.fsdecode(value)
    if text.lower().startswith("file://"):
        text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    if "://" in text:
        raise UserError(f"{text} is a URL, and {what} is needed on this machine: give a path.")
    return Path(text).expanduser()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """Yields a path beside `path`; the file that the block writes there takes the place of `path` at the end, in one move.

    No reader ever sees half a file. Where the block fails, `path` stays as it is and the unfinished file is removed. A process that is
    killed leaves the unfinished file behind, and the next one that writes `path` overwrites it.

    Args:
      path: the file to write; its folder must exist.
      durable: wait until the disk has the contents before the move, so that even a power failure leaves the old file or the new one. For
        files after which something else is deleted; it costs milliseconds.
      shared: several processes may write `path` at once, without a lock. Each then has an unfinished file of its own
        (`NAME.HOST.PID.part` instead of `NAME.part`), and the last one wins. Processes of several containers may have the same number.
    """
    target = Path(path)
    aside = part_of(target.with_name(f"{target.name}.{socket.gethostname()}.{os.getpid()}") if shared else target)
    try:
        yield aside
        finish(aside, target, durable=durable)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder beside `path`; with what the block puts into it, it takes the place of `path` at the end.

    Where the block fails, `path` stays as it is and the unfinished folder is removed. The system can't replace a folder with files in one
    move, so that a folder which is there already steps aside first: for that moment, and after a kill within it, `path` is missing and the
    old folder lies beside it as `.NAME.….old`. The caller checks that the old folder may go.
    """
    target = Path(path)
    mark = uuid.uuid4().hex[:8]
    aside, old = target.with_name(f".{target.name}.{mark}.part"), target.with_name(f".{target.name}.{mark}.old")
    aside.mkdir()
    try:
        yield aside
        if target.exists():
            target.rename(old)
        try:
            aside.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file, UTF-8, in one move; bytes of file names that are no text are written as backslash escapes."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON, indented, in one move."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class JsonLines:
    """A file of one JSON object per line that is only ever appended to; threads may share it.

    Each entry is one write to the system, so that a process that is killed loses none. A line that a power failure has cut short is
    closed when the file is opened again, and `read_json_lines` passes over it.
    """

    def __init__(self, path: Path):
        """Opens the file, and makes it where it is not there; its folder must exist."""
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, entry: dict[str, Any]) -> None:
        """Adds an entry; it survives the end of the process at once, and a power failure once the file is closed.

        Raises:
          OSError: if the disk is full.
        """
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Waits until the disk has all entries, and closes the file."""
        os.fsync(self._file)
        os.close(self._file)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the entries of a file of JSON lines in order; a line that was cut short is no entry."""
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], otherwise: str, *, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; the system releases it when the process ends, however it ends.

    The lock is on the open file, not on its existence: a lock file that a killed process has left keeps nobody out, and is not deleted.
    Threads of one process keep each other out as well.

    Args:
      path: of the lock file; its folder must exist.
      otherwise: what the user is told where another process holds it: a sentence with the way out.
      wait: for how many seconds to wait for it; negative = for ever.

    Raises:
      UserError: where another process holds the lock.
      OSError: where the lock file can't be written.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(otherwise) from None
    try:
        yield
    finally:
        lock.release()
