"""Brings a bundle from an address to this machine; what an interrupted call had fetched stays."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from imgclf import files, progress
from imgclf.errors import UserError
from imgclf.publishing import manifest, stores
from imgclf.publishing.manifest import Manifest

_AT_ONCE = 8
_OF_THE_PLACE = (".gitattributes",)  # the hub's own


def remote_manifest(store: stores.Store) -> Manifest:
    """Reads the manifest of a bundle at an address, and compares the files there with it by name and size.

    Raises:
      UserError: if there is no bundle, or it is not as it was written.
    """
    sizes = store.sizes()
    if manifest.NAME not in sizes:
        why = "an interrupted `imgclf bundle` has left none: its command continues" if sizes else "there is nothing"
        raise UserError(f"{store.place} is no bundle: it has no {manifest.NAME} ({why}).")
    if sizes[manifest.NAME] > manifest.LARGEST:
        raise UserError(f"{store.place} has a {manifest.NAME} larger than any bundle's: get the bundle elsewhere.")
    whole = manifest.parse(b"".join(store.chunks(manifest.NAME)), store.place)
    listed = {file.path: file.bytes for file in whole.files}
    wrong = {path: "not listed in the manifest" for path in sizes if path not in listed and path not in (manifest.NAME, *_OF_THE_PLACE)}
    wrong |= {path: "missing" for path in listed if path not in sizes}
    wrong |= {path: f"{sizes[path]:,} bytes instead of {size:,}" for path, size in listed.items() if sizes.get(path, size) != size}
    manifest.raise_for(wrong, store.place)
    return whole


def download(store: stores.Store, whole: Manifest, folder: Path, console: Console) -> None:
    """Fetches the files of a bundle into a folder, each compared with its hash as it arrives.

    Raises:
      UserError: if the disk is too small, a file can't be fetched, or is not as it was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < whole.size:
        raise UserError(
            f"The bundle has {whole.size:,} bytes, and the disk of {folder} has {free:,} left: make room, or choose another with out=DIR."
        )
    with progress.bar(console, amount="bytes") as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        task = bar.add_task("Fetching the bundle", total=whole.size)

        def get(file: manifest.File) -> str:
            path = folder / file.path
            there = path.is_file() and not path.is_symlink() and manifest.file_of(file.path, path) == file
            reason = "" if there else _get(store, file, path)
            bar.advance(task, file.bytes)
            return reason

        wrong = {file.path: reason for file, reason in zip(whole.files, pool.map(get, whole.files), strict=True) if reason}
    manifest.raise_for(wrong, store.place)
    with files.replacing(folder / manifest.NAME) as aside:
        aside.write_bytes(whole.to_bytes())


def _get(store: stores.Store, file: manifest.File, path: Path) -> str:
    """Fetches one file; returns how it differs from what the manifest says, "" where it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as aside, aside.open("wb") as target:
        sha256 = manifest.hashed_stream(store.chunks(file.path), target.write, file.bytes, f"{store.place}/{file.path}")
    if sha256 == file.sha256:
        return ""
    path.unlink()
    return "its contents have changed"
