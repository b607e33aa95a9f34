"""From boxes to pictures: a file per box in class folders, and the table that training reads."""

import csv
import dataclasses
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console

from imgclf import files, progress
from imgclf.errors import UserError, nearest
from imgclf.openimages import attribution
from imgclf.openimages.ledger import Ledger
from imgclf.openimages.selection import Selection, load_selection

TABLE = "crops.csv"
NOTE = "crops.json"  # how the pictures were cut
BACKGROUND = "background"
SPLITS = ("auto", "official", "new")
_NAME = re.compile(r"[0-9a-f]{16}_(?:\d+|bg\d+)\.(?:jpg|png)")
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}  # counter-clockwise
_BACKGROUND_TRIES = 200


@dataclasses.dataclass(frozen=True)
class CropOptions:
    """How boxes become pictures.

    Attributes:
      padding: the share of the box's width and height that is added on each side, as far as the photo reaches.
      square: whether the shorter side grows to the length of the longer one, around the box's centre, and moved inward at the photo's
        edge; where the photo is too narrow the side stays shorter, since no pixels are made up.
      min_side: pictures with a side shorter than this (in pixels) are left out.
      background: at most so many pictures are cut from each photo that meet none of its selected boxes, as a class "background".
      split: official (Open Images'), new (none in the table: the run draws one, by photo), or auto (official if it has train and another).
      format: jpg (quality 95, full chroma) or png.
      seed: decides where the background is cut.
    """

    padding: float = 0.0
    square: bool = False
    min_side: int = 16
    background: int = 0
    split: str = "auto"
    format: str = "jpg"
    seed: int = 0

    def check(self) -> None:
        """Raises a UserError for a value that can't be meant."""
        if self.split not in SPLITS:
            raise UserError(f"The crops' split {self.split!r} is unknown; {nearest(self.split, SPLITS)}")
        if self.format not in ("jpg", "png"):
            raise UserError(f"--format={self.format!r} is unknown; valid: 'jpg', 'png'.")
        if not 0 <= self.padding <= 10 or self.min_side < 1 or self.background < 0:
            raise UserError("--padding must lie within 0 and 10, --min-side be at least 1, and --background at least 0.")


