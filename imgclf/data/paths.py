"""Paths as people give them, and the image files under a folder."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.data import images
from imgclf.errors import UserError
from imgclf.remote import listing, places, transfer

_JUNK_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_NO_EXTENSION = "no extension"
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,9}")
Entries = Sequence[os.DirEntry[str]] | Sequence[listing.Entry]  # of a folder on a disk; at a URL


@dataclasses.dataclass
class Files:
    """The result of `walk`, sorted by path; a row per image file."""

    paths: list[str]  # relative to the root, with "/"
    sizes: np.ndarray  # int64, bytes
    mtimes_ns: np.ndarray  # int64
    folders: list[str]  # all visible folders, relative
    quarantine: list[tuple[str, str, str]]  # path, reason, detail
    ignored: Counter[str]  # kind → count
    notes: list[str]  # sentences that the user should know: folders that were passed over
    visited: list[str]  # all folders that were looked into, the root ("") among them, also those that were passed over then
    visited_mtimes_ns: list[int]  # when each was last changed, before it was looked into; empty of a URL
    parents: np.ndarray  # int32 [n]: the folder of each file, in `visited`


def walk(root: str) -> Files:
    """Lists the image files under `root`, to any depth; nothing is decoded.

    Image files are those with an extension in `images.EXTENSIONS`, in any case, and those of any other name whose first bytes are an
    image's (`photo.jpg!large`, `0001.375`, `scan`). Formats that can't be read are quarantined. Hidden files, operating systems'
    leftovers and everything else are counted in `ignored` by kind. Links are followed; a folder is entered once, by its own name rather
    than by a link's, so loops end. The folder of a run (config.json beside checkpoints) is passed over: its pictures are no photos.

    Args:
      root: absolute path of a folder, or its URL. At a URL, what tells that a file has changed, `mtimes_ns`, is made of the server's mark
        (ETag) where it gives one, and of files without a known extension only those without any are looked into.

    Raises:
      UserError: if the root can't be listed.
    """
    return _walk_url(root) if places.is_url(root) else _walk_folder(root)


def _walk_folder(root: str) -> Files:
    names: list[str] = []
    sizes: list[int] = []
    mtimes: list[int] = []
    parents: list[int] = []
    files = Files([], np.empty(0), np.empty(0), [], [], Counter(), [], [], [], np.empty(0, np.int32))
    seen: dict[tuple[int, int], str] = {}
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(os.path.join(root, folder))
            identity = _identity(status)
            files.visited.append(folder)
            files.visited_mtimes_ns.append(status.st_mtime_ns)
            if identity in seen:
                files.ignored["link to a folder listed already"] += 1
                files.notes.append(f"{printable(folder)} is a link to {printable(seen[identity]) or 'the folder itself'}: passed over.")
                continue
            seen[identity] = folder
            with os.scandir(os.path.join(root, folder)) as scanned:
                entries = list(scanned)
            if _is_entered(files, folder, entries):
                for entry in _without_a_run(files, entries):
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    verdict, detail = _judge(entry)
                    if verdict == "image":
                        status = entry.stat()
                        names.append(path)
                        sizes.append(status.st_size)
                        mtimes.append(status.st_mtime_ns)
                        parents.append(len(files.visited) - 1)
                    elif verdict == "folder":
                        (links if entry.is_symlink() else folders).append(path)
                    elif verdict == "ignored":
                        files.ignored[detail] += 1
                    else:
                        files.quarantine.append((printable(path), verdict, detail))
        except OSError as error:
            if not folder:
                raise UserError(f"{root} can't be listed ({error.strerror}): allow reading it, or name another folder.") from error
            files.quarantine.append((printable(folder), "unreadable", f"the folder can't be listed: {error.strerror}"))
        links.sort()
    order = sorted(range(len(names)), key=names.__getitem__)
    files.paths = [names[i] for i in order]
    files.sizes = np.array(sizes, np.int64)[order]
    files.mtimes_ns = np.array(mtimes, np.int64)[order]
    files.parents = np.array(parents, np.int32)[order]
    return files


def _walk_url(root: str) -> Files:
    files = Files([], np.empty(0), np.empty(0), [], [], Counter(), [], [], [], np.empty(0, np.int32))
    found, unknown = dict[str, listing.Entry](), list[str]()

    def enter(folder: str, held: list[listing.Entry]) -> list[str]:
        run = _parts_of_a_run({entry.name for entry in held})
        if folder and run:
            return []
        return [entry.name for entry in held if entry.is_folder and entry.name not in run and not _junk(entry.name, is_folder=True)]

    with progress.bar(Console(stderr=True)) as bar:
        task = bar.add_task("Listing folders", total=None)
        try:
            for folder, held in listing.tree(root, enter):
                if isinstance(held, PermissionError):
                    files.quarantine.append((printable(folder), "unreadable", f"the folder can't be listed: {held}"))
                else:
                    _sort_out(files, folder, held, found, unknown)
                bar.advance(task)
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(f"{error}.") from error
        if any(reason == "unreadable" and not path for path, reason, _ in files.quarantine):
            raise UserError(f"{files.quarantine[0][2].partition(': ')[2]}.")
        task = bar.add_task("Looking at files", total=len(unknown))
        for path, is_image in listing.at_once(lambda path: (path, _begins_like_an_image(root, path, found[path].size)), unknown):
            if not is_image:
                files.ignored[_NO_EXTENSION] += 1
                del found[path]
            bar.advance(task)
        files.paths = sorted(found)
        if places.is_http(root):
            task = bar.add_task("Asking for sizes", total=len(files.paths))
            answers = listing.sized(root, files.paths, lambda: bar.advance(task))
            answered = zip(files.paths, answers, strict=True)
            files.quarantine += [(path, "unreadable", str(one)) for path, one in answered if isinstance(one, Exception)]
            found = {one.name: one for one in answers if isinstance(one, listing.Entry)}
            files.paths = sorted(found)
    files.folders.sort()
    files.sizes = np.array([found[path].size for path in files.paths], np.int64)
    files.mtimes_ns = np.array([found[path].stamp for path in files.paths], np.int64)
    numbers: dict[str, int] = {}
    files.parents = np.array([numbers.setdefault(path.rpartition("/")[0], len(numbers)) for path in files.paths], np.int32)
    files.visited = list(numbers)
    return files


def _sort_out(files: Files, folder: str, held: list[listing.Entry], found: dict[str, listing.Entry], unknown: list[str]) -> None:
    """Adds what a folder at a URL holds: images to `found`, and to `unknown` those that only their first bytes may tell."""
    if not _is_entered(files, folder, held):
        return
    for entry in _without_a_run(files, held):
        path = f"{folder}/{entry.name}" if folder else entry.name
        verdict, detail = _judge_name(entry.name, entry.is_folder)
        if verdict == "image" or detail == _NO_EXTENSION:
            found[path] = entry
            if verdict == "unknown":
                unknown.append(path)
        elif verdict in ("ignored", "unknown"):  # a request for each .json would cost more than the photo that is called so
            files.ignored[detail] += 1
        elif verdict != "folder":
            files.quarantine.append((printable(path), verdict, detail))


def _begins_like_an_image(root: str, path: str, size: int) -> bool:
    """Whether a file of no known extension at a URL is an image; of unknown size (https://) it is read whole."""
    url = places.join(root, path)
    try:
        data = transfer.read(url) if size < 0 else transfer.read_range(url, 0, min(16, size))
    except (FileNotFoundError, PermissionError):
        return False
    return bool(images.sniff(data[:16]))


def printable(path: str) -> str:
    """The path with bytes that are no text written as \\xNN, so that it can be stored and shown."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def existing(path: str, field: str) -> str:
    """The absolute form of a path, or of a URL, that must exist."""
    if not path:
        raise UserError(f"config.{field} is empty: set it to the path of your data.")
    if places.is_url(path):
        url = places.check(path)
        if not listing.kind_of(url):
            raise UserError(f"config.{field}={path!r}: there is nothing; check the address.")
        return url
    full = os.path.abspath(os.path.expanduser(places.without_file(path)))
    if not os.path.exists(full):
        place = "" if os.path.isabs(os.path.expanduser(path)) else f", or start the command in the folder that {path!r} is relative to"
        raise UserError(f"config.{field}={path!r}: {full} does not exist; check the path{place}.")
    return full


def is_folder(place: str) -> bool:
    """Whether a path, or what stands at a URL, is a folder."""
    return listing.kind_of(place) == "folder" if places.is_url(place) else os.path.isdir(place)


def counts(ignored: Counter[str]) -> str:
    """`3 .json, 1 .txt`: what was ignored, for a message."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))


_OF_A_RUN = {"checkpoints", "samples", "tensorboard"}  # the folders that a run makes in its own, with pictures in the second


def _is_entered(files: Files, folder: str, entries: Entries) -> bool:
    """Notes a folder; says whether its entries are looked at, which those of a run's own folder are not."""
    if folder and _parts_of_a_run({entry.name for entry in entries}):
        files.ignored["folder of a run"] += 1
        files.notes.append(f"{printable(folder)} is the folder of a run (config.json, checkpoints): passed over.")
        return False
    if folder:
        files.folders.append(folder)
    return True


def _without_a_run(files: Files, entries: Entries) -> Iterator[Any]:
    """The entries of a folder, but for the parts of a run among them, which are noted."""
    run = _parts_of_a_run({entry.name for entry in entries})
    for entry in entries:
        if entry.name in run:
            files.ignored["folder of a run"] += 1
            files.notes.append(f"{entry.name} of a run was passed over: give runs a folder apart from the photos.")
        else:
            yield entry


def _parts_of_a_run(names: set[str]) -> set[str]:
    """The entries that make a folder that of a run, also of one whose start had failed; none where it is another folder."""
    if "checkpoints" not in names or not names & {"config.json", ".lock"}:
        return set()
    return names & _OF_A_RUN if "dataset.parquet" in names else {"checkpoints"}  # a run that has begun; else a class may be called samples


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _junk(name: str, is_folder: bool) -> str:
    """The kind of a hidden file or an operating system's leftover, else ""."""
    if name in (".DS_Store", "__MACOSX"):
        return name
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return "hidden folder" if is_folder else "hidden file"
    return name.strip() if name.lower() in (_JUNK_FOLDERS if is_folder else _JUNK_FILES) else ""


def _judge(entry: os.DirEntry[str]) -> tuple[str, str]:
    """("image" | "folder", ""), ("ignored", kind), or a reason for the quarantine and its detail."""
    name = entry.name
    try:
        if name[0] != "." and os.path.splitext(name)[1].lower() in images.EXTENSIONS and entry.is_file():
            return "image", ""  # what nearly all of a million entries are
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:  # such as a link to itself
        return "unreadable", error.strerror or str(error)
    verdict, detail = _judge_name(entry.name, is_folder)
    if verdict == "unknown":
        verdict, detail = ("image", "") if is_file and _starts_like_an_image(entry.path) else ("ignored", detail)
    if verdict == "image" and not is_file:
        return ("missing", "a link to nothing") if entry.is_symlink() else ("unreadable", "not a regular file")
    return verdict, detail


def _judge_name(name: str, is_folder: bool) -> tuple[str, str]:
    """What `_judge` returns, as far as the name tells; or ("unknown", kind) of a file that may be an image under another name."""
    if junk := _junk(name, is_folder):
        return "ignored", junk
    if is_folder:
        return "folder", ""
    extension = os.path.splitext(name)[1].lower()
    if extension in images.UNSUPPORTED_EXTENSIONS:
        return "unsupported", f"{extension} can't be read; convert it to JPEG or PNG"
    if extension in images.EXTENSIONS:
        return "image", ""
    return "unknown", extension if _EXTENSION.fullmatch(extension) else _NO_EXTENSION


def _starts_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(images.sniff(file.read(16)))
    except OSError:
        return False  # counted by its extension, like the others that are not known to be images
