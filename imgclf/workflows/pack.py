"""Packs the photos of a config into a few large files, from which they are read faster. Only the search for scenes needs JAX."""

import dataclasses
import os
from pathlib import Path

from rich.console import Console

from imgclf.config import Config
from imgclf.data.packing import forms, writing
from imgclf.data.packing.forms import Form
from imgclf.data.packing.places import Place, place_of
from imgclf.data.prepare import prepare
from imgclf.errors import UserError, nearest
from imgclf.remote import places
from imgclf.workflows import checks
from imgclf.workflows.asked import Fields, asked_for
from imgclf.workflows.console import or_terminal

_FEW = 2_000  # photos, below which starting processes takes longer than packing does


@dataclasses.dataclass(frozen=True)
class Pack:
    """What was done.

    Attributes:
      place: the folder or URL of the pack.
      images, quarantined: how many photos were packed, and how many could not be used.
      splits: photos of each split.
      bytes: of all shards.
      made, found: shards that were written, and that were there already.
      exact: whether every picture's pixels are the photo's.
    """

    place: str
    images: int
    quarantined: int
    splits: dict[str, int]
    bytes: int
    made: int
    found: int
    exact: bool


def pack_data(  # noqa: PLR0913  (options by name)
    config: Config | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    format: str = "jpeg",
    quality: int = 95,
    workers: int | None = None,
    fields: Fields = (),
    console: Console | None = None,
) -> Pack:
    """Packs the photos of a config with their classes, splits, groups, scenes and quarantine; `data.source="packed"` reads them.

    Interrupted, the same call continues with the first shard that is not finished; over a finished pack it mends damaged shards. The result
    is the same to the byte, whatever the number of workers.

    Args:
      config: the whole config, or what `load_config` reads one from, such as "folder:PHOTOS".
      out: the folder or URL to write: empty, absent, or begun by the same call.
      size: of the pictures' shorter side in pixels; the proportions stay, nothing is cut off, and none is enlarged. 0 = the photos' own.
      format: jpeg | webp | raw (plain pixels: the largest, and the fastest to read).
      quality: of jpeg and webp, 1..100; webp at 100 is without loss.
      workers: processes; None = one per core, or none beside this one for less than 2,000 photos.
      fields: of the config, see `load_config`: data.* counts.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> packed = imgclf.pack_data("folder:photos", "packed", size=32, console=quiet)
      >>> packed.images, packed.quarantined, packed.splits
      (75, 1, {'train': 52, 'val': 12, 'test': 11})
      >>> len(imgclf.load_images("packed", verbose=False))
      75
    """
    own = asked_for(config, fields).config
    form = check(own, out, size=size, format=format, quality=quality, workers=workers)
    own.data.verify = "first"  # what is packed is whole
    place = place_of(out)
    console = or_terminal(console)
    find_scenes = None
    if own.data.scenes != "off":
        from imgclf.workflows import scenes  # imports JAX: after the mistakes above

        find_scenes = scenes.finder(own, console)
    prepared = prepare(own, find_scenes=find_scenes)
    table = prepared.loaded.table
    if workers is None:
        workers = (os.cpu_count() or 1) if len(table) >= _FEW else 1
    done = writing.write(prepared, form, place, workers=workers, console=console)
    splits = {str(name): int(count) for name, count in table["split"].value_counts().items()}
    size_of_all = sum(shard.bytes for shard in done.manifest.shards)
    left_out = len(prepared.loaded.quarantine)
    return Pack(str(place), len(table), left_out, splits, size_of_all, done.made, done.found, done.manifest.exact)


def check(
    config: Config,
    out: str | os.PathLike[str],
    *,
    size: int,
    format: str,
    quality: int,
    workers: int | None,
) -> Form:
    """Checks what was asked for, before JAX is imported and anything is written; see `pack_data`.

    Raises:
      UserError: for the first mistake.
    """
    if format not in forms.FORMATS:
        raise UserError(f"format={format!r} is none; {nearest(str(format), forms.FORMATS)}")
    if size < 0:
        raise UserError(f"size={size} is not valid: give the shorter side in pixels, such as 256, or 0 for the photos' own size.")
    if not 1 <= quality <= 100:
        raise UserError(f"quality={quality} is not valid: expected 1 to 100.")
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers} is not valid: expected 1 or more.")
    checks.check_config(config)
    if config.data.source == "packed" and _same(place_of(config.data.path), place_of(out)):
        raise UserError(f"--out={out} is the pack that would be packed: choose another folder with --out=DIR.")
    if not places.is_url(place_of(out).path):
        checks.check_apart(config, Path(place_of(out).path), "--out")
    return Form(format, size, 0 if format == "raw" else quality)


def _same(one: Place, other: Place) -> bool:
    if places.is_url(one.path) or places.is_url(other.path):
        return one.path.rstrip("/") == other.path.rstrip("/")
    return os.path.realpath(one.path) == os.path.realpath(other.path)
