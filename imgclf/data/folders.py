"""Listing files, and the source "folder": class folders, with or without split folders above them."""

import dataclasses
import os
import re
from collections import Counter

import numpy as np

from imgclf.data import images
from imgclf.data.readers import FileReader, SourceReader
from imgclf.errors import UserError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # in any case
_JUNK_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,9}")


@dataclasses.dataclass
class Listing:
    """What a source says of its images before any is decoded; a row per image."""

    source: str
    ids: list[str]  # unique, printable
    reader: SourceReader
    sizes: np.ndarray  # int64, bytes; with mtimes_ns what tells that an image is still the same
    mtimes_ns: np.ndarray  # int64
    classes: list[str] | None  # None: the label is stored with the image, an index into class_names
    class_names: tuple[str, ...]  # each must get an image
    splits: list[str]  # train | val | test | ""
    groups: list[str]  # "" = none
    quarantine: list[tuple[str, str, str]]  # id, reason, detail
    ignored: Counter
    cached_as: str  # what names its verification cache; "" = none


@dataclasses.dataclass
class Files:
    """The result of `walk`, sorted by path; a row per image file."""

    paths: list[str]  # relative to the root, with "/"
    sizes: np.ndarray  # int64, bytes
    mtimes_ns: np.ndarray  # int64
    folders: list[str]  # all visible folders, relative
    quarantine: list[tuple[str, str, str]]
    ignored: Counter


def walk(root: str) -> Files:
    """Lists the image files under `root`, to any depth; nothing is decoded.

    Image files are those with an extension in `images.EXTENSIONS`, in any case, and those without an extension (or with one that is
    none, as in `photo.jpg!large`, `0001.375`) whose first bytes are an image's. Formats Pillow can't read are quarantined. Hidden
    files, operating systems' leftovers and all other extensions are counted in `ignored` by kind. Links are followed; a folder is
    entered once, by its own name rather than by a link's, so loops end.
    """
    names: list[str] = []
    sizes: list[int] = []
    mtimes: list[int] = []
    files = Files([], np.empty(0), np.empty(0), [], [], Counter())
    seen: set[tuple[int, int]] = set()
    folders, links = [""], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(os.stat(os.path.join(root, folder)))
            if identity in seen:
                files.ignored["link to a folder listed already"] += 1
                continue
            seen.add(identity)
            if folder:
                files.folders.append(folder)
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
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
        raise UserError(f"config.{field}={path!r}: {full} does not exist; check the path.")
    return full


def list_folder(path: str, max_pixels: int) -> Listing:
    """Lists `path/CLASS/…` or `path/{train,val|valid|validation,test}/CLASS/…`; deeper folders belong to their class.

    The second layout is taken where every visible folder in `path` has a split's name (in any case) and there are two, or a train.

    Raises:
      UserError: if there is no such folder, no image in it, or an image's class can't be told from the folders.
    """
    root = existing(path, "data.path")
    if not os.path.isdir(root):
        raise UserError(f"config.data.path={path!r} is a file: set config.data.source=csv to read a table, or name a folder.")
    files = walk(root)
    tops = [folder for folder in files.folders if "/" not in folder]
    split_of = {top: SPLIT_NAMES.get(top.lower(), "") for top in tops}
    depth = int(all(split_of.values()) and (len(tops) > 1 or "train" in split_of.values()))  # of the class folders
    class_folders = [folder for folder in files.folders if folder.count("/") == depth]
    if not files.paths and not files.quarantine:
        others = f" (ignored: {_counts(files.ignored)})" if files.ignored else ""
        raise UserError(f"{root} holds no image{others}: put a folder of images per class into it.")
    if depth:
        _check_split_folders(root, tops, class_folders, files.paths)
    elif not class_folders:
        raise UserError(
            f"{root} holds images ({len(files.paths)}) but no class folders: sort them into a folder per class, or list them with their "
            "labels in a CSV file (config.data.source=csv)."
        )
    names = tuple(sorted({folder.split("/")[depth] for folder in class_folders}))
    if len(names) == 1:
        raise UserError(_single_class(root, class_folders, files.folders))
    rows, classes = [], []
    for row, file in enumerate(files.paths):
        parts = file.split("/", depth + 1)
        if len(parts) == depth + 2:
            rows.append(row)
            classes.append(parts[depth])
        else:
            files.quarantine.append((printable(file), "unlabeled", "beside the class folders, not in one"))
    # Class folders may hold folders only, or nothing: classes without an image are found when all is verified.
    paths = [files.paths[row] for row in rows]
    return Listing(
        source=root,
        ids=[printable(file) for file in paths],
        reader=FileReader(root, paths, files.sizes[rows], max_pixels),
        sizes=files.sizes[rows],
        mtimes_ns=files.mtimes_ns[rows],
        classes=[printable(name) for name in classes],
        class_names=tuple(printable(name) for name in names),
        splits=[split_of[file.split("/", 1)[0]] if depth else "" for file in paths],
        groups=[""] * len(rows),
        quarantine=files.quarantine,
        ignored=files.ignored,
        cached_as=root,
    )


def _check_split_folders(root: str, tops: list[str], class_folders: list[str], paths: list[str]) -> None:
    loose = Counter(path.split("/")[0] for path in paths if path.count("/") == 1)
    with_classes = {folder.split("/")[0] for folder in class_folders}
    for top in sorted(set(tops) - with_classes):
        if loose[top]:
            raise UserError(
                f"{os.path.join(root, top)} holds {loose[top]} images but no class folders, so their labels are unknown: sort them into a "
                "folder per class, or move the folder elsewhere and predict its images with the trained model."
            )
        raise UserError(f"{os.path.join(root, top)} holds no image: fill it, or remove it.")


def _single_class(root: str, class_folders: list[str], folders: list[str]) -> str:
    only = class_folders[0]
    inner = [folder for folder in folders if folder.startswith(only + "/") and folder.count("/") == only.count("/") + 1]
    hint = ""
    if len(class_folders) == 1 and len(inner) > 1:
        hint = f" (or did you mean {os.path.join(root, only)}, which holds {len(inner)} folders?)"
    return f"{root} holds one class only, {os.path.basename(only)!r}; a classifier needs two: add a folder for another class{hint}."


def _counts(ignored: Counter) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))


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


def _judge(entry: os.DirEntry) -> tuple[str, str]:
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
    if extension not in images.EXTENSIONS:
        if _EXTENSION.fullmatch(extension):
            return "ignored", extension
        if not is_file or not _starts_like_an_image(entry.path):
            return "ignored", "no extension"
    if not is_file:
        return ("missing", "a link to nothing") if entry.is_symlink() else ("unreadable", "not a regular file")
    return "image", ""


def _starts_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(images.sniff(file.read(16)))
    except OSError:
        return False  # counted as a file without extension, like the others that are not known to be images
