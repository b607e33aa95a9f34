"""What a bundle holds: `manifest.json` lists every file with its size and SHA-256, and hashes itself.

The manifest is written last: a folder without one is no bundle, whatever became of the process that wrote there. Its `root` is the SHA-256
of all else in it, so that one hash stands for every byte of the bundle. A bundle may come from a stranger: names that lead out of its
folder, links, and files that are larger than they say are refused before anything is opened.
"""

import dataclasses
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from imgclf import progress
from imgclf.errors import AlteredError, UserError

NAME = "manifest.json"
KIND = "imgclf bundle"
VERSION = 1
LARGEST = 256 << 20  # bytes of a manifest; two million files
_CHUNK = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a bundle: its path below the bundle's folder, with "/" between its parts, its size in bytes, its SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of manifest.json.

    Attributes:
      about: what the bundle is of, for people and for `imgclf reproduce`: name, imgclf, python, params_sha256, source, data, user_code.
      files: by path, in order; manifest.json itself is not among them.
    """

    about: Mapping[str, Any]
    files: tuple[File, ...]

    @classmethod
    def of(cls, about: Mapping[str, Any], files: Iterable[File]) -> "Manifest":
        return cls(about, tuple(sorted(files, key=lambda file: file.path)))

    @property
    def root(self) -> str:
        """The SHA-256 of everything that the manifest says."""
        return hashlib.sha256(_dump(self._contents())).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files together, without the manifest."""
        return sum(file.bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """The contents of manifest.json, of which there is one form only: any other bytes are damage."""
        return _dump(self._contents() | {"root": self.root})

    def _contents(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "version": VERSION,
            "about": dict(self.about),
            "files": [dataclasses.asdict(file) for file in self.files],
        }


def parse(data: bytes, place: str) -> Manifest:
    """Reads manifest.json.

    Args:
      data: its bytes.
      place: where the bundle lies, for the errors.

    Raises:
      UserError: if it is none, of another version, damaged, or names what a bundle must not hold.
    """
    try:
        found = json.loads(data)
        kind, version = found["kind"], found["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise AlteredError(f"{NAME} in {place} is damaged, or not imgclf's: get the bundle anew.") from None
    if kind != KIND:
        raise UserError(f"{NAME} in {place} is of no imgclf bundle: name the folder that `imgclf bundle` has written.")
    if version != VERSION:
        raise UserError(
            f"{NAME} in {place} says bundle version {version!r}, and this imgclf reads version {VERSION}: follow the bundle's own "
            "README.md, which brings the imgclf that wrote it, or get the bundle anew."
        )
    try:
        manifest = Manifest(found["about"], tuple(File(**file) for file in found["files"]))
        sound = isinstance(manifest.about, dict) and manifest.to_bytes() == data
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise AlteredError(f"{NAME} in {place} has changed since it was written (its root hash is another one): get the bundle anew.")
    _check_names(manifest, place)
    return manifest


def verify(folder: Path, console: Console | None = None) -> Manifest:
    """Compares every byte of a bundle in a folder with its manifest.

    Raises:
      UserError: if there is no bundle; an AlteredError if a file is missing, has changed, or is not listed, or a link stands there: it is
        named.
    """
    manifest = read(folder)
    found, links = _walk(folder)
    wrong = {path: "a link or a device, which no bundle holds" for path in links}
    listed = {file.path for file in manifest.files}
    wrong |= {path: "not listed in the manifest" for path in found if path not in listed and path != NAME}
    with progress.bar(console or Console(quiet=True), amount="bytes") as bar:
        task = bar.add_task("Checking the bundle", total=manifest.size)
        for file in manifest.files:
            if reason := _difference(folder, file, found):
                wrong.setdefault(file.path, reason)
            bar.advance(task, file.bytes)
    raise_for(wrong, str(folder))
    return manifest


def read(folder: Path) -> Manifest:
    """Reads the manifest of a bundle in a folder, and nothing else; raises as `parse` does."""
    path = folder / NAME
    if not folder.is_dir():
        raise UserError(f"There is no bundle {str(folder)!r}: give the folder, or the s3:// or hf:// address, of one.")
    if path.is_symlink() or not path.is_file():
        raise UserError(
            f"{folder} is no bundle: it has no {NAME}, which `imgclf bundle` writes last; give its command once more, or name a bundle."
        )
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is larger than any bundle's manifest ({path.stat().st_size:,} bytes): get the bundle anew.")
    return parse(path.read_bytes(), str(folder))


def raise_for(wrong: Mapping[str, str], place: str) -> None:
    """Raises an AlteredError that names what is wrong, path → reason; nothing where that is empty."""
    if not wrong:
        return
    shown = "; ".join(f"{path} ({reason})" for path, reason in sorted(wrong.items())[:5])
    more = f"; and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""
    differ = "1 file differs" if len(wrong) == 1 else f"{len(wrong):,} files differ"
    raise AlteredError(
        f"The bundle {place} is not as it was written: {differ} from its {NAME}: {shown}{more}. Get it anew from where it was published."
    )


def file_of(path: str, source: Path | bytes) -> File:
    """Describes a file: its contents are those of another file, or bytes."""
    if isinstance(source, bytes):
        return File(path, len(source), hashlib.sha256(source).hexdigest())
    size, sha256 = _hashed(source)
    return File(path, size, sha256)


def check_name(path: str) -> str:
    """Says why a path can't be one of a bundle's; "" where it can."""
    parts = path.split("/")
    if path != path.strip() or not all(parts) or path == NAME:
        return "no plain path"
    if "\\" in path or ":" in path or not path.isprintable():
        return "it has a backslash, a colon or an unprintable character"
    if any(part in (".", "..") or len(os.fsencode(part)) > 255 for part in parts):
        return "it leads elsewhere, or is too long"
    return ""


def _check_names(manifest: Manifest, place: str) -> None:
    """Refuses paths that lead out of the folder, or of which two would be one on some system; and sizes and hashes that are none."""
    for file in manifest.files:
        if reason := check_name(file.path):
            raise UserError(f"The bundle {place} names the file {file.path!r} ({reason}): it is not of imgclf's making, don't use it.")
        if type(file.bytes) is not int or file.bytes < 0 or not _SHA256.fullmatch(str(file.sha256)):
            raise UserError(f"The bundle {place} gives {file.path!r} no size and SHA-256: it is not of imgclf's making, don't use it.")
    folders = {"/".join(parts[:n]) for file in manifest.files if (parts := file.path.split("/")) for n in range(1, len(parts))}
    names = [file.path for file in manifest.files] + sorted(folders)
    twice = [name for name, times in Counter(name.casefold() for name in names).items() if times > 1]
    if twice:
        raise UserError(f"The bundle {place} names {twice[0]!r} twice: it is not of imgclf's making, don't use it.")


def _walk(folder: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """The files below a folder, path → status, and the links and other things that are neither file nor folder; links are not followed."""
    found: dict[str, os.stat_result] = {}
    others: list[str] = []
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = Path(entry.path).relative_to(folder).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found[path] = entry.stat(follow_symlinks=False)
                else:
                    others.append(path)
    return found, others


def _difference(folder: Path, file: File, found: Mapping[str, os.stat_result]) -> str:
    """Says how a file differs from what the manifest says of it; "" where it does not."""
    if file.path not in found:
        return "missing"
    if found[file.path].st_size != file.bytes:
        return f"{found[file.path].st_size:,} bytes instead of {file.bytes:,}"
    return "" if _hashed(folder / file.path)[1] == file.sha256 else "its contents have changed"


def _hashed(path: Path) -> tuple[int, str]:
    """The size of a regular file in bytes and its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"{path} is no regular file: remove it.")
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def hashed_stream(chunks: Iterable[bytes], write: Callable[[bytes], Any], limit: int, path: str) -> str:
    """Passes chunks on to `write` and returns their SHA-256.

    Raises:
      AlteredError: as soon as there are more bytes than `limit`, which is what the manifest says of the file `path`.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise AlteredError(f"{path} is larger than the bundle's {NAME} says ({limit:,} bytes): get the bundle anew.")
        digest.update(chunk)
        write(chunk)
    return digest.hexdigest()


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
