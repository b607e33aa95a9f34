"""Where bundles are written to and read from: a folder, an address that fsspec knows (s3://), or a repository of the Hugging Face hub."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from imgclf import files
from imgclf.errors import UserError, missing_extra

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
        self._url = url.rstrip("/")
        protocol = url.partition("://")[0]
        if len([part for part in self._url.partition("://")[2].split("/") if part]) < 1:
            raise UserError(f"{url!r} names no place: write {protocol}://BUCKET/NAME.")
        try:
            import fsspec

            # `skip_instance_cache`: credentials may have come since an earlier try
            self._system, self._root = fsspec.core.url_to_fs(self._url, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            package = "s3fs" if protocol == "s3" else f"fsspec's package for {protocol}:// ({error})"
            raise missing_extra(f"A bundle at {url}", package, "publish") from None

    @property
    def place(self) -> str:
        return self._url

    def sizes(self) -> dict[str, int]:
        with self._told("listed"):
            self._system.invalidate_cache()
            try:
                found = self._system.find(self._root, detail=True)
            except FileNotFoundError:
                found = {}
            if not found:  # is nothing there, or no bucket?
                self._system.ls(self._root.split("/")[0])
        prefix = f"{self._root}/"
        return {path.removeprefix(prefix): int(info["size"]) for path, info in found.items() if path.startswith(prefix)}

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._told("read"), self._system.open(f"{self._root}/{path}", "rb", block_size=8 * _CHUNK) as file:
            while chunk := file.read(8 * _CHUNK):
                yield chunk

    def write(self, path: str, source: Path | bytes) -> None:
        with self._told("written"):
            if isinstance(source, bytes):
                self._system.pipe_file(f"{self._root}/{path}", source)
            else:
                self._system.put_file(str(source), f"{self._root}/{path}")

    def remove(self, path: str) -> None:
        with self._told("written"):
            self._system.rm_file(f"{self._root}/{path}")

    def finish(self) -> None:
        """Each file was there when it was written."""

    @contextlib.contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # fsspec's file systems raise what their own libraries do: the way out is the same
            raise UserError(self._reason(error, done)) from error

    def _reason(self, error: Exception, done: str) -> str:
        text = " ".join(f"{type(error).__name__} {error} {error.__cause__ or ''}".split())
        bucket = self._url.partition("://")[2].split("/")[0]
        if "NoCredentials" in text or "Unable to locate credentials" in text:
            return (
                f"{self._url} can't be {done}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )
        if "NoSuchBucket" in text or "bucket does not exist" in text:
            return f"{self._url} can't be {done}: there is no bucket {bucket!r}; make it, or name another."
        if isinstance(error, PermissionError) or re.search("AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch", text):
            return f"{self._url} can't be {done}: your credentials do not allow it; ask the bucket's owner, or name another place."
        if isinstance(error, FileNotFoundError):
            return f"{self._url} can't be {done}: a file in it is gone ({error}); give the same command again, or get the bundle anew."
        return f"{self._url} can't be {done} ({text[:200]}): give the same command again, which continues; what was sent is kept."


def _chunks_of(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
