"""Which source reads what lies at a path, told from what is there; each has a shipped config of its name."""

import os

import pyarrow as pa
import pyarrow.parquet as pq

from imgclf.data.packing import manifest
from imgclf.data.packing.places import place_of
from imgclf.data.sources.hf import PARQUET, holds_images
from imgclf.data.sources.webdataset import TARS
from imgclf.remote import listing, places

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".csv.gz", ".tsv.gz")


def is_table(name: str) -> bool:
    """Whether a file is a table of images, by its name."""
    return name.lower().endswith(TABLES)


def source_of(path: str) -> str:
    """The name of the source: folder | csv | packed | webdataset | hf; "" for a file that none of them reads.

    Args:
      path: of a folder or file that is there; or a URL, or a pattern of tar files, of which only the name is looked at. A data set of the
        hub may be parquet files or photos: it is listed, two folders deep.
    """
    if path.lower().endswith(TARS):
        return "webdataset"
    if is_table(path):
        return "hf" if path.lower().endswith(PARQUET) and not places.is_url(path) and _has_images(path) else "csv"
    if manifest.is_pack(path):
        return "packed"
    if places.is_url(path):
        return "hf" if path.lower().startswith("hf://datasets/") and _holds_parquet(path) else "folder"
    if os.path.isfile(os.path.expanduser(path)):
        return ""
    names = [f"{part}/{name}".lstrip("/") for part in ("", "data", "train") for name in place_of(path).sizes(part)]
    tables = [name for name in names if name.lower().endswith(PARQUET)]
    if tables and _has_images(os.path.join(path, tables[0])):
        return "hf"
    return "webdataset" if any(name.lower().endswith(TARS) for name in names) else "folder"


def _holds_parquet(url: str) -> bool:
    def enter(folder: str, held: list[listing.Entry]) -> list[str]:
        return [] if folder else [entry.name for entry in held if entry.is_folder]

    try:
        for _, held in listing.tree(url, enter):
            if not isinstance(held, PermissionError) and any(entry.name.lower().endswith(PARQUET) for entry in held):
                return True
    except FileNotFoundError:
        pass  # whoever reads it says so
    return False


def _has_images(path: str) -> bool:
    try:
        return any(holds_images(field.type) for field in pq.read_schema(os.path.expanduser(path)))
    except (OSError, pa.ArrowException):  # said by the source
        return False
