"""Packs: the same table, splits and audit as the photos; the same bytes however they were made; damage is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grain.sources import ArrayRecordDataSource
from pictures import folder_config, save
from PIL import Image
from rich.console import Console

from imgclf.data import pipeline
from imgclf.data.packing import damage, forms, manifest, writing
from imgclf.data.packing.forms import Form
from imgclf.data.packing.places import place_of
from imgclf.data.prepare import Prepared, load_path, prepare
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.workflows import run_folder
from imgclf.workflows.pack import pack_data

pytestmark = pytest.mark.usefixtures("cache")
QUIET = Console(quiet=True)
PLAIN = Form("raw", 0, 0)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(writing, "_LEAST_PHOTOS", 6)


@pytest.fixture
def photos(tmp_path) -> Path:
    """24 pictures of two classes: PNG, JPEG, one that is turned, a copy that straddles the splits, and a file that is cut off."""
    root = tmp_path / "photos"
    for row in range(12):
        save(root / "train" / ("cat" if row % 2 else "dog") / f"{row}.png", row, (40 + row, 30))
        save(root / "test" / ("cat" if row % 2 else "dog") / f"{row}.jpg", 100 + row, (30, 44), quality=90)
    shutil.copy(root / "test/cat/3.jpg", root / "train/cat/copy.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "train/dog/turned.jpg", 50, (60, 36), exif=exif)
    (root / "train/dog/cut.jpg").write_bytes((root / "test/dog/0.jpg").read_bytes()[:300])
    return root


def pack(prepared: Prepared, folder: Path, form: Form = PLAIN) -> writing.Packed:
    return writing.write(prepared, form, place_of(folder), workers=1, console=QUIET)


def packed_config(folder, **fields):
    return folder_config(folder, source="packed", **fields)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_table_the_splits_and_the_audit_travel_along(photos, tmp_path):
    prepared = prepare(folder_config(photos))
    assert prepared.audit_report["dropped"]
    assert len(prepared.loaded.quarantine) == 1
    pack(prepared, tmp_path / "pack", Form("jpeg", 24, 90))
    found = prepare(packed_config(tmp_path / "pack"))
    for name in ("loaded", "dataset"):
        before, after = (getattr(one, name).table.drop(columns="source") for one in (prepared, found))
        pd.testing.assert_frame_equal(before, after)
    assert found.audit_report == prepared.audit_report == json.loads((tmp_path / "pack" / manifest.AUDIT).read_text())
    pd.testing.assert_frame_equal(found.loaded.quarantine, prepared.loaded.quarantine)
    assert found.loaded.class_names == prepared.loaded.class_names
    assert load_path(tmp_path / "pack")[1].source == "packed"


def test_a_classes_new_names_are_not_given_twice(photos, tmp_path):
    fields = {"class_map": (("cat", "pet"), ("dog", "friend"))}
    pack(prepare(folder_config(photos, **fields)), tmp_path / "pack")
    assert load_dataset(packed_config(tmp_path / "pack")).class_names == ("friend", "pet")
    assert load_dataset(packed_config(tmp_path / "pack", **fields)).class_names == ("friend", "pet")
    assert load_dataset(packed_config(tmp_path / "pack", class_map=(("pet", "p"),))).class_names == ("friend", "p")


@pytest.mark.parametrize("form", [Form("raw", 0, 0), Form("webp", 0, 100), Form("jpeg", 20, 95), Form("raw", 20, 0)])
def test_pictures_are_kept_as_asked_for(photos, tmp_path, form):
    prepared = prepare(folder_config(photos))
    done = pack(prepared, tmp_path / "pack", form)
    before, after = prepared.loaded.reader, load_dataset(packed_config(tmp_path / "pack")).reader
    assert done.manifest.exact == (form.size == 0)
    assert (after.kept_as == "") == (form.size == 0)
    for row in range(len(before)):
        if form.size == 0:
            np.testing.assert_array_equal(after[row], before[row])
            continue
        height, width = before[row].shape[:2]
        assert after[row].shape == (*form.target(height, width), 3)
        assert min(after[row].shape[:2]) == form.size
        assert np.abs(after[row].mean() - before[row].mean()) < 6  # noise, made smaller


def test_a_jpeg_that_is_small_enough_stays_as_it_is(photos, tmp_path):
    pack(prepare(folder_config(photos)), tmp_path / "pack", Form("jpeg", 256, 50))
    dataset = load_dataset(packed_config(tmp_path / "pack"))
    row = dataset.table["id"].tolist().index("train/dog/turned.jpg")
    assert dataset.reader.encoded(row)[0] == (photos / "train/dog/turned.jpg").read_bytes()


def test_batches_of_a_pack_of_all_pixels_are_those_of_the_photos(photos, tmp_path):
    prepared = prepare(folder_config(photos))
    pack(prepared, tmp_path / "pack")
    found = prepare(packed_config(tmp_path / "pack"))
    batches = []
    for one in (prepared, found):
        config = one.config
        config.data.image_size, config.data.in_memory_mb, config.loader.batch_size = (24, 24), 0, 8
        config.augment.update({"crop_scale": (0.3, 1.0), "rotate": 20.0, "flip": 0.5})
        with pipeline.train_batches(one.dataset, config, start_step=2, num_steps=3) as stream:
            batches.append(list(stream))
        with pipeline.eval_batches(one.dataset, config, "test") as stream:
            batches[-1] += list(stream)
    for before, after in zip(*batches, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


def test_views_of_a_smaller_pack_show_the_same_part_of_the_photo(tmp_path):
    """A ramp, on which resampling is exact: what training sees of it is the same up to the packed resolution."""
    y, x = np.mgrid[:400, :600]
    ramp = np.stack([x * 255 / 599, y * 255 / 399, (x + y) * 127 / 999], -1).astype(np.uint8)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(ramp if name == "a" else ramp[:, ::-1]).save(tmp_path / "photos" / name / "1.png")
    prepared = prepare(_all_train(tmp_path / "photos"))
    pack(prepared, tmp_path / "pack", Form("raw", 100, 0))
    seen = []
    for one in (prepared, prepare(_all_train(tmp_path / "pack", source="packed"))):
        config = one.config
        config.data.image_size = (32, 32)
        config.augment.update({"crop_scale": (0.2, 1.0), "rotate": 30.0, "flip": 0.5, "fill": "nearest"})
        with pipeline.row_batches(one.dataset, config, np.repeat([0, 1], 8), np.tile(np.arange(8), 2)) as stream:
            seen.append(next(stream)["image"].astype(int))
    difference = np.abs(seen[0] - seen[1])
    assert difference.max() <= 4
    assert difference.mean() < 1


def _all_train(path, **fields):
    config = folder_config(path, **fields)
    config.data.split.fractions, config.data.audit = (1.0, 0.0, 0.0), "off"
    return config


def test_a_pack_is_the_same_however_it_was_made(photos, tmp_path, photos_left):
    """Ended at any place, and begun again, it has the bytes of one that was never disturbed; only what is unfinished is done again."""
    prepared, form = prepare(folder_config(photos)), Form("jpeg", 24, 90)
    photos_left(len(prepared.loaded.table))
    straight = pack(prepared, tmp_path / "straight", form)
    assert straight.made == len(straight.manifest.shards) > 3
    photos_left(14)  # two shards of 6 are finished then
    with pytest.raises(KeyboardInterrupt):
        pack(prepared, tmp_path / "broken", form)
    with pytest.raises(UserError, match="unfinished"):
        load_dataset(packed_config(tmp_path / "broken"))
    with pytest.raises(UserError, match="another form"):
        pack(prepared, tmp_path / "broken", Form("jpeg", 25, 90))
    photos_left(len(prepared.loaded.table) - 12)
    again = pack(prepared, tmp_path / "broken", form)
    assert (again.found, again.made) == (2, straight.made - 2)
    assert contents(tmp_path / "broken") == contents(tmp_path / "straight")


@pytest.mark.slow  # two processes that import everything anew
def test_a_pack_is_the_same_by_processes(photos, tmp_path):
    prepared, form = prepare(folder_config(photos)), Form("jpeg", 24, 90)
    pack(prepared, tmp_path / "one", form)
    writing.write(prepared, form, place_of(tmp_path / "two"), workers=2, console=QUIET)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    (photos / "train/cat/1.png").unlink()
    with pytest.raises(UserError, match=r"train/cat/1\.png can no longer be read"):
        writing.write(prepared, form, place_of(tmp_path / "three"), workers=2, console=QUIET)


def test_a_photo_that_has_changed_is_not_packed(photos, tmp_path):
    prepared = prepare(folder_config(photos))
    save(photos / "train/cat/1.png", 999)
    with pytest.raises(UserError, match=r"train/cat/1\.png can no longer be read .*other bytes"):
        pack(prepared, tmp_path / "pack")


def test_nothing_is_overwritten(photos, tmp_path):
    prepared = prepare(folder_config(photos))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="other files"):
        pack(prepared, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_damage_is_named_left_out_and_mended(photos, tmp_path):
    prepared, folder = prepare(folder_config(photos)), tmp_path / "pack"
    done = pack(prepared, folder)
    whole = contents(folder)
    first, second, third, *_ = (folder / shard.name for shard in done.manifest.shards)
    index = manifest.read_table(place_of(folder), manifest.INDEX)
    _flip(second, int(index["offset"].iloc[8]) + 200)
    config = packed_config(folder)
    dataset = load_dataset(config)  # nothing can be told without reading
    with pytest.raises(UserError, match=r"Record 2 of .*images-00001.*imgclf data check"):
        dataset.reader[8]
    assert dataset.reader[7].shape  # the rest is readable
    first.unlink()
    end = int(index["offset"].iloc[15])
    third.write_bytes(third.read_bytes()[: end + 5])  # three of its six records are left
    dataset = load_dataset(config)
    lost = [*index["id"].iloc[:6], *index["id"].iloc[15:18]]
    reasons = dataset.quarantine.set_index("id")["reason"]
    assert set(lost) < set(reasons.index)
    assert set(reasons[lost]) == {"missing", "truncated"}
    assert "9 pictures of the pack can't be read" in dataset.notes[-1]
    row = dataset.table["id"].tolist().index(index["id"].iloc[13])
    np.testing.assert_array_equal(dataset.reader[row], prepared.loaded.reader[13])  # by its range, from what is left
    count, bad, tables = damage.check(str(folder), QUIET)
    assert (count, tables) == (len(index), [])
    assert {name for name, _, _ in bad} == {*lost, index["id"].iloc[8]}
    dataset = load_dataset(config)
    assert len(dataset.table) == len(index) - 10
    assert all(dataset.reader[row].shape for row in range(len(dataset.table)))
    (tmp_path / "run").mkdir()
    prepared.loaded.table.to_parquet(tmp_path / "run/dataset.parquet")
    with pytest.raises(UserError, match="10 gone, of which 10 are there and can't be read"):
        run_folder.check_same_data(dataset, tmp_path / "run")  # a run that began before
    again = pack(prepared, folder)
    assert again.made == 3
    assert contents(folder) == whole
    assert damage.check(str(folder), QUIET) == (len(index), [], [])


@pytest.mark.parametrize("name", [manifest.INDEX, manifest.QUARANTINE, manifest.AUDIT, manifest.ABOUT])
def test_a_damaged_table_is_found_and_mended(photos, tmp_path, name):
    prepared, folder = prepare(folder_config(photos)), tmp_path / "pack"
    pack(prepared, folder)
    whole = contents(folder)
    if name == manifest.ABOUT:
        (folder / name).write_bytes(whole[name][: len(whole[name]) // 2])
    else:
        _flip(folder / name, len(whole[name]) // 2)
    if name in (manifest.INDEX, manifest.ABOUT):
        with pytest.raises(UserError, match=rf"{name}.*(other bytes|damaged).*mends it"):
            damage.check(str(folder), QUIET)
    else:
        assert damage.check(str(folder), QUIET).tables == [name]
    pack(prepared, folder)
    assert contents(folder) == whole


def test_a_pack_whose_description_is_cut_off_is_not_taken_for_one_of_these_photos(photos, tmp_path):
    folder = tmp_path / "pack"
    pack(prepare(folder_config(photos)), folder)
    (folder / manifest.ABOUT).write_text("{")
    save(photos / "train" / "cat" / "1.png", 77)
    with pytest.raises(UserError, match=r"whose pack\.json is damaged.*another out"):
        pack(prepare(folder_config(photos)), folder)


def test_a_finished_shard_whose_bytes_have_changed_is_made_anew_by_a_packing_that_continues(photos, tmp_path, photos_left):
    prepared = prepare(folder_config(photos))
    photos_left(10**6)
    pack(prepared, tmp_path / "straight")
    photos_left(14)
    with pytest.raises(KeyboardInterrupt):
        pack(prepared, tmp_path / "pack")
    _flip(min((tmp_path / "pack").glob("images-*")), 500)
    photos_left(10**6)
    assert pack(prepared, tmp_path / "pack").found == 1
    assert contents(tmp_path / "pack") == contents(tmp_path / "straight")


def test_a_pack_is_not_packed_onto_itself(photos, tmp_path):
    pack(prepare(folder_config(photos)), tmp_path / "pack")
    before = contents(tmp_path / "pack")
    (tmp_path / "link").symlink_to(tmp_path / "pack")
    with pytest.raises(UserError, match="is the pack that would be packed"):
        pack_data(packed_config(tmp_path / "pack"), tmp_path / "link", console=QUIET)
    assert contents(tmp_path / "pack") == before


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_pack_of_another_version_and_none_at_all(photos, tmp_path):
    folder = tmp_path / "pack"
    pack(prepare(folder_config(photos)), folder)
    about = json.loads((folder / manifest.ABOUT).read_text())
    (folder / manifest.ABOUT).write_text(json.dumps(about | {"imgclf_pack": 7}))
    with pytest.raises(UserError, match="a pack of version 7, and this imgclf reads version 1"):
        load_dataset(packed_config(folder))
    (folder / manifest.ABOUT).write_text("{}")
    with pytest.raises(UserError, match="can't be read as a pack"):
        load_dataset(packed_config(folder))
    with pytest.raises(UserError, match="is no pack"):
        load_dataset(packed_config(tmp_path / "nowhere"))


def test_other_programs_read_a_shard(photos, tmp_path):
    done = pack(prepare(folder_config(photos)), tmp_path / "pack", Form("raw", 20, 0))
    source = ArrayRecordDataSource([str(tmp_path / "pack" / shard.name) for shard in done.manifest.shards])
    assert len(source) == done.manifest.images
    assert forms.raw_pixels(source[7]).shape[2] == 3
