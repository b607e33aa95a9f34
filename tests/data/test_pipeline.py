"""The stream of batches: a pure function of (seed, step), whole epochs, clean ends and honest errors."""

import copy
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from drawn_pictures import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.config import default_config
from imgclf.data import augment, decoded, pipeline
from imgclf.data.table import load_dataset
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("images"))


@pytest.fixture
def config():
    config = default_config()
    config.data.image_size = (24, 16)
    config.augment.crop_scale = (0.1, 1.0)
    config.augment.flip = 0.5
    config.augment.rotate = 20.0
    config.loader.batch_size = 8
    config.loader.eval_batch_size = 4
    config.loader.threads = 0
    return config


def elementwise(config):
    """What the training step does to images, and another order."""
    config.augment.hue, config.augment.contrast, config.augment.erase, config.augment.cutout = 20.0, 0.3, 0.7, 5
    config.augment.erase_fill, config.loader.sampling = "noise", "balanced"
    return config


def take(stream):
    with stream:
        return list(stream)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_batch_contract(dataset, config):
    batches = take(pipeline.train_batches(dataset, config, num_steps=3))
    for batch in batches:
        assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
            "image": ((8, 24, 16, 3), np.uint8),
            "label": ((8,), np.int32),
            "index": ((8,), np.int64),
            "mask": ((8,), np.bool_),
        }
        assert batch["mask"].all()
        assert (dataset.table["split"][batch["index"]] == "train").all()
        np.testing.assert_array_equal(dataset.table["label"][batch["index"]], batch["label"])


def test_every_epoch_shows_every_training_row_once_in_a_new_order(dataset, config):
    train = np.flatnonzero(dataset.table["split"] == "train")
    index = np.concatenate([batch["index"] for batch in take(pipeline.train_batches(dataset, config, num_steps=23))])
    epochs = index.reshape(8, 23)  # 23 batches of 8 are 8 epochs of 23: all but the first border lie inside a batch
    for epoch in epochs:
        assert sorted(epoch) == train.tolist()
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert pipeline.steps_per_epoch(dataset, config) == 23 / 8
    config.seed = 1
    other = np.concatenate([batch["index"] for batch in take(pipeline.train_batches(dataset, config, num_steps=23))])
    assert not {tuple(epoch) for epoch in other.reshape(8, 23)} & {tuple(epoch) for epoch in epochs}


def test_an_example_gets_another_view_each_epoch(dataset, config):
    config.loader.batch_size = 23
    first, second = take(pipeline.train_batches(dataset, config, num_steps=2))
    views = [dict(zip(batch["index"].tolist(), batch["image"], strict=True)) for batch in (first, second)]
    assert all((views[0][row] != views[1][row]).any() for row in views[0])


def test_the_stream_is_the_same_for_0_1_and_4_threads_and_2_workers(dataset, config):
    elementwise(config)
    expected = take(pipeline.train_batches(dataset, config, num_steps=7))
    for threads, workers in ((1, 0), (4, 0), (0, 2)):
        config.loader.threads, config.loader.workers = threads, workers
        assert_same(take(pipeline.train_batches(dataset, config, num_steps=7)), expected)
    config.loader.threads, config.loader.workers = 4, 0
    evaluated = take(pipeline.eval_batches(dataset, config, "val"))
    config.loader.threads = 0
    assert_same(evaluated, take(pipeline.eval_batches(dataset, config, "val")))


