"""What of a pack can't be read: told from the sizes of its files each time, and from every record where somebody asks for that."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import progress
from imgclf.data.images import ImageError
from imgclf.data.packing import manifest
from imgclf.data.packing.manifest import Manifest
from imgclf.data.packing.places import Place, place_of
from imgclf.data.packing.reader import PackedReader
from imgclf.errors import UserError

Bad = tuple[str, str, str]  # id, reason, detail, as in a quarantine
_COLUMNS = ["id", "reason", "detail"]


def known(place: Place, about: Manifest, index: pd.DataFrame) -> list[Bad]:
    """The pictures that can't be read, as far as that is known without reading records: by the sizes of files, and by `damaged.csv`."""
    shards, ends = index["shard"].to_numpy(), (index["offset"] + index["length"]).to_numpy()
    bad: dict[str, Bad] = {}
    sizes = place.sizes_of([file.name for file in about.shards])
    for number, (file, size) in enumerate(zip(about.shards, sizes, strict=True)):
        if size in (file.bytes, -1):  # https:// may not say the size
            continue
        rows = np.flatnonzero((shards == number) & (ends > (size or 0)))
        reason, detail = ("missing", f"{file.name} is gone") if size is None else ("truncated", f"{file.name} is cut off")
        if size is not None:
            detail += f": {size:,} of {file.bytes:,} bytes"
        bad |= {name: (name, reason, detail) for name in index["id"].iloc[rows]}
    if (data := place.read(manifest.DAMAGED)) is not None:
        listed = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
        there = set(index["id"])
        bad |= {row[0]: row for row in listed[_COLUMNS].itertuples(index=False, name=None) if row[0] in there and row[0] not in bad}
    return list(bad.values())


def tables(place: Place, about: Manifest) -> list[str]:
    """The names of the files beside the shards that are gone, or have other bytes than were written."""
    bad = []
    for name, expected in about.tables.items():
        data = place.read(name)
        if data is None or hashlib.sha256(data).hexdigest() != expected:
            bad.append(name)
    return bad


class Checked(NamedTuple):
    """What `check` has found: the number of pictures, those that can't be read, and the files beside the shards that are damaged."""

    images: int
    bad: list[Bad]
    tables: list[str]


def check(path: str, console: Console) -> Checked:
    """Reads every record of a pack, and writes down which ones are damaged (`damaged.csv`), so that they are left out from then on.

    Without a sound index, which says where the records stand, none is read.

    Args:
      path: of the pack.
      console: for the progress.

    Raises:
      UserError: if there is no pack, its index is damaged, or nothing can be written beside it.
    """
    place = place_of(path)
    about = manifest.read(place)
    damaged = tables(place, about)
    if manifest.INDEX in damaged:
        raise UserError(
            f"{place}/{manifest.INDEX} has other bytes than were written, and no record was read, as it says where they stand: give the "
            "command that made the pack once more, which mends it, or copy the file anew."
        )
    index = manifest.read_table(place, manifest.INDEX)
    reader = PackedReader(place, about.shards, index, raw=about.form.format == "raw")
    sizes = place.sizes_of([file.name for file in about.shards])

    ids, places = index["id"].tolist(), index[["shard", "record"]].to_numpy().tolist()

    def problem(row: int) -> Bad | None:
        shard, record = places[row]
        name = about.shards[shard].name
        if sizes[shard] is None:
            return ids[row], "missing", f"{name} is gone"
        try:
            reader.record(row)
        except (OSError, ImageError) as error:
            return ids[row], "damaged", f"{name}, record {record}: {error}"
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(console, rate="images") as bar:
        found = list(bar.track(pool.map(problem, range(len(index))), len(index), description="Checking records"))
    bad = [one for one in found if one is not None]
    with _written(place):
        if bad:
            place.write(manifest.DAMAGED, pd.DataFrame(bad, columns=_COLUMNS).to_csv(index=False).encode())
        else:
            place.remove(manifest.DAMAGED)
    return Checked(len(index), bad, damaged)


@contextlib.contextmanager
def _written(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{place}/{manifest.DAMAGED}, which names damaged pictures, can't be written ({error.strerror or error}): allow writing there."
        ) from error
