"""The folders of the cache beside the features: what they hold, how large they are, and their removal."""

import dataclasses
import shutil

from imgclf.errors import UserError, nearest
from imgclf.files import cache_dir

# What is made again when it is needed. Clearing the others would lose something: weights and Open Images' metadata, which were fetched or
# put there by hand, the working copies of runs at URLs, and the runs of notebooks.
KINDS = {
    "xla": "compiled programs",
    "programs": "programs of predictions, which need not be traced",
    "plans": "plans of trainings",
    "forms": "which forms of convolutions are fastest on this machine",
    "onednn": "the library that connects oneDNN",
    "verified": "what was found when images were verified",
    "listings": "listings of large folders",
    "shared": "columns of large tables, for worker processes",
    "webdataset": "indexes of tar files",
    "parquet": "images of parquet data sets",
    "fetched": "runs that were loaded by URL",
}


@dataclasses.dataclass(frozen=True)
class CacheFolder:
    """A folder of the cache: its name, what it holds, how many files of how many bytes."""

    name: str
    about: str
    files: int
    size: int


def entries() -> list[CacheFolder]:
    """The folders that are there."""
    found = []
    for name, about in KINDS.items():
        sizes = [path.lstat().st_size for path in (cache_dir() / name).rglob("*") if path.is_file()]
        if sizes:
            found.append(CacheFolder(name, about, len(sizes), sum(sizes)))
    return found


def clear(name: str) -> CacheFolder:
    """Removes one of `KINDS`, and returns what it was.

    Raises:
      UserError: for a name that is none of them, or of which there is nothing.
    """
    there = {entry.name: entry for entry in entries()}
    if name not in there:
        raise UserError(f"{name!r} is no folder of the cache {cache_dir()} that can be cleared; {nearest(name, there)}")
    shutil.rmtree(cache_dir() / name)
    return there[name]
