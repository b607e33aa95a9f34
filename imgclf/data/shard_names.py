"""Files that hold many images each, as people name them: `train-{000000..000009}.tar`, `data/validation-00000-of-00003.parquet`."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterator

from imgclf.data.paths import existing
from imgclf.data.sources.base import SPLIT_WORDS
from imgclf.errors import UserError
from imgclf.remote import listing, places

_BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_WORD = re.compile(r"[a-z]+")
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A file: where it is, its name below the place that was given, its size in bytes, and what changes when its contents do."""

    path: str
    name: str
    size: int
    stamp: int

    @property
    def key(self) -> str:
        """Tells its contents from all others, as long as a change of them changes size or stamp."""
        return f"{self.path}\n{self.size}\n{self.stamp}"

    @property
    def stem(self) -> str:
        """The name without its extensions."""
        folder, _, file = self.name.rpartition("/")
        return f"{folder}/{file.partition('.')[0]}".lstrip("/")

    @property
    def split(self) -> str:
        """train, val or test, by the words of its name, else by its folder's, the nearest first; "" where none is one."""
        for part in reversed(self.name.lower().split("/")):
            for word in _WORD.findall(part.partition(".")[0]):
                if word in _SPLIT_OF:
                    return _SPLIT_OF[word]
        return ""


def run_name(path: str, otherwise: str) -> str:
    """A run's name after a path, an address or a pattern of files: its last part, as far as it has letters, digits and dashes."""
    return re.sub(r"[^\w-]+", "-", path.rstrip("/").rpartition("/")[2]).strip("-") or otherwise


def expanded(pattern: str) -> list[str]:
    """Writes out braces as a shell does: `a-{00..02}.tar`, `{train,val}.tar`."""
    match = _BRACE.search(pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    middles = words.split(",") if words else [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [name for middle in middles for name in expanded(pattern[: match.start()] + middle + pattern[match.end() :])]


def find(path: str, extensions: tuple[str, ...]) -> list[ShardFile]:
    """Finds the files of a data set, sorted by name.

    Args:
      path: a file, a folder that holds some (in folders of its own, too), a pattern of braces or stars, or a URL of these but for stars.
      extensions: of the files in a folder, with their points.

    Raises:
      UserError: where there is none, or one that is named is missing.
    """
    if _BRACE.search(path):
        return [_file(one, os.path.basename(one)) for one in expanded(path)]
    if "*" in path and not places.is_url(path):
        found = [_file(one, os.path.basename(one)) for one in sorted(glob.glob(os.path.expanduser(path)))]
    else:
        place = existing(path, "data.path")
        if places.is_url(place):
            is_file = place.lower().endswith(extensions)
            found = [_file(place, places.last_name(place))] if is_file else sorted(_below_url(place, extensions), key=_name)
        else:
            found = [_file(place, os.path.basename(place))] if os.path.isfile(place) else sorted(_below(place, extensions), key=_name)
    if not found:
        raise UserError(f"config.data.path={path!r} holds no {' or '.join(extensions)} file: name the folder or the pattern of your files.")
    return found


def _name(file: ShardFile) -> str:
    return file.name


def _file(path: str, name: str) -> ShardFile:
    if places.is_url(path):
        found = listing.sized("", [path])[0]
        if isinstance(found, OSError):
            raise UserError(f"config.data.path: {found}.") from found
        return ShardFile(path, name, found.size, found.stamp)
    full = existing(path, "data.path")
    status = os.stat(full)
    return ShardFile(full, name, status.st_size, status.st_mtime_ns)


def _below(root: str, extensions: tuple[str, ...]) -> Iterator[ShardFile]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(extensions) and not name.startswith("."):
                path = os.path.join(folder, name)
                status = os.stat(path)
                yield ShardFile(path, os.path.relpath(path, root).replace(os.sep, "/"), status.st_size, status.st_mtime_ns)


def _below_url(root: str, extensions: tuple[str, ...]) -> Iterator[ShardFile]:
    def enter(_: str, found: list[listing.Entry]) -> list[str]:
        return [entry.name for entry in found if entry.is_folder]

    for folder, entries in listing.tree(root, enter):
        if isinstance(entries, PermissionError):
            raise UserError(f"{entries}.") from entries
        for entry in entries:
            if not entry.is_folder and entry.name.lower().endswith(extensions):
                name = f"{folder}/{entry.name}" if folder else entry.name
                yield ShardFile(places.join(root, name), name, entry.size, entry.stamp)
