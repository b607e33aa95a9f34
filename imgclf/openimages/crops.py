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
from rich.progress import track

from imgclf.errors import UserError, nearest
from imgclf.openimages import attribution
from imgclf.openimages.ledger import Ledger
from imgclf.openimages.selection import Selection, load_selection

TABLE = "crops.csv"
BACKGROUND = "background"
SPLITS = ("auto", "official", "new")
_NAME = re.compile(r"[0-9a-f]{16}_(?:\d+|bg\d+)\.(?:jpg|png)")
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}  # Pillow turns counter-clockwise
_BACKGROUND_TRIES = 200


@dataclasses.dataclass(frozen=True)
class Cut:
    """How boxes become pictures.

    Attributes:
      padding: share of the box's width and height that is added on each side, as far as the photo reaches.
      square: the shorter side grows to the longer one's length, around the box's centre, moved inward at the photo's edge; where the photo
        is too narrow it stays shorter, since no pixels are made up.
      min_side: pictures with a shorter side (pixels) are left out.
      background: up to so many pictures from each photo that meet none of its selected boxes, as a class "background".
      split: official (Open Images'), new (none in the table: the run draws one, by photo), or auto (official if it has train and another).
      format: jpg (quality 95, full chroma) or png.
      seed: of the background's places.
    """

    padding: float = 0.0
    square: bool = False
    min_side: int = 16
    background: int = 0
    split: str = "auto"
    format: str = "jpg"
    seed: int = 0


