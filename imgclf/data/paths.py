"""Paths as people give them, and the image files under a folder."""

import dataclasses
import os
import re
from collections import Counter

import numpy as np

from imgclf.data import images
from imgclf.errors import UserError

_JUNK_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,9}")


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


def walk(root: str) -> Files:
    """Lists the image files under `root`, to any depth; nothing is decoded.

    Image files are those with an extension in `images.EXTENSIONS`, in any case, and those of any other name whose first bytes are an
    image's (`photo.jpg!large`, `0001.375`, `scan`). Formats that can't be read are quarantined. Hidden files, operating systems'
    leftovers and everything else are counted in `ignored` by kind. Links are followed; a folder is entered once, by its own name rather
    than by a link's, so loops end. The folder of a run (config.json beside checkpoints) is passed over: its pictures are no photos.
    """
    names: list[str] = []
    sizes: list[int] = []
    mtimes: list[int] = []
    files = Files([], np.empty(0), np.empty(0), [], [], Counter(), [])
    seen: dict[tuple[int, int], str] = {}
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(os.stat(os.path.join(root, folder)))
            if identity in seen:
                files.ignored["link to a folder listed already"] += 1
                files.notes.append(f"{printable(folder)} is a link to {printable(seen[identity]) or 'the folder itself'}: passed over.")
                continue
            seen[identity] = folder
            with os.scandir(os.path.join(root, folder)) as scanned:
                entries = list(scanned)
            run = _parts_of_a_run({entry.name for entry in entries})
            if folder and run:
                files.ignored["folder of a run"] += 1
                files.notes.append(f"{printable(folder)} is the folder of a run (config.json, checkpoints): passed over.")
            else:
                if folder:
                    files.folders.append(folder)
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name in run:
                        files.ignored["folder of a run"] += 1
                        files.notes.append(f"{entry.name} of a run was passed over: give runs a folder apart from the photos.")
                        continue
                    verdict, detail = _judge(entry)
                    if verdict == "image":
                        status = entry.stat()
                        names.append(path)
                        sizes.append(status.st_size)
                        mtimes.append(status.st_mtime_ns)
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
    return files


def printable(path: str) -> str:
    """The path with bytes that are no text written as \\xNN, so that it can be stored and shown."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def existing(path: str, field: str) -> str:
    """The absolute form of a path that must exist."""
    if not path:
        raise UserError(f"config.{field} is empty: set it to the path of your data.")
    full = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(full):
        place = "" if os.path.isabs(os.path.expanduser(path)) else f", or start the command in the folder that {path!r} is relative to"
        raise UserError(f"config.{field}={path!r}: {full} does not exist; check the path{place}.")
    return full


def counts(ignored: Counter[str]) -> str:
    """`3 .json, 1 .txt`: what was ignored, for a message."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))


_OF_A_RUN = {"checkpoints", "samples", "tensorboard"}  # the folders that a run makes in its own, with pictures in the second


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
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:  # such as a link to itself
        return "unreadable", error.strerror or str(error)
    if junk := _junk(entry.name, is_folder):
        return "ignored", junk
    if is_folder:
        return "folder", ""
    extension = os.path.splitext(entry.name)[1].lower()
    if extension in images.UNSUPPORTED_EXTENSIONS:
        return "unsupported", f"{extension} can't be read; convert it to JPEG or PNG"
    if extension not in images.EXTENSIONS and not (is_file and _starts_like_an_image(entry.path)):
        return "ignored", extension if _EXTENSION.fullmatch(extension) else "no extension"
    if not is_file:
        return ("missing", "a link to nothing") if entry.is_symlink() else ("unreadable", "not a regular file")
    return "image", ""


def _starts_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(images.sniff(file.read(16)))
    except OSError:
        return False  # counted by its extension, like the others that are not known to be images