def test_batches_carry_what_the_step_does(dataset, config):
    plain = take(pipeline.train_batches(dataset, config, num_steps=2))
    sampling = elementwise(config).loader.sampling
    config.loader.sampling = "natural"
    for batch, without in zip(take(pipeline.train_batches(dataset, config, num_steps=2)), plain, strict=True):
        np.testing.assert_array_equal(batch["image"], without["image"])  # other kinds' draws are as they were
        assert {key: (value.shape, value.dtype) for key, value in batch.items() if key not in without} == {
            "color": ((8, 3, 4), np.float32),
            "erase": ((8, 2, 4), np.int32),
            "erase_seed": ((8,), np.uint32),
        }
        assert len(np.unique(batch["erase_seed"])) == 8
    config.augment.erase, config.augment.hue, config.augment.contrast, config.augment.erase_fill = 0.0, 0.0, 0.0, "mean"
    (batch,) = take(pipeline.train_batches(dataset, config, num_steps=1))
    assert batch["erase"].shape == (8, 1, 4)
    assert "color" not in batch
    assert take(pipeline.eval_batches(dataset, elementwise(config), "val"))[0].keys() == {"image", "label", "index", "mask"}
    config.loader.sampling = sampling
    for step, batch in enumerate(take(pipeline.train_batches(dataset, config, num_steps=9))):
        rows, epochs = pipeline.train_rows(dataset, config, step)
        np.testing.assert_array_equal(batch["index"], rows)
        for place, (row, epoch) in enumerate(zip(rows.tolist(), epochs.tolist(), strict=True)):
            assert pipeline.train_place(dataset, config, row, epoch) == (step, place)
        (again,) = take(pipeline.row_batches(dataset, config, rows[:4], epochs[:4]))  # a view knows nothing of its batch
        assert_same([again], [{key: value[:4] for key, value in batch.items()}])


@settings(deadline=None, derandomize=True, max_examples=15)
@given(start=st.integers(0, 40), count=st.integers(1, 4), threads=st.sampled_from([0, 2]), sampling=st.sampled_from(["natural", "sqrt"]))
def test_starting_at_a_step_is_skipping_to_it(tmp_path_factory, start, count, threads, sampling):
    dataset, config = _tiny(tmp_path_factory), default_config()
    config.loader.sampling = sampling
    config.data.image_size, config.augment.flip = (8, 8), 0.5
    config.loader.batch_size, config.loader.threads = 3, threads
    straight = take(pipeline.train_batches(dataset, config, num_steps=start + count))[start:]
    assert_same(take(pipeline.train_batches(dataset, config, start_step=start, num_steps=count)), straight)