class Box(NamedTuple):
    """Pixels of the photo as it is stored: left <= x < right, top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def side(self) -> int:
        return min(self.right - self.left, self.bottom - self.top)


def pixel_box(x_min: float, y_min: float, x_max: float, y_max: float, width: int, height: int, cut: Cut) -> Box:
    """The pixels of a box given as shares of a photo of width x height, with padding and made square as `cut` says; never empty."""
    pad_x, pad_y = cut.padding * (x_max - x_min), cut.padding * (y_max - y_min)
    left, right = _span((x_min - pad_x) * width, (x_max + pad_x) * width, width)
    top, bottom = _span((y_min - pad_y) * height, (y_max + pad_y) * height, height)
    if cut.square:
        side = max(right - left, bottom - top)
        left, right = _widened(left, right, side, width)
        top, bottom = _widened(top, bottom, side, height)
    return Box(left, top, right, bottom)


def cut_out(photo: Image.Image, box: Box, rotation: float) -> Image.Image:
    """The picture of a box: cut first, in stored pixels, then turned by `rotation` degrees counter-clockwise (a multiple of 90).

    The EXIF orientation is not applied: boxes and rotation are of the stored pixels.
    """
    picture = photo.crop(box)
    turns = round(rotation / 90) % 4
    return picture.transpose(_TURNS[turns]) if turns else picture


def crop(folder: Path, cut: Cut | None = None, console: Console | None = None) -> pd.DataFrame:
    """Cuts the selection's boxes out of the photos that are there, into `folder`/crops/CLASS/, and lists them in `folder`/crops.csv.

    The table has columns path, label, split (with official splits), group (the photo's id), image_id, number, left, top, right, bottom
    (pixels of the stored photo), rotation, width, height; `configs/openimages_cnn.py:FOLDER` reads it. ATTRIBUTION.csv says what was
    changed.

    Returns:
      The table.

    Raises:
      UserError: if no photo is there, or none of the boxes is large enough.
    """
    cut = cut or Cut()
    console = console or Console(quiet=True)
    _check(cut)
    selection = load_selection(folder)
    photos = _photos(folder, selection)
    reuse = _as_before(folder, cut)
    if not reuse:  # an interruption must not leave pictures of two kinds under one note
        (folder / "crops.json").unlink(missing_ok=True)
    grouped = dict(list(selection.boxes[selection.boxes["image_id"].isin(set(photos["image_id"]))].groupby("image_id", sort=True)))
    work = [(photo, grouped[photo.image_id]) for photo in photos.itertuples(index=False) if photo.image_id in grouped]
    rows: list[dict[str, Any]] = []
    counts: Counter = Counter()
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="crop") as pool:
            done = pool.map(lambda one: _crop_photo(folder, one[0], one[1], cut, reuse), work)
            for found, left_out in track(done, "Cropping", len(work), console=console, transient=True, disable=not console.is_terminal):
                rows += found
                counts += left_out
    except OSError as error:
        raise UserError(f"{folder / 'crops'} can't be written ({error.strerror or error}): make room, and crop again.") from None
    if not rows:
        raise UserError(
            f"No crop in {folder} has sides of {cut.min_side} pixels or more ({counts['small']} are smaller): lower --min-side."
        )
    table = _with_split(pd.DataFrame(rows).sort_values("path", ignore_index=True), cut)
    _write(folder, table, cut)
    _write_attribution(folder, selection, photos, table, cut)
    table.attrs["left_out"] = dict(counts)
    return table


def _check(cut: Cut) -> None:
    if cut.split not in SPLITS:
        raise UserError(f"The crops' split {cut.split!r} is unknown; {nearest(cut.split, SPLITS)}")
    if cut.format not in ("jpg", "png"):
        raise UserError(f"--format={cut.format!r} is unknown; valid: 'jpg', 'png'")
    if not 0 <= cut.padding <= 10 or cut.min_side < 1 or cut.background < 0:
        raise UserError("--padding must lie within 0 and 10, --min-side be at least 1, and --background at least 0.")


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    first, last = max(0, min(limit - 1, round(low))), max(1, min(limit, round(high)))
    return (first, last) if first < last else (first, first + 1)


def _widened(low: int, high: int, side: int, limit: int) -> tuple[int, int]:
    side = min(side, limit)
    first = min(max(0, low - (side - (high - low)) // 2), limit - side)
    return first, first + side


def _photos(folder: Path, selection: Selection) -> pd.DataFrame:
    """The photos that are there, with their files."""
    records = Ledger(folder).records
    good = records[records["status"] == "ok"].drop_duplicates("image_id", keep="last")[["image_id", "file", "source"]]
    photos = selection.images.merge(good, on="image_id").sort_values("image_id", ignore_index=True)
    photos = photos[[(folder / file).exists() for file in photos["file"]]]
    if photos.empty:
        raise UserError(f"{folder} holds no photo yet: fetch them with `imgclf openimages download {folder}`.")
    return photos


def _crop_photo(folder: Path, photo, boxes: pd.DataFrame, cut: Cut, reuse: bool) -> tuple[list[dict[str, Any]], Counter]:
    """Writes the pictures of one photo; returns their rows, and what was left out."""
    rows: list[dict[str, Any]] = []
    left_out: Counter = Counter()
    with Image.open(folder / photo.file) as image:
        width, height = image.size
        places = []
        for box in boxes.itertuples(index=False):
            pixels = pixel_box(box.x_min, box.y_min, box.x_max, box.y_max, width, height, cut)
            places.append((box.class_name, f"{box.number:02d}", pixels))
        shares = boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy()
        for number, pixels in enumerate(_background(photo.image_id, shares, width, height, cut)):
            places.append((BACKGROUND, f"bg{number}", pixels))
        for class_name, number, pixels in places:
            if pixels.side < cut.min_side:
                left_out["small"] += 1
                continue
            path = f"crops/{_folder_name(class_name)}/{photo.image_id}_{number}.{cut.format}"
            if not (reuse and (folder / path).exists()):
                _save(cut_out(image, pixels, photo.rotation), folder / path, image.info.get("icc_profile"))
            turned = round(photo.rotation / 90) % 2
            size = (pixels.right - pixels.left, pixels.bottom - pixels.top)[:: -1 if turned else 1]
            names = {"path": path, "label": class_name, "split": photo.split, "group": photo.image_id, "image_id": photo.image_id}
            rows.append(names | {"number": number} | pixels._asdict() | {"rotation": photo.rotation, "width": size[0], "height": size[1]})
    return rows, left_out


def _background(image_id: str, boxes: np.ndarray, width: int, height: int, cut: Cut) -> Iterator[Box]:
    """Places that meet none of the boxes ([n, 4]: left, top, right, bottom as shares), the same ones for a seed."""
    if not cut.background:
        return
    seed = hashlib.blake2b(f"{cut.seed} {image_id}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(seed, "big"))
    taken = boxes
    found = 0
    for _ in range(_BACKGROUND_TRIES):
        area, ratio = random.uniform(0.04, 0.35), math.exp(random.uniform(-0.5, 0.5))
        w, h = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        x, y = random.uniform(0, 1 - w), random.uniform(0, 1 - h)
        apart = (x + w <= taken[:, 0]) | (x >= taken[:, 2]) | (y + h <= taken[:, 1]) | (y >= taken[:, 3])
        if apart.all():
            pixels = pixel_box(x, y, x + w, y + h, width, height, Cut())
            if pixels.side >= cut.min_side:
                yield pixels
                taken = np.vstack([taken, [x, y, x + w, y + h]])
                found += 1
                if found == cut.background:
                    return


def _folder_name(class_name: str) -> str:
    return re.sub(r"[^\w &'().,-]", "_", class_name).strip(" .") or "_"


def _save(picture: Image.Image, path: Path, profile: bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.mode not in ("L", "RGB"):
        picture, profile = picture.convert("RGB"), None
    aside = path.with_name(path.name + ".part")
    if path.suffix == ".png":
        picture.save(aside, "PNG", compress_level=3, icc_profile=profile)
    else:
        picture.save(aside, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    os.replace(aside, path)


def _with_split(table: pd.DataFrame, cut: Cut) -> pd.DataFrame:
    official = set(table["split"])
    if cut.split == "new" or (cut.split == "auto" and not ("train" in official and len(official) > 1)):
        return table.drop(columns="split")
    return table.assign(split=table["split"].replace({"validation": "val"}))


def _as_before(folder: Path, cut: Cut) -> bool:
    """Whether the pictures that are there were cut in the same way, out of the same selection."""
    note = folder / "crops.json"
    return note.exists() and json.loads(note.read_text(encoding="utf-8")) == _signature(folder, cut)


def _signature(folder: Path, cut: Cut) -> dict[str, Any]:
    boxes = hashlib.sha256((folder / "boxes.parquet").read_bytes()).hexdigest()
    return {**dataclasses.asdict(cut), "boxes": boxes}


def _write(folder: Path, table: pd.DataFrame, cut: Cut) -> None:
    """Writes crops.csv, and removes pictures of an earlier selection."""
    aside = folder / (TABLE + ".part")
    table.to_csv(aside, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    os.replace(aside, folder / TABLE)
    listed = set(table["path"])
    for path in (folder / "crops").glob("*/*"):
        if _NAME.fullmatch(path.name) and str(path.relative_to(folder)) not in listed:
            path.unlink()
    for place in (folder / "crops").iterdir():
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    note = folder / "crops.json.part"
    note.write_text(json.dumps(_signature(folder, cut), indent=2) + "\n", encoding="utf-8")
    os.replace(note, folder / "crops.json")


def _write_attribution(folder: Path, selection: Selection, photos: pd.DataFrame, table: pd.DataFrame, cut: Cut) -> None:
    crops = table.groupby("image_id").size()
    changes = {photo.image_id: _changes(photo, int(crops.get(photo.image_id, 0)), cut) for photo in photos.itertuples(index=False)}
    attribution.write(folder, selection.images, changes, dict(zip(photos["image_id"], photos["file"], strict=True)))


def _changes(photo, count: int, cut: Cut) -> str:
    copy = {"mirror": "scaled to 1,024 px by Open Images", "thumbnail": "scaled to 300,000 pixels by Flickr"}.get(photo.source)
    steps: Sequence[str | None] = (
        copy,
        f"cropped to {count} {'part' if count == 1 else 'parts'}" if count else None,
        f"turned {photo.rotation:g}° counter-clockwise" if count and round(photo.rotation / 90) % 4 else None,
        f"saved anew as {cut.format.upper()}" if count else None,
    )
    return "; ".join(filter(None, steps)) or "none"
