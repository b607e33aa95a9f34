"""Files that others may read while they are written, locks, and the folder for what would otherwise be computed twice."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imgclf.errors import UserError


def cache_dir() -> Path:
    """Returns `$IMGCLF_CACHE`, `$XDG_CACHE_HOME/imgclf` or `~/.cache/imgclf`; it may not exist yet."""
    if os.environ.get("IMGCLF_CACHE"):
        return Path(os.environ["IMGCLF_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgclf"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path `NAME.part` beside `path`; what is written there takes the place of `path` at the end, in one move.

    No reader sees half a file. Where the block fails, `path` stays as it is, and the part is removed. The folder must exist.
    """
    target = Path(path)
    aside = target.with_name(target.name + ".part")
    try:
        yield aside
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file, UTF-8, in one move; bytes of file names that are no text are written as backslash escapes."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON, indented, in one move."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], otherwise: str, *, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; the system releases it when the process ends, however it ends.

    Args:
      path: of the lock file; its folder must exist.
      otherwise: what the user is told where another process holds it: a sentence with the way out.
      wait: for how many seconds to wait for it; negative = for ever.

    Raises:
      UserError: where another process holds the lock.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(otherwise) from None
    try:
        yield
    finally:
        lock.release()
