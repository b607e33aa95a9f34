"""Writes a bundle to its place, so that an interruption costs nothing that had arrived, and nobody takes a part for the whole.

The manifest goes last. Before the first file, a note (`.imgclf-bundle.json`) says which bundle is being written and which files are its
own, so that the same command continues, and those of an older bundle are cleared away. What is there with the right SHA-256 is not sent
again; everything is read back once and compared before the manifest is written.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from imgclf import formatting, progress
from imgclf.errors import UserError
from imgclf.publishing import manifest as manifests
from imgclf.publishing import stores
from imgclf.publishing.manifest import File, Manifest

NOTE = ".imgclf-bundle.json"
_AT_ONCE = 8
_OF_THE_PLACE = (".gitattributes",)  # the hub's own


def check_free(store: stores.Store, subject: str, *, overwrite: bool) -> None:
    """Raises a UserError where something stands that this bundle may not replace; called before the work that makes it."""
    _before(store, subject, overwrite=overwrite)


def write(store: stores.Store, manifest: Manifest, sources: Mapping[str, Path | bytes], *, overwrite: bool, console: Console) -> int:
    """Writes a bundle.

    Args:
      store: its place.
      manifest: of the bundle; `about["subject"]` says what it is of: a bundle of the same subject is replaced.
      sources: path → its contents, for every file of the manifest.
      overwrite: whether to replace a bundle of something else.
      console: for the progress.

    Returns:
      How many bytes were sent; what was there already is not counted.

    Raises:
      UserError: if something else stands there, or the place can't be written or read back.
    """
    before = _before(store, str(manifest.about["subject"]), overwrite=overwrite)
    if manifests.NAME in before and _is_whole(store, manifest, before):
        return 0
    new = {file.path for file in manifest.files}
    note = {"subject": manifest.about["subject"], "files": sorted(new | set(before) - {NOTE})}
    store.write(NOTE, json.dumps(note, indent=1).encode())
    if manifests.NAME in before:
        store.remove(manifests.NAME)
    sent = _send(store, manifest, sources, before, console)
    for path in sorted(set(before) - new - {manifests.NAME, NOTE}):
        store.remove(path)
    store.write(manifests.NAME, manifest.to_bytes())
    store.remove(NOTE)
    store.finish()
    if b"".join(store.chunks(manifests.NAME)) != manifest.to_bytes():
        raise UserError(f"{store.place} gives back another {manifests.NAME} than it was sent: give the same command again.")
    return sent


def _before(store: stores.Store, subject: str, *, overwrite: bool) -> dict[str, int]:
    """The files that lie at the place already, path → bytes; all of them are a bundle's, or parts of one, and may be replaced."""
    found = {path: size for path, size in store.sizes().items() if path not in _OF_THE_PLACE}
    if not found:
        return {}
    if NOTE in found:
        note = _json(store, NOTE)
        known, other = {NOTE, manifests.NAME, *note.get("files", ())}, str(note.get("subject", ""))
    elif manifests.NAME in found:
        old = manifests.parse(b"".join(store.chunks(manifests.NAME)), store.place)
        known, other = {manifests.NAME, *(file.path for file in old.files)}, str(old.about.get("subject", ""))
    else:
        raise UserError(f"{store.place} is not empty, and no bundle of imgclf's ({min(found)!r} lies there): choose another place.")
    if other != subject and not overwrite:
        raise UserError(
            f"{store.place} holds the bundle of another run ({other}), and is not replaced: choose another place, or give overwrite=True."
        )
    if foreign := sorted(set(found) - known):
        raise UserError(f"{store.place} holds {foreign[0]!r} beside a bundle: move it elsewhere, or choose another place.")
    return found


def _is_whole(store: stores.Store, manifest: Manifest, before: Mapping[str, int]) -> bool:
    """Whether this very bundle lies there already, byte for byte."""
    if b"".join(store.chunks(manifests.NAME)) != manifest.to_bytes() or NOTE in before:
        return False
    expected = {file.path: file.bytes for file in manifest.files}
    if {path: size for path, size in before.items() if path != manifests.NAME} != expected:
        return False
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return all(pool.map(lambda file: stores.sha256_in(store, file.path) == file.sha256, manifest.files))


def _send(store: stores.Store, manifest: Manifest, sources: Mapping[str, Path | bytes], before: Mapping[str, int], console: Console) -> int:
    """Sends what is not there, reads everything back once, and returns the number of bytes sent."""
    with progress.bar(console, amount="bytes") as bar:
        task = bar.add_task("Writing the bundle", total=manifest.size)

        def put(file: File) -> int:
            there = before.get(file.path) == file.bytes and stores.sha256_in(store, file.path) == file.sha256
            if not there:
                store.write(file.path, sources[file.path])
            bar.advance(task, file.bytes)
            return 0 if there else file.bytes

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sent = dict(zip(manifest.files, _all(pool, put, manifest.files), strict=True))
    store.finish()
    new = [file for file, size in sent.items() if size or not file.bytes]
    with progress.bar(console) as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        hashes = pool.map(lambda file: stores.sha256_in(store, file.path), new)
        wrong = [
            file.path
            for file, sha256 in zip(new, bar.track(hashes, len(new), description="Reading back"), strict=True)
            if sha256 != file.sha256
        ]
    if wrong:
        told = formatting.count(len(wrong), "file")
        raise UserError(
            f"{store.place} gives back {told} with other bytes than were sent, such as {wrong[0]}: give the same command again."
        )
    return sum(sent.values())


def _all(pool: ThreadPoolExecutor, put: Any, items: tuple[File, ...]) -> list[int]:
    """The results for all items; where one fails, those that have not begun are given up."""
    futures = [pool.submit(put, item) for item in items]
    try:
        return [future.result() for future in futures]
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _json(store: stores.Store, path: str) -> dict[str, Any]:
    try:
        value = json.loads(b"".join(store.chunks(path)))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
