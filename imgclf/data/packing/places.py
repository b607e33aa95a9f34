"""Where a pack lies: a folder of this machine, or a URL."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgclf import files
from imgclf.remote import listing, places, transfer


class Place:
    """A folder that holds a pack; names are relative to it, with "/"."""

    def __init__(self, path: str):
        self.path = path

    def __str__(self) -> str:
        return self.path

    def read(self, name: str, seconds: float | None = None) -> bytes | None:
        """The bytes of a file; None where there is none. At a URL it is tried for so many seconds at most, see `transfer.read`."""
        try:
            return self._at(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """What is in the folder, or in one below it: name → bytes, -1 for a folder and where they are unknown."""
        try:
            with os.scandir(self._at(folder)) as entries:
                return {entry.name: -1 if entry.is_dir() else entry.stat().st_size for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def sizes_of(self, names: Sequence[str]) -> list[int | None]:
        """The sizes of these files; None for one that is not there, -1 where it is unknown."""
        there = self.sizes()
        return [there.get(name) for name in names]

    def local(self, name: str) -> str | None:
        """The path by which a library opens a file; None where only ranges of it can be read."""
        return str(self._at(name))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Some bytes of a file.

        Raises:
          OSError: if it has less.
        """
        with self._at(name).open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) < length:
            raise OSError(f"{name} ends before byte {offset + length:,}")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, in one move, after which the disk has it."""
        path = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, durable=True) as aside:
            aside.write_bytes(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yields the path of a file of this machine to be written, which becomes the file `name` when the block ends well."""
        with files.replacing(self._at(name), durable=True) as aside:
            yield aside

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self._at(name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """Removes a folder with what is in it."""
        shutil.rmtree(self._at(name), ignore_errors=True)

    @contextlib.contextmanager
    def locked(self, name: str, otherwise: str) -> Iterator[None]:
        """Holds a lock in the place while the block runs, see `files.locked`."""
        self._at(name).parent.mkdir(parents=True, exist_ok=True)
        with files.locked(self._at(name), otherwise):
            yield

    def _at(self, name: str) -> Path:
        return Path(self.path, name)


class RemotePlace(Place):
    """A URL. Shards are made on this machine, one at a time, before they are sent; records are read by ranges."""

    def read(self, name: str, seconds: float | None = None) -> bytes | None:
        try:
            return transfer.read(places.join(self.path, name), seconds=seconds)
        except FileNotFoundError:
            return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        try:
            found = listing.entries(places.join(self.path, folder) if folder else self.path)
        except FileNotFoundError:
            return {}
        return {entry.name: entry.size for entry in found}

    def sizes_of(self, names: Sequence[str]) -> list[int | None]:
        found = listing.sized(self.path, names)  # also of https://, whose pages don't list
        return [one.size if isinstance(one, listing.Entry) else None if isinstance(one, FileNotFoundError) else -1 for one in found]

    def local(self, name: str) -> None:
        return None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return transfer.read_range(places.join(self.path, name), offset, offset + length)

    def write(self, name: str, data: bytes) -> None:
        transfer.write(places.join(self.path, name), data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="imgclf-pack-") as folder:
            path = Path(folder, name)
            yield path
            transfer.write(places.join(self.path, name), path)

    def remove(self, name: str) -> None:
        transfer.remove(places.join(self.path, name))

    def remove_folder(self, name: str) -> None:
        for entry in self.sizes(name):
            self.remove(f"{name}/{entry}")

    @contextlib.contextmanager
    def locked(self, name: str, otherwise: str) -> Iterator[None]:
        """Keeps nobody out: object stores have no locks. Two that pack the same write the same bytes."""
        yield


def place_of(path: str | os.PathLike[str]) -> Place:
    """The place that a path or a URL names.

    Raises:
      UserError: for a URL that can't be one, or that holds a password.
    """
    text = os.fspath(path)
    if places.is_url(text):
        return RemotePlace(places.check(text))
    return Place(os.path.expanduser(places.without_file(text)))