def _tiny(tmp_path_factory, kept=[]):  # noqa: B006 one folder for all examples of a property
    if not kept:
        kept.append(make_dataset(tmp_path_factory.mktemp("tiny"), train=5, val=2))
    return kept[0]


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_share_the_global_batch(dataset, config, shards):
    elementwise(config)
    whole = take(pipeline.train_batches(dataset, config, num_steps=6))
    places = [np.arange(shard, config.loader.batch_size, shards) for shard in range(shards)]  # in turn, as devices in a ring may be
    parts = [take(pipeline.train_batches(dataset, config, num_steps=6, own=own)) for own in places]
    order = np.argsort(np.concatenate(places))
    for step, batch in enumerate(whole):
        assert_same([{key: np.concatenate([part[step][key] for part in parts])[order] for key in batch}], [batch])


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_evaluation_counts_every_example_once(dataset, config, shards):
    places = np.arange(4).reshape(shards, -1)
    parts = [take(pipeline.eval_batches(dataset, config, "val", own=own)) for own in places]
    assert [len(part) for part in parts] == [3] * shards  # 11 in batches of 4
    seen = np.concatenate([batch["index"][batch["mask"]] for part in parts for batch in part])
    rows = np.flatnonzero(dataset.table["split"] == "val")
    assert sorted(seen) == rows.tolist()
    if shards == 1:
        np.testing.assert_array_equal(seen, rows)
    for batch in (batch for part in parts for batch in part):
        assert batch["image"].shape == (4 // shards, 24, 16, 3)
        padding = ~batch["mask"]
        assert (batch["index"][padding] == -1).all()
        assert not batch["image"][padding].any()
        assert not batch["label"][padding].any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_evaluation_shows_the_plain_view(dataset, config, resize, interpolation):
    """Not augmented, and from the whole image also where training decodes at a reduced scale: what a prediction from an array sees."""
    config.data.image_size, config.data.resize, config.data.crop_fraction, config.data.interpolation = (9, 7), resize, 0.9, interpolation
    for batch in take(pipeline.eval_batches(dataset, config, "train")):
        for row, image in zip(batch["index"][batch["mask"]], batch["image"], strict=False):
            expected = augment.view(dataset.reader[row], (9, 7), resize, config.augment, crop_fraction=0.9, interpolation=interpolation)
            np.testing.assert_array_equal(image, expected)


def test_several_views_come_from_one_decode(tmp_path, config):
    dataset = make_dataset(tmp_path)
    config.data.image_size, config.data.in_memory_mb, config.eval.views, config.augment.flip = (9, 7), 0, "crops", 0.5
    (batch, *_) = take(pipeline.eval_batches(dataset, config, "val"))
    reads = dataset.reader.reads
    assert batch["image"].shape == (4, 6, 9, 7, 3)
    assert reads == 11
    shown = augment.Preprocessing.of(config)
    np.testing.assert_array_equal(batch["image"][0], shown.shown(dataset.reader[batch["index"][0]]))
    rows, epochs = batch["index"], np.zeros(4, np.int64)
    assert take(pipeline.row_batches(dataset, config, rows, in_all_views=True))[0]["image"].shape == (4, 6, 9, 7, 3)
    np.testing.assert_array_equal(take(pipeline.row_batches(dataset, config, rows))[0]["image"], batch["image"][:, 0])
    for training in (pipeline.row_batches(dataset, config, rows, epochs), pipeline.train_batches(dataset, config, num_steps=1)):
        assert take(training)[0]["image"].shape[1:] == (9, 7, 3)  # training shows one view of an image at a time
    config.augment.flip = 0.0
    assert take(pipeline.train_batches(dataset, config, num_steps=1))[0]["image"].shape[1:] == (9, 7, 3)


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_training_images_may_have_another_size(dataset, config, flip):
    config.data.image_size, config.augment.image_size, config.augment.flip = (9, 7), (6, 5), flip
    training, *_ = take(pipeline.train_batches(dataset, config, num_steps=1))
    evaluated, *_ = take(pipeline.eval_batches(dataset, config, "val"))
    assert training["image"].shape[1:] == (6, 5, 3)
    assert evaluated["image"].shape[1:] == (9, 7, 3)
    config.data.image_size, config.augment.image_size = (6, 5), ()
    np.testing.assert_array_equal(take(pipeline.train_batches(dataset, config, num_steps=1))[0]["image"], training["image"])


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_do_not_depend_on_memory(tmp_path, config, threads):
    """Images kept in memory are read once per scale, and shown exactly as those read anew; sizes here are decoded reduced too."""
    config.loader.threads = threads
    config.data.image_size = (9, 7)
    config.data.in_memory_mb = 0
    dataset = make_dataset(tmp_path)
    read_anew = take(pipeline.train_batches(dataset, config, num_steps=12))
    assert dataset.reader.reads >= 12 * 8
    dataset = make_dataset(tmp_path)
    config.data.in_memory_mb = 512
    assert_same(take(pipeline.train_batches(dataset, config, num_steps=12)), read_anew)
    take(pipeline.eval_batches(dataset, config, "train"))
    reads = dataset.reader.reads
    take(pipeline.eval_batches(dataset, config, "train"))
    assert dataset.reader.reads == reads


def test_memory_is_freed_with_its_reader(tmp_path, config):
    before = len(decoded._OF_READERS)
    dataset = make_dataset(tmp_path, train=3, val=1)
    take(pipeline.train_batches(dataset, config, num_steps=1))
    assert len(decoded._OF_READERS) == before + 1
    del dataset
    assert len(decoded._OF_READERS) == before


@pytest.mark.parametrize(("threads", "workers"), [(2, 0), (0, 1)])
def test_closing_early_ends_threads_and_processes(dataset, config, threads, workers):
    config.loader.threads, config.loader.workers = threads, workers
    threads_before = set(threading.enumerate())
    stream = pipeline.train_batches(dataset, config)
    next(stream)
    stream.close()
    stream.close()  # twice does no harm
    assert list(stream) == []
    for thread in set(threading.enumerate()) - threads_before:
        if "grain" in thread.name:
            thread.join(timeout=10)
            assert not thread.is_alive()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("threads", "workers"), [(0, 0), (2, 0), (0, 1)])
def test_a_file_lost_since_verification_is_named(tmp_path, config, threads, workers):
    config.loader.threads, config.loader.workers = threads, workers
    dataset = make_dataset(tmp_path, train=9, val=2)
    lost = dataset.table.index[dataset.table["split"] == "train"][4]
    (tmp_path / f"{lost}.png").unlink()
    with pytest.raises(UserError, match=rf"^{lost}\.png can no longer be read.*verified anew\.$"):
        take(pipeline.train_batches(dataset, config, num_steps=2))


