"""Data sets that are verified while training goes on: the same batches, the same findings, and damaged images by a rule."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from pictures import folder_config, save

from imgclf.data import background, fetching, late_audit, pipeline
from imgclf.data.prepare import prepare
from imgclf.data.table import load_dataset
from imgclf.data.verify import cache_file
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")
BAD = ("cat/07.jpg", "cat/08.jpg", "dog/19.jpg")


@pytest.fixture
def photos(tmp_path):
    """40 pictures of two classes, of sizes that training decodes reduced, of which three are cut short; one stands there twice."""
    root = tmp_path / "photos"
    for number in range(40):
        save(root / ("cat" if number < 20 else "dog") / f"{number % 20:02d}.jpg", number, (90 + number, 70))
    for name in BAD:
        (root / name).write_bytes((root / name).read_bytes()[:900])
    (root / "dog/copy.jpg").write_bytes((root / "cat/00.jpg").read_bytes())
    return root


def config_of(root, verify, **fields):
    config = folder_config(root, verify=verify, image_size=(16, 16), audit="off", in_memory_mb=0)
    config.train.method = "fit"
    config.augment.rotate, config.augment.crop_scale, config.augment.erase = 20.0, (0.5, 1.0), 0.5
    config.loader.batch_size, config.loader.eval_batch_size = 8, 16
    config.update_from_flattened_dict(fields)
    return config


def verify_in_this_process(unverified):
    folder = background.parts_of(unverified.cache)
    folder.mkdir(parents=True)
    background._write_job(unverified, folder / "job.parquet")
    background._verify_all(folder)
    return folder


def stream(dataset, config, steps, **span):
    with pipeline.train_batches(dataset, config, num_steps=steps, **span) as batches:
        return list(batches)


def same(left, right):
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key], err_msg=key)


def test_without_damage_the_batches_are_those_of_a_verified_data_set(photos):
    for name in BAD:
        (photos / name).unlink()
    first, late = (prepare(config_of(photos, verify)).dataset for verify in ("first", "background"))
    assert first.unverified is None
    assert late.unverified is not None
    first = dataclasses.replace(first, table=first.table.assign(split=late.table["split"]))  # drawn splits keep known copies together
    config = config_of(photos, "first")
    same(stream(late, config, 12), stream(first, config, 12))
    with pipeline.eval_batches(first, config, "test") as expected, pipeline.eval_batches(late, config, "test") as batches:
        same(list(batches), list(expected))


def test_a_damaged_image_is_replaced_by_the_next_in_training_whatever_is_known_and_wherever_it_is_resumed(photos):
    config = config_of(photos, "background")
    dataset = prepare(config).dataset
    before = stream(dataset, config, 20)
    verify_in_this_process(dataset.unverified)
    again = prepare(config).dataset  # now all is known
    same(stream(again, config, 20), before)
    same(stream(again, config, 7, start_step=13), before[13:])
    rows = np.concatenate([pipeline.train_rows(dataset, config, step)[0] for step in range(20)])
    taken = np.concatenate([batch["index"] for batch in before])
    ids, train = dataset.table["id"].to_numpy(object), np.flatnonzero(dataset.table["split"] == "train")
    bad = np.isin(ids[rows], BAD)
    assert bad.any()
    assert not np.isin(ids[taken], BAD).any()
    np.testing.assert_array_equal(taken[~bad], rows[~bad])
    for row, other in zip(rows[bad], taken[bad], strict=True):
        readable = train[~np.isin(ids[train], BAD)]
        assert other == readable[np.searchsorted(readable, row) % len(readable)]
    labels = np.concatenate([batch["label"] for batch in before])
    np.testing.assert_array_equal(labels, dataset.table["label"].to_numpy()[taken])
    assert all(batch["mask"].all() for batch in before)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_evaluation_counts_each_readable_image_once(photos, split):
    config = config_of(photos, "background")
    dataset = prepare(config).dataset
    with pipeline.eval_batches(dataset, config, split) as batches:
        seen = np.concatenate([batch["index"][batch["mask"]] for batch in batches])
    rows = np.flatnonzero((dataset.table["split"] == split) & ~dataset.table["id"].isin(BAD))
    np.testing.assert_array_equal(seen, rows)


def test_the_background_learns_what_a_verification_before_learns_and_is_continued(photos, monkeypatch):
    monkeypatch.setattr(background, "BLOCK", 16)
    late = prepare(config_of(photos, "background")).dataset
    folder = background.parts_of(late.unverified.cache)
    folder.mkdir(parents=True)
    background._write_job(late.unverified, folder / "job.parquet")

    real, calls = background.verify, []

    def stopped(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(background, "verify", stopped)
    with pytest.raises(KeyboardInterrupt):
        background._verify_all(folder)
    assert late.unverified.known() == 16
    learnt = late.unverified.learnt()
    assert (learnt["reason"] != "unverified").sum() == 16
    _, report = late_audit.looked_at(late, config_of(photos, "background"))
    assert report["looked_at"] == {"images": 16, "of": 41}
    assert late_audit.remarks(report)[0].startswith("25 of 41 images have not been looked at yet")
    monkeypatch.setattr(background, "verify", real)
    background._verify_all(folder)

    learnt = late.unverified.learnt()
    assert late.unverified.known() == 41
    assert not list(folder.glob("0*"))
    first = load_dataset(config_of(photos, "first", **{"data.max_pixels": 99_999_999}))  # a cache of its own
    assert dict(zip(late.table["id"][learnt["reason"] != ""], learnt["reason"][learnt["reason"] != ""], strict=True)) == dict(
        zip(first.quarantine["id"], first.quarantine["reason"], strict=True)
    )
    good = learnt[learnt["reason"] == ""].reset_index(drop=True)
    names = ["sha256", "width", "height", "phash"]
    pd.testing.assert_frame_equal(good[names], first.table[names], check_dtype=False)
    known = load_dataset(config_of(photos, "first"))  # what the background has learnt, its verification is not repeated
    pd.testing.assert_frame_equal(known.table, first.table)
    dataset, report = late_audit.looked_at(late, config_of(photos, "background", **{"data.audit": "fix"}))
    assert sorted(dataset.quarantine["id"]) == sorted(BAD)
    assert len(dataset.table) == 41
    assert report["exact_duplicates"]["groups"] == [["cat/00.jpg", "dog/copy.jpg"]]
    assert report["dropped"] == []
    sound = late_audit.verified(late)
    assert sound.unverified is None
    pd.testing.assert_frame_equal(sound.table[names], first.table[names], check_dtype=False)
    for row in range(38):
        np.testing.assert_array_equal(sound.reader[row], first.reader[row])


def test_parts_of_a_verification_serve_one_before_training(photos, monkeypatch):
    late = prepare(config_of(photos, "background")).dataset
    folder = verify_in_this_process(late.unverified)
    late.unverified.cache.rename(folder / "000000000000.parquet")
    from imgclf.data import verify

    monkeypatch.setattr(verify, "_inspect_all", None)  # nothing is left to inspect
    assert len(load_dataset(config_of(photos, "first")).table) == 38


def test_what_needs_all_images_first_says_so(photos):
    with pytest.raises(UserError, match=r"train\.method='probe' takes features of all images"):
        load_dataset(config_of(photos, "background", **{"train.method": "probe"}))
    with pytest.raises(UserError, match=r"data\.audit='error'"):
        load_dataset(config_of(photos, "background", **{"data.audit": "error"}))


def test_auto_verifies_small_sets_first_and_large_ones_in_the_background(photos, monkeypatch):
    from imgclf.data import table

    assert prepare(config_of(photos, "auto")).config.data.verify == "auto"
    monkeypatch.setattr(table, "BACKGROUND_FROM", 41)
    prepared = prepare(config_of(photos, "auto"))
    assert prepared.config.data.verify == "background"
    assert len(prepared.dataset.table) == 41
    assert prepare(config_of(photos, "auto", **{"train.method": "lp_ft"})).dataset.unverified is None


def test_wide_values_are_not_guessed_image_by_image(photos):
    from PIL import Image

    Image.fromarray(np.full((40, 40), 4000, np.uint16)).save(photos / "cat" / "wide.png")
    config = config_of(photos, "background")
    dataset = prepare(config).dataset
    row = int(np.flatnonzero(dataset.table["id"] == "cat/wide.png")[0])
    with (
        pytest.raises(UserError, match=r"set config\.data\.value_range"),
        pipeline.row_batches(dataset, config, np.array([row])) as batches,
    ):
        next(iter(batches))
    config.data.value_range = (0.0, 4095.0)
    with pipeline.row_batches(prepare(config).dataset, config, np.array([row])) as batches:
        assert next(iter(batches))["image"][0].min() > 240


def test_a_data_set_without_readable_images_is_refused(photos, monkeypatch):
    monkeypatch.setattr(fetching, "_DAMAGED", 10)
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8\xff nothing")
    config = config_of(photos, "background")
    dataset = prepare(config).dataset
    with pytest.raises(UserError, match="None of 10 images from"):
        stream(dataset, config, 1)


def test_the_cache_of_the_background_is_that_of_verify(photos):
    dataset = prepare(config_of(photos, "background")).dataset
    assert dataset.unverified.cache == cache_file(str(photos), 100_000_000)