class Box(NamedTuple):
    """Pixels of the photo as it is stored: left <= x < right, top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def side(self) -> int:
        return min(self.right - self.left, self.bottom - self.top)


def pixel_box(x_min: float, y_min: float, x_max: float, y_max: float, width: int, height: int, options: CropOptions) -> Box:
    """Returns the pixels of a box, padded and squared as `options` say; there is at least one, and padding takes none away.

    Args:
      x_min, y_min, x_max, y_max: the box in shares of the photo.
      width, height: of the photo in pixels.
      options: of them, `padding` and `square` are used.
    """
    pad_x, pad_y = options.padding * (x_max - x_min), options.padding * (y_max - y_min)
    left, right = _span(x_min * width, x_max * width, width)
    top, bottom = _span(y_min * height, y_max * height, height)
    # Of a box of less than a pixel, the padded one may round to a neighbouring pixel: both are taken.
    padded_left, padded_right = _span((x_min - pad_x) * width, (x_max + pad_x) * width, width)
    padded_top, padded_bottom = _span((y_min - pad_y) * height, (y_max + pad_y) * height, height)
    left, right = min(left, padded_left), max(right, padded_right)
    top, bottom = min(top, padded_top), max(bottom, padded_bottom)
    if options.square:
        side = max(right - left, bottom - top)
        left, right = _widened(left, right, side, width)
        top, bottom = _widened(top, bottom, side, height)
    return Box(left, top, right, bottom)


def cut_out(photo: Image.Image, box: Box, rotation: float) -> Image.Image:
    """Returns the picture of a box: first cut, in stored pixels, then turned by `rotation` degrees counter-clockwise (a multiple of 90).

    The EXIF orientation is not applied, since boxes and rotation refer to the stored pixels.
    """
    picture = photo.crop(box)
    turns = round(rotation / 90) % 4
    return picture.transpose(_TURNS[turns]) if turns else picture


@dataclasses.dataclass(frozen=True)
class Crops:
    """What was cut.

    Attributes:
      table: a row per picture: path, label, split (with official splits), group (the photo's id), image_id, number, left, top, right,
        bottom (pixels of the stored photo), rotation, width, height.
      too_small: number of boxes that are left out, as a side is shorter than `CropOptions.min_side`.
    """

    table: pd.DataFrame
    too_small: int

    def counts(self) -> list[tuple[str, str, int, int]]:
        """Returns (class, split, crops, photos) in order; the split is "" where the run that trains on them is to draw one."""
        splits = self.table["split"] if "split" in self.table else pd.Series("", self.table.index)
        frame = pd.DataFrame({"label": self.table["label"], "split": splits, "photo": self.table["image_id"]}).drop_duplicates()
        photos = Counter(zip(frame["label"], frame["split"], strict=True))
        crops = Counter(zip(self.table["label"], splits, strict=True))
        return [(str(label), str(split), crops[label, split], photos[label, split]) for label, split in sorted(crops)]


def crop(folder: Path, options: CropOptions | None = None, console: Console | None = None) -> Crops:
    """Cuts the selection's boxes out of the photos that are there, into `folder`/crops/CLASS/, and lists them in `folder`/crops.csv.

    `imgclf train openimages_cnn:FOLDER` trains on that table. ATTRIBUTION.csv says what was changed in each photo.

    Args:
      console: for the progress bar.

    Raises:
      UserError: if no photo is there, or none of the boxes is large enough.
    """
    options = options or CropOptions()
    options.check()
    selection = load_selection(folder)
    photos = _photos(folder, selection)
    reuse = _as_before(folder, options)
    if not reuse:  # an interruption must not leave pictures of two kinds under one note
        (folder / NOTE).unlink(missing_ok=True)
    boxes = _boxes_of(selection, {photo.image_id for photo in photos})
    work = [(photo, boxes[photo.image_id]) for photo in photos if photo.image_id in boxes]
    rows: list[dict[str, Any]] = []
    too_small = 0
    try:
        with (
            ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="crop") as pool,
            progress.bar(console or Console(quiet=True)) as bar,
        ):
            done = pool.map(lambda one: _crop_photo(folder, one[0], one[1], options, reuse), work)
            for found, small in bar.track(done, len(work), description="Cropping"):
                rows += found
                too_small += small
    except OSError as error:
        raise UserError(f"{folder / 'crops'} can't be written ({error.strerror or error}): make room, and crop again.") from None
    if not rows:
        raise UserError(f"No crop in {folder} has sides of {options.min_side} pixels or more ({too_small} are smaller): lower --min-side.")
    table = _with_split(pd.DataFrame(rows).sort_values("path", ignore_index=True), options)
    _write(folder, table, options)
    _write_attribution(folder, selection, photos, table, options)
    return Crops(table, too_small)


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    first, last = max(0, min(limit - 1, round(low))), max(1, min(limit, round(high)))
    return (first, last) if first < last else (first, first + 1)


def _widened(low: int, high: int, side: int, limit: int) -> tuple[int, int]:
    side = min(side, limit)
    first = min(max(0, low - (side - (high - low)) // 2), limit - side)
    return first, first + side


class _Photo(NamedTuple):
    """A photo that is there; rotation in degrees counter-clockwise."""

    image_id: str
    split: str
    source: str
    file: str
    rotation: float


class _LabelledBox(NamedTuple):
    """A box of a photo, in shares of its width and height."""

    class_name: str
    number: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float


def _photos(folder: Path, selection: Selection) -> list[_Photo]:
    """Returns the photos that are there, by id."""
    records = Ledger(folder).records
    good = records[records["status"] == "ok"].drop_duplicates("image_id", keep="last")[["image_id", "file", "source"]]
    table = selection.images.merge(good, on="image_id").sort_values("image_id")
    rows = table[list(_Photo._fields)].itertuples(index=False, name=None)
    photos = [photo for photo in map(_Photo._make, rows) if (folder / photo.file).exists()]
    if not photos:
        raise UserError(f"{folder} holds no photo yet: fetch them with `imgclf openimages download {folder}`.")
    return photos


def _boxes_of(selection: Selection, ids: set[str]) -> dict[str, list[_LabelledBox]]:
    """Returns image id → its boxes, in the selection's order."""
    boxes: dict[str, list[_LabelledBox]] = {}
    columns = ["image_id", *_LabelledBox._fields]
    for image_id, *values in selection.boxes[columns].itertuples(index=False, name=None):
        if image_id in ids:
            boxes.setdefault(image_id, []).append(_LabelledBox(*values))
    return boxes


def _crop_photo(
    folder: Path, photo: _Photo, boxes: Sequence[_LabelledBox], options: CropOptions, reuse: bool
) -> tuple[list[dict[str, Any]], int]:
    """Writes the pictures of one photo; returns their rows, and how many were left out as too small."""
    rows: list[dict[str, Any]] = []
    small = 0
    with Image.open(folder / photo.file) as image:
        width, height = image.size
        places = [
            (box.class_name, f"{box.number:02d}", pixel_box(box.x_min, box.y_min, box.x_max, box.y_max, width, height, options))
            for box in boxes
        ]
        shares = np.array([(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes])
        background = enumerate(_background(photo.image_id, shares, width, height, options))
        places += [(BACKGROUND, f"bg{number}", pixels) for number, pixels in background]
        for class_name, number, pixels in places:
            if pixels.side < options.min_side:
                small += 1
                continue
            path = f"crops/{_folder_name(class_name)}/{photo.image_id}_{number}.{options.format}"
            if not (reuse and (folder / path).exists()):
                _save(cut_out(image, pixels, photo.rotation), folder / path, image.info.get("icc_profile"))
            turned = round(photo.rotation / 90) % 2
            size = (pixels.right - pixels.left, pixels.bottom - pixels.top)[:: -1 if turned else 1]
            names = {"path": path, "label": class_name, "split": photo.split, "group": photo.image_id, "image_id": photo.image_id}
            rows.append(names | {"number": number} | pixels._asdict() | {"rotation": photo.rotation, "width": size[0], "height": size[1]})
    return rows, small


def _background(image_id: str, boxes: np.ndarray, width: int, height: int, options: CropOptions) -> Iterator[Box]:
    """Yields places that meet none of the boxes ([n, 4]: left, top, right, bottom in shares); a seed always gives the same ones."""
    if not options.background:
        return
    seed = hashlib.blake2b(f"{options.seed} {image_id}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(seed, "big"))
    taken = boxes
    found = 0
    for _ in range(_BACKGROUND_TRIES):
        area, ratio = random.uniform(0.04, 0.35), math.exp(random.uniform(-0.5, 0.5))
        w, h = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        x, y = random.uniform(0, 1 - w), random.uniform(0, 1 - h)
        apart = (x + w <= taken[:, 0]) | (x >= taken[:, 2]) | (y + h <= taken[:, 1]) | (y >= taken[:, 3])
        if apart.all():
            pixels = pixel_box(x, y, x + w, y + h, width, height, CropOptions())
            if pixels.side >= options.min_side:
                yield pixels
                taken = np.vstack([taken, [x, y, x + w, y + h]])
                found += 1
                if found == options.background:
                    return


def _folder_name(class_name: str) -> str:
    return re.sub(r"[^\w &'().,-]", "_", class_name).strip(" .") or "_"


def _save(picture: Image.Image, path: Path, profile: bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.mode not in ("L", "RGB"):
        picture, profile = picture.convert("RGB"), None
    with files.replacing(path) as aside:
        if path.suffix == ".png":
            picture.save(aside, "PNG", compress_level=3, icc_profile=profile)
        else:
            picture.save(aside, "JPEG", quality=95, subsampling=0, icc_profile=profile)


def _with_split(table: pd.DataFrame, options: CropOptions) -> pd.DataFrame:
    official = set(table["split"])
    if options.split == "new" or (options.split == "auto" and not ("train" in official and len(official) > 1)):
        return table.drop(columns="split")
    return table.assign(split=table["split"].replace({"validation": "val"}))


def _as_before(folder: Path, options: CropOptions) -> bool:
    """Tells whether the pictures that are there were cut in the same way, out of the same selection."""
    note = folder / NOTE
    return note.exists() and bool(json.loads(note.read_text(encoding="utf-8")) == _signature(folder, options))


def _signature(folder: Path, options: CropOptions) -> dict[str, Any]:
    boxes = hashlib.sha256((folder / "boxes.parquet").read_bytes()).hexdigest()
    return {**dataclasses.asdict(options), "boxes": boxes}


def _write(folder: Path, table: pd.DataFrame, options: CropOptions) -> None:
    """Writes crops.csv, and removes pictures of an earlier selection."""
    with files.replacing(folder / TABLE) as aside:
        table.to_csv(aside, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    listed = set(table["path"])
    for path in (folder / "crops").glob("*/*"):
        if _NAME.fullmatch(path.name) and str(path.relative_to(folder)) not in listed:
            path.unlink()
    for place in (folder / "crops").iterdir():
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    files.write_json(folder / NOTE, _signature(folder, options))


def _write_attribution(folder: Path, selection: Selection, photos: Sequence[_Photo], table: pd.DataFrame, options: CropOptions) -> None:
    crops = Counter(table["image_id"])
    changes = {photo.image_id: _changes(photo, crops[photo.image_id], options) for photo in photos}
    attribution.write(folder, selection.images, changes, {photo.image_id: photo.file for photo in photos})


def _changes(photo: _Photo, count: int, options: CropOptions) -> str:
    """Says what was done to a photo, as its licence asks for."""
    copy = {"mirror": "scaled to 1,024 px by Open Images", "thumbnail": "scaled to 300,000 pixels by Flickr"}.get(photo.source)
    steps: Sequence[str | None] = (
        copy,
        f"cropped to {count} {'part' if count == 1 else 'parts'}" if count else None,
        f"turned {photo.rotation:g}° counter-clockwise" if count and round(photo.rotation / 90) % 4 else None,
        f"saved anew as {options.format.upper()}" if count else None,
    )
    return "; ".join(filter(None, steps)) or "none"
