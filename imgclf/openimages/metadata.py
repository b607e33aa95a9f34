"""Open Images' metadata on this machine: each file is fetched once and kept as parquet.

The files lie in `cache_dir()/openimages/HOST/PATH`, with PATH as in the release, so that versions that share a file share its copy.
"""

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from rich.console import Console

from imgclf import files, progress
from imgclf.errors import UserError
from imgclf.openimages import releases, resuming, tables, transport

SCAN_ABOVE = 256 << 20  # bytes: the first query of a CSV this large scans it, and conversion to parquet can wait
SCAN_LABELS = 16  # … if it asks for no more labels than that


class Metadata:
    """The files of a version, fetched when they are asked for.

    Attributes:
      version: "V4" … "V7".
      base_url: where the files come from; it ends with a slash.
      folder: where the files are kept.
    """

    def __init__(
        self,
        version: str = "V7",
        base_url: str = releases.BASE_URL,
        *,
        timeout: float = 30.0,
        console: Console | None = None,
    ):
        """Fetches nothing yet.

        Args:
          version: "V4" … "V7", in any case.
          base_url: the official one, or that of a private mirror with the same paths.
          timeout: seconds to wait for a connection, and between two bytes.
          console: for the progress bars; None = none.
        """
        self.version = releases.check_version(version)
        self.base_url = transport.check_url(base_url, "base_url")
        parts = urlsplit(self.base_url)
        place = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{parts.netloc}{parts.path}".rstrip("/"))
        self.folder = files.cache_dir() / "openimages" / place
        self._timeout = timeout
        self._console = console or Console(quiet=True)

    def boxes(self, split: str, labels: Collection[str]) -> pa.Table:
        """Returns the boxes with one of these labels: columns of `tables.BOXES`; ids and labels as strings.

        Raises:
          UserError: if the file can't be fetched or a line of it can't be read.
        """
        return self._select(releases.boxes_file(self.version, split), tables.BOXES, labels)

    def labels(self, split: str, labels: Collection[str], *, boxable: bool) -> pa.Table:
        """Returns those human-verified labels of whole images: columns of `tables.LABELS`; Confidence 1 = there, 0 = not there."""
        return self._select(releases.labels_file(self.version, split, boxable), tables.LABELS, labels)

    def images(self, split: str, ids: Collection[str], *, boxable: bool) -> pa.Table:
        """Returns the image list's rows of these ids: columns of `tables.IMAGES`."""
        return tables.query(self._parquet(releases.images_file(split, boxable), tables.IMAGES), "ImageID", ids)

    def box_counts(self, split: str) -> dict[str, int]:
        """Returns label → number of boxes in a split."""
        return tables.count(self._parquet(releases.boxes_file(self.version, split), tables.BOXES))

    def local_box_counts(self, fetch: Collection[str] = ()) -> dict[str, dict[str, int]]:
        """Returns split → label → number of boxes, for the splits whose boxes are on this machine, and for those of `fetch`."""
        asked = {releases.check_split(split) for split in fetch}
        return {split: self.box_counts(split) for split in releases.SPLITS if split in asked or self.has_boxes(split)}

    def has_boxes(self, split: str) -> bool:
        """Tells whether the boxes of a split are on this machine already."""
        path = self._path(releases.boxes_file(self.version, split))
        return path.exists() or path.with_suffix(".parquet").exists()

    def text(self, name: str) -> Path:
        """Returns the path of a small file, which is kept as it is: class names, hierarchy."""
        with self._claim(name):
            return self._fetched(name)

    def keep(self) -> None:
        """Converts files that have only been scanned so far, so that later queries read parquet; the CSVs are deleted."""
        for path in sorted(self.folder.rglob("*-annotations-*.csv")):
            self._parquet(str(path.relative_to(self.folder)), tables.LABELS if "imagelabels" in path.name else tables.BOXES)

    def _select(self, name: str, schema: tables.Schema, labels: Collection[str]) -> pa.Table:
        with self._claim(name):
            if not self._path(name).with_suffix(".parquet").exists():
                path = self._fetched(name)
                if path.stat().st_size > SCAN_ABOVE and len(labels) <= SCAN_LABELS:
                    return tables.scan(path, schema, labels)
        return tables.query(self._parquet(name, schema), "LabelName", labels)

    def _path(self, name: str) -> Path:
        return self.folder / name

    @contextlib.contextmanager
    def _claim(self, name: str) -> Iterator[None]:
        """Waits until no other process fetches or converts the same file, and keeps them from it meanwhile."""
        lock = self._path(name + ".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with files.locked(lock, "", wait=-1):
                yield
        except OSError as error:
            raise UserError(
                f"{lock.parent} can't be written ({error.strerror or error}): make room, or set IMGCLF_CACHE to another disk; "
                "what is fetched already is kept and continued."
            ) from None

    def _parquet(self, name: str, schema: tables.Schema) -> Path:
        target = self._path(name).with_suffix(".parquet")
        with self._claim(name):
            if not target.exists():
                path = self._fetched(name)
                with progress.bar(self._console, amount="bytes") as bar:
                    task = bar.add_task(f"Converting {path.name}", total=path.stat().st_size)
                    tables.convert(path, target, schema, lambda count: bar.advance(task, count))
                path.unlink()
        return target

    def _fetched(self, name: str) -> Path:
        """Returns the file, fetched if it is not there yet; what an interruption has left is continued."""
        path = self._path(name)
        if not path.exists():
            private = transport.leads_to_private(self.base_url)
            with transport.create_session(allow_private=private) as session, progress.bar(self._console, amount="bytes") as bar:
                task = bar.add_task(f"Fetching {path.name}", total=None)
                resuming.fetch(
                    session, self.base_url + name, path, self._timeout, lambda done, total: bar.update(task, completed=done, total=total)
                )
        return path