def test_a_file_changed_since_verification_is_named(tmp_path, config):
    dataset = make_dataset(tmp_path, train=3, val=1)
    row = dataset.table.index[dataset.table["split"] == "val"][0]
    cv2.imwrite(str(tmp_path / f"{row}.png"), np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(UserError, match=rf"^{row}\.png is 5x5 pixels now, but was \d+x\d+: .*verified anew\.$"):
        take(pipeline.eval_batches(dataset, config, "val"))


def test_mistakes_are_told(dataset, config):
    nothing = dataclasses.replace(dataset, table=dataset.table.assign(split="val"))
    with pytest.raises(UserError, match="train split has no images"):
        pipeline.train_batches(nothing, config)
    with pytest.raises(UserError, match="train split has no images"):
        pipeline.steps_per_epoch(nothing, config)
    with pytest.raises(UserError, match="test split has no images"):
        pipeline.eval_batches(dataset, config, "test")


PROGRAM = """
import os, signal, sys
sys.path[:0] = {path!r}
from absl import app
from drawn_pictures import make_dataset
from imgclf.config import default_config
from imgclf.data import pipeline

def main(_):
    global stream, batch
    config = default_config()
    config.loader.threads, config.loader.workers = 2, {workers}
    stream = pipeline.train_batches(make_dataset({folder!r}), config)
    batch = next(stream)
    print(batch["image"].shape, flush=True)
    {end}

if __name__ == "__main__":
    app.run(main)
"""


def run_program(folder, workers, end="pass"):
    script = folder / "program.py"
    script.write_text(PROGRAM.format(path=[os.path.dirname(__file__), *sys.path], folder=str(folder), workers=workers, end=end))
    # Waits for all that hold the output open, so for the workers too.
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False, start_new_session=True)
    assert done.stdout == "(32, 128, 128, 3)\n"
    return done


@pytest.mark.parametrize("workers", [0, 1])
def test_an_absl_app_that_stops_early_ends_quietly(tmp_path, workers):
    """Neither closed nor used up: the interpreter exits at once and prints nothing. (The other tests run outside an absl app.)"""
    done = run_program(tmp_path, workers)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_leave_ctrl_c_to_their_parent(tmp_path):
    """The terminal sends it to all; only the parent, which here closes the stream, may say something."""
    end = "signal.signal(signal.SIGINT, lambda *_: stream.close()); os.killpg(0, signal.SIGINT)"
    done = run_program(tmp_path, 1, end)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_of_a_killed_program_end(tmp_path):
    assert run_program(tmp_path, 1, "os.kill(os.getpid(), signal.SIGKILL)").returncode == -signal.SIGKILL


def test_real_photos_shrunk_are_the_same_from_memory_and_from_files(shared, config, monkeypatch, tmp_path):
    """JPEGs of 400 pixels at 48: crops are decoded at 1/2, 1/4 and 1/8 of their size."""
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path))
    config.data.path = str(shared / "data" / "clothing10" / "test")
    config.data.image_size, config.loader.threads = (48, 48), 2
    photos = load_dataset(config)
    photos = dataclasses.replace(photos, table=photos.table.assign(split="train"))
    config.data.in_memory_mb = 0
    from_files = take(pipeline.train_batches(photos, config, num_steps=5))
    assert not len(decoded.of_reader(photos.reader))
    config.data.in_memory_mb = 512
    for _ in range(2):  # filling the memory, then from it
        assert_same(take(pipeline.train_batches(photos, config, num_steps=5)), from_files)
    kept = decoded.of_reader(photos.reader)
    assert kept.factors() >= {2, 4}
    few = dataclasses.replace(photos, reader=copy.copy(photos.reader))
    smallest = -(-decoded.bytes_when_shrunk(photos.table[["height", "width"]].to_numpy(), (48, 48)) // 2**20)
    config.data.in_memory_mb = smallest
    assert smallest * 2**20 < kept.bytes  # not all of them fit at every scale that crops ask for
    for _ in range(2):
        assert_same(take(pipeline.train_batches(few, config, num_steps=5)), from_files)
    assert 0.9 * smallest * 2**20 < decoded.of_reader(few.reader).bytes <= smallest * 2**20
    config.data.in_memory_mb = smallest - 1
    none = dataclasses.replace(photos, reader=copy.copy(photos.reader))
    assert_same(take(pipeline.train_batches(none, config, num_steps=5)), from_files)
    assert not len(decoded.of_reader(none.reader))
