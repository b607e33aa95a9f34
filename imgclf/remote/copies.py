"""Folders at URLs and their copies here: the manifest that says what belongs to a whole state, and fetching it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from imgclf import files
from imgclf.errors import UserError
from imgclf.remote import listing, places, retrying, transfer

MANIFEST = "manifest-of-run.json"
CHECKPOINTS = "checkpoints/"  # its files are those of one state; all others may be newer than the manifest
_UNFINISHED = (files.part_of("x").suffix, ".lock")
_TEMPORARY = "orbax-checkpoint-tmp"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What belongs to a state: `id` tells it from all others; `files`: path → bytes and sha256."""

    id: str
    files: dict[str, dict[str, Any]]

    def to_bytes(self) -> bytes:
        return json.dumps({"schema": 1, "id": self.id, "files": self.files}, indent=1).encode()


def manifest_at(url: str, seconds: float | None = None) -> Manifest | None:
    """The manifest of a run at a URL; None where there is none. It is tried for so many seconds at most, see `transfer.read`.

    Raises:
      UserError: if it can't be read, or is no manifest.
    """
    found = read_json(places.join(url, MANIFEST), seconds)
    if found is None:
        return None
    try:
        if found["schema"] != 1:
            raise ValueError(f"its schema is {found['schema']!r}")
        listed = {str(name): {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in found["files"].items()}
        if wrong := [name for name in listed if name.startswith("/") or ".." in name.split("/")]:
            raise ValueError(f"it names {wrong[0]!r}")
        return Manifest(str(found["id"]), listed)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{places.join(url, MANIFEST)} is damaged ({type(error).__name__}: {error}): restore it, or choose another folder."
        ) from error


def read_json(url: str, seconds: float | None = None) -> Any:
    """The contents of a JSON file at a URL; None where there is none."""
    try:
        return json.loads(transfer.read(url, seconds=seconds))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise UserError(f"{error}.") from error
    except ValueError as error:
        raise UserError(f"{url} is no JSON ({error}): remove it, or choose another folder.") from error


def names_in(folder: Path) -> list[str]:
    """The finished files in a folder, relative to it, with "/"; those that are being written, and hidden ones at the top, are left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _TEMPORARY not in name and name != "damaged"]
        for name in names:
            path = (Path(place) / name).relative_to(folder).as_posix()
            if not name.endswith(_UNFINISHED) and not path.startswith("."):
                found.append(path)
    return sorted(found)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, manifest: Manifest, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Makes a folder hold what a manifest names; what is the same already stays, other finished files are removed.

    Args:
      url: where the files are.
      manifest: what they are.
      folder: to be filled; it is made.
      wanted: which of them are fetched, by their path.

    Raises:
      UserError: if a file can't be had, or one of a checkpoint is not what the manifest says.
    """
    names = {name for name in manifest.files if wanted(name)}
    folder.mkdir(parents=True, exist_ok=True)
    for name in set(names_in(folder)) - names:
        (folder / name).unlink()
    for place, _, _ in os.walk(folder, topdown=False):
        if place != str(folder) and not os.listdir(place):
            os.rmdir(place)

    def get(name: str) -> None:
        path, entry = folder / name, manifest.files[name]
        if path.exists() and path.stat().st_size == entry["bytes"] and sha256_of(path) == entry["sha256"]:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.startswith(CHECKPOINTS):  # it may have been replaced since by a newer one, which is as good
            with files.replacing(path) as aside:
                aside.write_bytes(transfer.read(places.join(url, name)))
        elif transfer.download(places.join(url, name), path, entry["bytes"]) != entry["sha256"]:
            path.unlink()
            raise UserError(f"{places.join(url, name)} is damaged: it is not what {MANIFEST} says; restore it, or start anew elsewhere.")

    _all(get, names)


def fetch_listed(url: str, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Copies a folder without a manifest, such as one that was uploaded by hand, as far as `wanted`.

    Raises:
      UserError: if it can't be listed or read.
    """
    names: dict[str, listing.Entry] = {}
    try:
        for place, held in listing.tree(url, lambda _, found: [entry.name for entry in found if entry.is_folder]):
            if isinstance(held, PermissionError):
                raise held
            names |= {f"{place}/{entry.name}" if place else entry.name: entry for entry in held if not entry.is_folder}
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"{error}.") from error

    def get(name: str) -> None:
        path, entry = folder / name, names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.size < 0:
            path.write_bytes(transfer.read(places.join(url, name)))
        else:
            transfer.download(places.join(url, name), path, entry.size)

    _all(get, filter(wanted, names))


def _all(get: Callable[[str], None], names: Iterable[str]) -> None:
    def one(name: str) -> None:
        try:
            get(name)
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(f"{error}.") from error

    done: Iterator[None] = listing.at_once(one, sorted(names))
    for _ in done:
        pass


def place_of(kind: str, url: str) -> Path:
    """The folder on this machine for a run at a URL: in the cache's folder `kind`, the same one for the same URL, with the run's name."""
    return files.cache_dir() / kind / hashlib.sha256(url.encode()).hexdigest()[:12] / (places.last_name(url) or "run")


def fetched(url: str) -> Path:
    """The finished run at a URL, on this machine: what is needed to use it, without the checkpoints to resume from.

    It is kept in the cache folder; as long as the run's manifest is the same, nothing is fetched again.

    Raises:
      UserError: if there is no run, or it can't be read.
    """
    url = places.check(url)
    folder = place_of("fetched", url)
    folder.parent.mkdir(parents=True, exist_ok=True)

    def wanted(name: str) -> bool:
        return not name.startswith((f"{CHECKPOINTS}last/", "tensorboard/", "samples/"))

    with files.locked(folder.parent / ".lock", f"Another process fetches {url}.", wait=-1):
        manifest = manifest_at(url, retrying.FIRST_CONTACT)
        if manifest is not None:
            fetch(url, manifest, folder, wanted)
            return folder
        if read_json(places.join(url, "config.json")) is None:
            raise UserError(f"{url} is no run (it has no config.json): name the folder of a run, or of photos by folder:{url}.")
        with files.replacing_folder(folder) as aside:
            fetch_listed(url, aside, wanted)
    return folder
