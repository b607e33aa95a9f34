"""Where bundles are written to and read from: a folder, an address that fsspec knows (s3://), or a repository of the Hugging Face hub."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from imgclf import files
from imgclf.errors import UserError
from imgclf.remote import listing, places, transfer
from imgclf.remote.retrying import Unreachable

_CHUNK = 1 << 20


class Store(Protocol):
    """A place for the files of one bundle, by their paths in it."""

    @property
    def place(self) -> str:
        """What the user calls it."""
        ...

    def sizes(self) -> dict[str, int]:
        """The files that are there: path → bytes.

        Raises:
          UserError: if the place can't be reached, or may not be read.
        """
        ...

    def chunks(self, path: str) -> Iterator[bytes]:
        """The contents of a file.

        Raises:
          UserError: if it can't be read.
        """
        ...

    def write(self, path: str, source: Path | bytes) -> None:
        """Writes a file, in one move: nobody ever sees half of it.

        Raises:
          UserError: if it can't be written.
        """
        ...

    def remove(self, path: str) -> None:
        """Removes a file."""
        ...

    def finish(self) -> None:
        """Waits until all that was written is there for others."""
        ...


def sha256_in(store: Store, path: str) -> str:
    """Reads a file back and hashes it."""
    digest = hashlib.sha256()
    for chunk in store.chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


class Folder:
    """A folder on this machine."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def place(self) -> str:
        return str(self.folder)

    def sizes(self) -> dict[str, int]:
        if not self.folder.exists():
            return {}
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file: name a folder for the bundle.")
        found = (path for path in self.folder.rglob("*") if path.is_symlink() or not path.is_dir())
        return {path.relative_to(self.folder).as_posix(): path.lstat().st_size for path in found}

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._told(), (self.folder / path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def write(self, path: str, source: Path | bytes) -> None:
        target = self.folder / path
        with self._told():
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(target) as aside, aside.open("wb") as file:
                for chunk in _chunks_of(source):
                    file.write(chunk)

    def remove(self, path: str) -> None:
        (self.folder / path).unlink()
        for folder in (self.folder / path).parents:  # what it leaves empty goes with it
            if folder == self.folder or any(folder.iterdir()):
                break
            folder.rmdir()

    def finish(self) -> None:
        """A folder has nothing to wait for."""

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder} can't be written ({error.strerror or error}): make room and give the same command, which continues, or "
                "choose another folder."
            ) from error


class Address:
    """An address that fsspec knows, such as s3://BUCKET/PREFIX; its own settings and credentials hold."""

    def __init__(self, url: str):
        """
        Raises:
          UserError: for an address that can't be one, and without the package for it.
        """
        self._url = places.check(url)
        self._sizes: dict[str, int] = {}
        places.system(url, f"A bundle at {url}", "publish")

    @property
    def place(self) -> str:
        return self._url

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._told("listed"):
            if listing.kind_of(self._url):
                for folder, held in listing.tree(self._url, lambda _, held: [entry.name for entry in held if entry.is_folder]):
                    if isinstance(held, PermissionError):
                        raise held
                    found |= {f"{folder}/{entry.name}" if folder else entry.name: entry.size for entry in held if not entry.is_folder}
        self._sizes = dict(found)
        return found

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._told("read"):
            if path not in self._sizes:
                (found,) = listing.sized(self._url, [path])
                if isinstance(found, Exception):
                    raise found
                self._sizes[path] = found.size
            yield from transfer.chunks(places.join(self._url, path), self._sizes[path])

    def write(self, path: str, source: Path | bytes) -> None:
        with self._told("written"):
            transfer.write(places.join(self._url, path), source)
        self._sizes[path] = len(source) if isinstance(source, bytes) else source.stat().st_size

    def remove(self, path: str) -> None:
        with self._told("written"):
            transfer.remove(places.join(self._url, path))
        self._sizes.pop(path, None)

    def finish(self) -> None:
        """Each file was there when it was written."""

    @contextlib.contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            raise UserError(f"{str(error).rstrip('.')}; give the same command again, which continues: what was sent is kept.") from error
        except UserError:
            raise
        except Exception as error:  # the file systems raise what their own libraries do: the way out is the same
            raise UserError(self._reason(error, done)) from error

    def _reason(self, error: Exception, done: str) -> str:
        if isinstance(error, FileNotFoundError) and "no bucket" not in str(error):
            return f"{self._url} can't be {done}: a file in it is gone ({error}); give the same command again, or get the bundle anew."
        if isinstance(error, FileNotFoundError | PermissionError):
            return f"{error}."
        return f"{transfer.reason(error, self._url, done)}: give the same command again, which continues; what was sent is kept."


def _chunks_of(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
