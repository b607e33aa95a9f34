"""Crops, pixel for pixel, and the table and the attribution beside them."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from release_server import photo_boxes

from imgclf.config import default_config
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.openimages import attribution, ledger, photo
from imgclf.openimages.crops import Box, CropOptions, crop, cut_out, pixel_box
from imgclf.openimages.jobs import Job
from imgclf.openimages.selection import Selection, load_selection

IMAGE = {
    "original_url": "", "landing_url": "https://www.flickr.com/photos/me/1", "licence": "https://creativecommons.org/licenses/by/2.0/",
    "author_url": "https://www.flickr.com/people/me/", "author": "Me & you", "title": "A, \"b\"", "original_size": 0, "original_md5": "",
    "thumbnail_url": "",
}  # fmt: skip
FLAGS = dict.fromkeys(("occluded", "truncated", "group_of", "depiction", "inside"), -1)


def make_folder(folder, photos, boxes, rotations=None, splits=None, source="mirror"):
    """A folder as select and download leave it. photos: id → bytes; boxes: (id, class, x_min, y_min, x_max, y_max)."""
    rotations, splits = rotations or {}, splits or {}
    images = pd.DataFrame(
        [{"image_id": i, "split": splits.get(i, "train"), "rotation": float(rotations.get(i, 0)), **IMAGE} for i in photos]
    )
    rows = [
        {
            "image_id": i,
            "split": splits.get(i, "train"),
            "class_name": name,
            "label": "/m/1",
            "label_name": name,
            "source": "xclick",
            **FLAGS,
        }
        | {"x_min": a, "y_min": b, "x_max": c, "y_max": d}
        for i, name, a, b, c, d in boxes
    ]
    table = pd.DataFrame(rows)
    Selection(table.assign(number=table.groupby("image_id").cumcount()), images, (), {"base_url": "http://h/"}).save(folder)
    journal = ledger.open_journal(folder, "0")
    for image_id, body in photos.items():
        job = Job(image_id, "train", ())
        path = folder / job.file()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        journal.append(photo._record(job, source, f"http://h/{image_id}", "ok", 1, file=job.file(), bytes=len(body)))
    journal.close()
    ledger.Ledger(folder).compact()
    return folder


@pytest.fixture(scope="module")
def photos(shared):
    return {path.stem: path.read_bytes() for path in sorted((shared / "data/openimages/photos").glob("*.jpg"))}


@pytest.fixture(scope="module")
def fry_boxes(shared):
    return [
        (row["ImageID"], "French fries", float(row["XMin"]), float(row["YMin"]), float(row["XMax"]), float(row["YMax"]))
        for row in photo_boxes(shared)
    ]


def noise(width, height, seed=0, mode="RGB", **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def test_crops_of_the_66_photos_equal_pillows(photos, fry_boxes):
    for image_id, _, x_min, y_min, x_max, y_max in fry_boxes:
        with Image.open(io.BytesIO(photos[image_id])) as image:
            w, h = image.size
            corners = (round(x_min * w), round(y_min * h), round(x_max * w), round(y_max * h))
            box = pixel_box(x_min, y_min, x_max, y_max, w, h, CropOptions())
            assert box == corners
            assert np.array_equal(np.asarray(cut_out(image, box, 0.0)), np.asarray(image)[corners[1] : corners[3], corners[0] : corners[2]])


def test_files_hold_the_same_pixels(photos, fry_boxes, tmp_path):
    few = dict(list(photos.items())[:9])
    folder = make_folder(tmp_path, few, [box for box in fry_boxes if box[0] in few])
    table = crop(folder, CropOptions(format="png", min_side=1)).table
    assert len(table) == sum(box[0] in few for box in fry_boxes)
    for row in table.itertuples():
        with Image.open(io.BytesIO(photos[row.image_id])) as image, Image.open(folder / row.path) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(image.crop((row.left, row.top, row.right, row.bottom))))
            assert picture.size == (row.width, row.height)


def test_jpegs_are_what_pillow_writes(photos, fry_boxes, tmp_path):
    few = dict(list(photos.items())[:3])
    folder = make_folder(tmp_path, few, [box for box in fry_boxes if box[0] in few])
    for row in crop(folder).table.itertuples():
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(photos[row.image_id])) as image:
            profile = image.info.get("icc_profile")
            image.crop((row.left, row.top, row.right, row.bottom)).save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=profile)
        assert (folder / row.path).read_bytes() == buffer.getvalue()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_photos_are_cut_first_and_turned_then(photos, fry_boxes, tmp_path, rotation):
    """A photo lying on its side in the file gives, turned by its rotation, the same pixels as the upright one."""
    chosen = list(photos)[:3]
    stored, boxes, right = {}, [], {}
    for image_id, name, x_min, y_min, x_max, y_max in fry_boxes:
        if image_id not in chosen:
            continue
        with Image.open(io.BytesIO(photos[image_id])) as image:
            upright = image.convert("RGB")
        w, h = upright.size
        left, top, r, b = round(x_min * w), round(y_min * h), round(x_max * w), round(y_max * h)
        right.setdefault(image_id, []).append(np.asarray(upright.crop((left, top, r, b))))
        lying = upright.rotate(-rotation, expand=True)  # Pillow: counter-clockwise
        buffer = io.BytesIO()
        lying.save(buffer, "PNG")
        stored[image_id] = buffer.getvalue()
        corners = {
            0: (left, top, r, b), 90: (h - b, left, h - top, r), 180: (w - r, h - b, w - left, h - top), 270: (top, w - r, b, w - left),
        }[rotation]  # fmt: skip
        lw, lh = lying.size
        boxes.append((image_id, name, corners[0] / lw, corners[1] / lh, corners[2] / lw, corners[3] / lh))
    folder = make_folder(tmp_path, stored, boxes, dict.fromkeys(stored, rotation))
    table = crop(folder, CropOptions(format="png", min_side=1)).table
    assert len(table) == sum(map(len, right.values()))
    for row in table.itertuples():
        with Image.open(folder / row.path) as picture:
            assert np.array_equal(np.asarray(picture), right[row.image_id][int(row.number)])
            assert picture.size == (row.width, row.height)
    changes = pd.read_csv(folder / "ATTRIBUTION.csv")["changes"]
    assert changes.str.contains(f"turned {rotation}° counter-clockwise").all() == bool(rotation)


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    body = noise(40, 20, format="JPEG", quality=95, exif=exif)
    folder = make_folder(tmp_path, {"0" * 16: body}, [("0" * 16, "A", 0.0, 0.0, 0.5, 1.0)])
    row = crop(folder, CropOptions(format="png", min_side=1)).table.iloc[0]
    with Image.open(io.BytesIO(body)) as image, Image.open(folder / row.path) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(image.crop((0, 0, 20, 20))))
        assert 0x0112 not in picture.getexif()


@pytest.mark.parametrize("mode", ["L", "CMYK", "P"])
def test_photos_of_all_modes(mode, tmp_path):
    body = noise(40, 30, mode=mode, format="PNG" if mode != "CMYK" else "JPEG")
    folder = make_folder(tmp_path, {"0" * 16: body}, [("0" * 16, "A", 0.0, 0.0, 0.5, 1.0)])
    for kind in ("png", "jpg"):
        row = crop(folder, CropOptions(format=kind)).table.iloc[0]
        with Image.open(folder / row.path) as picture:
            assert picture.mode == ("L" if mode == "L" else "RGB")
            assert picture.size == (20, 30)


@example(x=(0.171875, 0.16796875), y=(0.0, 1.0), width=45, height=1, padding=1.0, square=False)
@given(
    x=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    y=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    padding=st.floats(0, 2),
    square=st.booleans(),
)
def test_boxes_lie_within_the_photo(x, y, width, height, padding, square):
    cut = CropOptions(padding=padding, square=square)
    box = pixel_box(min(x), min(y), max(x), max(y), width, height, cut)
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    plain = pixel_box(min(x), min(y), max(x), max(y), width, height, CropOptions())
    assert box.left <= plain.left
    assert box.right >= plain.right
    if square:
        w, h = box.right - box.left, box.bottom - box.top
        assert w == h or min(w, h) in (width, height)


def test_padding_and_squares():
    assert pixel_box(0.25, 0.25, 0.75, 0.5, 200, 100, CropOptions()) == Box(50, 25, 150, 50)
    assert pixel_box(0.25, 0.25, 0.75, 0.5, 200, 100, CropOptions(padding=0.1)) == Box(40, 22, 160, 52)
    assert pixel_box(0.25, 0.25, 0.75, 0.5, 200, 100, CropOptions(square=True)) == Box(50, 0, 150, 100)
    assert pixel_box(0.0, 0.4, 0.1, 0.8, 200, 100, CropOptions(square=True)) == Box(0, 40, 40, 80)
    assert pixel_box(0.9, 0.0, 1.0, 1.0, 200, 100, CropOptions(square=True)) == Box(100, 0, 200, 100)


def test_turning_by_a_multiple_of_90():
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    whole = Box(0, 0, 3, 2)
    assert np.array_equal(np.asarray(cut_out(image, whole, 90.0)), np.rot90(np.arange(6).reshape(2, 3)))
    assert np.array_equal(np.asarray(cut_out(image, whole, 360.0)), np.arange(6).reshape(2, 3))


def test_small_ones_are_left_out_and_counted(tmp_path):
    folder = make_folder(tmp_path, {"0" * 16: noise(100, 100)}, [("0" * 16, "A", 0, 0, 0.1, 0.5), ("0" * 16, "A", 0.2, 0, 0.6, 0.5)])
    crops = crop(folder, CropOptions(min_side=20))
    assert len(crops.table) == 1
    assert crops.too_small == 1
    assert crops.counts() == [("A", "", 1, 1)]
    with pytest.raises(UserError, match=r"has sides of 90 pixels or more \(2 are smaller\): lower min_side"):
        crop(folder, CropOptions(min_side=90))


def test_background_meets_no_box(photos, fry_boxes, tmp_path):
    few = dict(list(photos.items())[:20])
    folder = make_folder(tmp_path, few, [box for box in fry_boxes if box[0] in few])
    table = crop(folder, CropOptions(background=2)).table
    places = table[table["label"] == "background"]
    assert len(places) > 15
    boxes = table[table["label"] == "French fries"]
    both = places.merge(boxes, on="image_id", suffixes=("", "_of"))
    overlap = (both["left"] < both["right_of"] - 1) & (both["right"] > both["left_of"] + 1)  # a pixel's rounding apart
    overlap &= (both["top"] < both["bottom_of"] - 1) & (both["bottom"] > both["top_of"] + 1)
    assert not overlap.any()
    again = crop(folder, CropOptions(background=2)).table
    pd.testing.assert_frame_equal(again, table)
    assert not crop(folder, CropOptions(background=2, seed=1)).table.equals(table)


def test_the_table_trains_with_groups(tmp_path):
    ids = [f"{i:016x}" for i in range(20)]
    boxes = [(i, name, 0.1 * k, 0.0, 0.1 * k + 0.3, 1.0) for i in ids for k, name in enumerate(("A", "B", "A"))]
    folder = make_folder(tmp_path, {i: noise(90, 40, seed) for seed, i in enumerate(ids)}, boxes)
    crop(folder)
    config = default_config()
    config.data.source, config.data.path = "csv", str(folder / "crops.csv")
    table = assign_splits(load_dataset(config), config).table
    assert len(table) == 60
    assert set(table["class_name"]) == {"A", "B"}
    assert (table.groupby("group")["split"].nunique() == 1).all()  # no photo on two sides
    assert set(table["split"]) == {"train", "val", "test"}


def test_official_splits_are_kept_unless_a_new_one_is_asked(tmp_path):
    ids = [f"{i:016x}" for i in range(3)]
    splits = dict(zip(ids, ("train", "validation", "test"), strict=True))
    folder = make_folder(tmp_path, {i: noise(40, 40) for i in ids}, [(i, "A", 0, 0, 1, 1) for i in ids], splits=splits)
    assert list(crop(folder).table["split"]) == ["train", "val", "test"]
    assert "split" not in crop(folder, CropOptions(split="new")).table
    alone = make_folder(tmp_path / "b", {ids[0]: noise(40, 40)}, [(ids[0], "A", 0, 0, 1, 1)], splits={ids[0]: "validation"})
    assert "split" not in crop(alone).table  # one split is none
    assert list(crop(alone, CropOptions(split="official")).table["split"]) == ["val"]
    with pytest.raises(UserError, match="split 'old' is unknown"):
        crop(folder, CropOptions(split="old"))


def test_pictures_of_an_earlier_selection_go(tmp_path):
    ids = [f"{i:016x}" for i in range(2)]
    bodies = {i: noise(40, 40) for i in ids}
    folder = make_folder(tmp_path, bodies, [(i, "A", 0, 0, 1, 1) for i in ids])
    crop(folder)
    mine = folder / "crops" / "A" / "notes.txt"
    mine.write_text("mine")
    make_folder(tmp_path, bodies, [(ids[0], "B", 0, 0, 1, 1)])
    crop(folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.glob("crops/*/*")) == ["crops/A/notes.txt", f"crops/B/{ids[0]}_00.jpg"]


def test_no_photos_yet_is_told(tmp_path):
    folder = make_folder(tmp_path, {"0" * 16: noise(40, 40)}, [("0" * 16, "A", 0, 0, 1, 1)])
    next(folder.glob("photos/*/*.jpg")).unlink()
    with pytest.raises(UserError, match="holds no photo yet: fetch them with `imgclf openimages download"):
        crop(folder)


def test_attribution_names_author_title_licence_and_changes(tmp_path):
    folder = make_folder(tmp_path, {"0" * 16: noise(40, 40)}, [("0" * 16, "A", 0, 0, 0.5, 1)], {"0" * 16: 270})
    crop(folder)
    row = pd.read_csv(folder / "ATTRIBUTION.csv", dtype=str).iloc[0]
    assert (row["author"], row["title"], row["licence"]) == ("Me & you", 'A, "b"', "CC BY 2.0")
    assert row["landing_url"] == "https://www.flickr.com/photos/me/1"
    assert row["changes"] == ("scaled to 1,024 px by Open Images; cropped to 1 part; turned 270° counter-clockwise; saved anew as JPG")
    summary = attribution.summary(pd.read_csv(folder / "ATTRIBUTION.csv"))
    assert summary.to_dict("records") == [
        {"licence": "CC BY 2.0", "photos": 1, "authors": 1, "author_missing": 0, "link_missing": 0}
        | {"terms": "name the author, link the licence, say what was changed"}
    ]


def test_licence_names_of_the_real_lists(shared):
    for split in ("train", "validation", "test"):
        table = pd.read_csv(shared / "data/openimages/2017_11" / split / "images.csv")
        assert set(table["License"].map(attribution.licence_name)) == {"CC BY 2.0"}
    assert attribution.licence_name("https://creativecommons.org/licenses/by-nc-nd/4.0/deed.de") == "CC BY-NC-ND 4.0"
    assert attribution.licence_name("https://creativecommons.org/publicdomain/zero/1.0/") == "CC0"
    assert attribution.licence_name(math.nan) == attribution.licence_name("") == "unknown"
    assert attribution.terms("CC BY-NC 2.0") == "name the author, link the licence, say what was changed; no commercial use"
    assert attribution.terms("http://x") == "find them out before use"


def test_a_selection_is_read_back(tmp_path):
    folder = make_folder(tmp_path, {"0" * 16: noise(40, 40)}, [("0" * 16, "A", 0, 0, 0.5, 1)])
    assert len(load_selection(folder).boxes) == 1
