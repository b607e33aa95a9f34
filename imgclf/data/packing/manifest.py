"""What a pack says of itself: pack.json, and the index, a row per picture."""

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from imgclf.data.images import ValueRange
from imgclf.data.packing.forms import Form
from imgclf.data.packing.places import Place, place_of
from imgclf.errors import UserError
from imgclf.remote import retrying

VERSION = 1
ABOUT, INDEX, QUARANTINE, AUDIT, DAMAGED, LEDGER = (
    *("pack.json", "index.parquet", "quarantine.parquet", "audit.json", "damaged.csv", "ledger"),
)
# Columns of the index beside those of the table of images: which record it is, at which bytes of the shard, and what was put there.
PLACES = {"shard": np.int32, "record": np.int32, "offset": np.int64, "length": np.int64, "kept_height": np.int32, "kept_width": np.int32}
_TABLE = {"label": np.int32, "width": np.int32, "height": np.int32, "phash": np.int64}


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A file of a pack: its name, its number of records, its size in bytes, and its sha256."""

    name: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of pack.json.

    Attributes:
      name: of the config that was packed.
      digest: of all that was packed, and of how: two packs of one digest are the same to the byte.
      form: how pictures are kept.
      exact: whether every picture's pixels are the photo's.
      images: how many.
      class_names: sorted.
      class_map, label_patch: what was applied to the classes: the field, and the sha256 of the patch's file.
      color_profile: as `config.data` had it.
      scenes: whether the table says which pictures are shots of one scene.
      value_range: of photos of more than 8 bits, as it was decided for all of them.
      ignored: files that were no images: kind → count.
      shards: the files.
      tables: name → sha256 of the files beside the shards; of a pack that was made before they were kept, none.
    """

    name: str
    digest: str
    form: Form
    exact: bool
    images: int
    class_names: tuple[str, ...]
    class_map: tuple[tuple[str, str], ...]
    label_patch: str
    color_profile: bool
    scenes: bool
    value_range: ValueRange
    ignored: dict[str, int]
    shards: tuple[ShardFile, ...]
    tables: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def kept_as(self) -> str:
        """See `Reader.kept_as`."""
        form = self.form
        return "" if self.exact else f"pack {VERSION}: {form.format}, size {form.size}, quality {form.quality}"

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {"imgclf_pack": VERSION, **dataclasses.asdict(self)}


def is_pack(path: str) -> bool:
    """Whether a finished pack lies at a path or URL."""
    try:
        return place_of(path).read(ABOUT, retrying.FIRST_CONTACT) is not None
    except PermissionError:  # S3 answers so for a file that isn't there, too, to those who may not list the bucket
        return False


def read(place: Place) -> Manifest:
    """Reads pack.json.

    Raises:
      UserError: if there is no pack, an unfinished one, or one of another version.
    """
    try:
        text = place.read(ABOUT, retrying.FIRST_CONTACT)
    except PermissionError as error:
        raise UserError(f"{place}: {error}.") from error
    if text is None:
        if place.read(f"{LEDGER}/{ABOUT}") is not None:
            raise UserError(f"The pack {place} is unfinished: give the command that makes it once more, which continues it.")
        raise UserError(f"{place} is no pack (it has no {ABOUT}): make one with imgclf data pack CONFIG --out {place}, or check the path.")
    try:
        fields = json.loads(text)
        version = fields.pop("imgclf_pack")
        if version == VERSION:
            return _manifest(fields)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(
            f"{place} can't be read as a pack: its {ABOUT} is damaged, or not one that imgclf has written; give the command that made the "
            "pack once more, which mends it, or choose the folder of a pack."
        ) from None
    raise UserError(
        f"{place} is a pack of version {version}, and this imgclf reads version {VERSION}: pack the photos anew with imgclf data pack, "
        "or use the imgclf that has made it."
    )


def _manifest(fields: dict[str, Any]) -> Manifest:
    fields["form"] = Form(**fields["form"])
    fields["shards"] = tuple(ShardFile(**shard) for shard in fields["shards"])
    fields["class_names"] = tuple(fields["class_names"])
    for name in ("class_map", "value_range"):
        fields[name] = tuple(tuple(row) if isinstance(row, list) else row for row in fields[name])
    return Manifest(**fields)


def read_table(place: Place, name: str) -> pd.DataFrame:
    """Reads a table of a pack.

    Raises:
      UserError: if it is not there, or damaged.
    """
    data = place.read(name)
    try:
        if data is None:
            raise OSError("it is not there")
        table = pd.read_parquet(pa.BufferReader(data))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{place}/{name} can't be read ({error}): give the command that made the pack once more, which mends it, or copy the file anew."
        ) from error
    return table.astype({column: kind for column, kind in {**PLACES, **_TABLE}.items() if column in table})
