"""The cache of features: right, shared, and sound after kills, damage and other processes."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from digits_experiment import digits_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import created
from rich.console import Console
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.data import augment
from imgclf.data.splits import subset
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.probes import feature_store, features
from imgclf.probes.feature_store import FeatureStore
from imgclf.training.step import normalize

WIDTH = 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def digits():
    config = resolve.resolve(digits_config(**{"loader.eval_batch_size": 64}), 10)
    dataset = subset(load_dataset(config), np.arange(150))
    return config, created(config, 10), dataset


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many images went through a backbone, call by call."""
    counts, compute = [], features._compute

    def counted(request, *rest):
        counts.append(len(request.rows))
        compute(request, *rest)

    monkeypatch.setattr(features, "_compute", counted)
    return counts


def direct(config, model, images) -> np.ndarray:
    return np.asarray(jax.jit(lambda image: model.features(normalize(image, config.data.mean, config.data.std)))(np.stack(images)))


def test_features_are_those_of_the_evaluation_view_in_the_order_asked_for(digits, computed):
    config, model, dataset = digits
    rows = np.array([7, 3, 140, 3])
    found = features.extract(config, model, dataset, rows=rows)
    images = [augment.view(dataset.reader[row], (8, 8)) for row in rows]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, direct(config, model, images), rtol=1e-6, atol=1e-6)
    assert computed == [3]  # a row that comes twice is computed once


def test_an_augmented_view_is_that_of_training_in_the_epoch_of_its_number(digits):
    config, model, dataset = digits
    config = config.copy_and_resolve_references()
    config.augment.hue, config.augment.brightness = 30.0, 0.2  # what the training step does to an image is part of its view
    found = features.extract(config, model, dataset, rows=np.arange(5), views=2)
    assert found.shape == (5, 3, 8)
    np.testing.assert_array_equal(found[:, 0], features.extract(config, model, dataset, rows=np.arange(5)))
    for row, image_id in enumerate(dataset.table["id"][:5]):
        views = []
        for epoch in (0, 1):
            rng = augment.view_rng(config.seed, image_id, epoch)
            view = augment.view(dataset.reader[row], (8, 8), "squash", config.augment, rng)
            matrix = augment.color.matrix(augment.draw(augment.view_rng(config.seed, image_id, epoch), config.augment).color, view)
            views.append(np.clip(view @ matrix[:, :3].T + matrix[:, 3], 0, 255))
        np.testing.assert_allclose(found[row, 1:], direct(config, model, views), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("views", ["flip", "crops"])
def test_features_of_several_views_are_their_mean_and_another_cache(digits, computed, views):
    config, model, dataset = digits
    rows = np.array([7, 3, 140])
    features.extract(config, model, dataset, rows=rows)
    several = config.copy_and_resolve_references()
    several.eval.views = views
    shown = [augment.Preprocessing.of(several).shown(dataset.reader[row]) for row in rows]
    expected = np.mean([direct(config, model, [each[view] for each in shown]) for view in range(len(shown[0]))], 0)
    found = features.extract(several, model, dataset, rows=rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found - features.extract(config, model, dataset, rows=rows)).max() > 1e-4
    assert computed == [3, 3]
    both = features.extract(several, model, dataset, rows=rows, views=1)
    np.testing.assert_array_equal(both[:, 0], found)
    features.extract(config, model, dataset, rows=rows, views=1)  # augmented views are the same, whatever evaluation shows
    assert computed == [3, 3, 3]


def test_views_that_others_have_shown_are_not_computed_again_and_images_are_shown_once_for_the_others(digits, monkeypatch):
    config, model, dataset = digits
    views, compute = [], features._compute

    def counted(request, stores, console):
        views.append((len(request.rows), sorted(stores)))
        compute(request, stores, console)

    monkeypatch.setattr(features, "_compute", counted)
    found = {}
    for kind, rows in (("plain", 3), ("flip", 3), ("framings", 5), ("flip", 5)):
        shown = config.copy_and_resolve_references()
        shown.eval.views = kind
        found[kind] = features.extract(shown, model, dataset, rows=np.arange(rows))
    # digits are squashed to the input: the other framing is the centre crop
    assert views == [(3, [0]), (3, [1]), (2, [0, 1]), (5, [2, 3])]
    other = config.copy_and_resolve_references()
    other.data.resize, other.data.crop_fraction, other.eval.views = "crop", 0.875, "flip"
    cropped = features.extract(other, model, dataset, rows=np.arange(5))
    assert len(views) == 4
    np.testing.assert_allclose(found["framings"], (found["flip"] + cropped) / 2, rtol=1e-6, atol=1e-6)


def test_a_pass_that_would_take_too_long_is_given_up_and_what_it_has_computed_stays(digits, computed):
    config, model, dataset = digits
    with features.within(0.0), pytest.raises(features.OutOfTime, match=r"its features would take about .* more, and 0 s are left"):
        features.extract(config, model, dataset)
    with features.within(600.0):
        features.extract(config, model, dataset)
    assert computed == [150, 22]  # two batches of 64 were there


def test_what_is_there_is_never_computed_again(digits, computed):
    config, model, dataset = digits
    features.extract(config, model, dataset, rows=np.arange(100))
    features.extract(config, model, dataset)  # another selection of the same images
    renamed = dataclasses.replace(dataset, table=dataset.table.assign(id=[f"other/{i}" for i in range(150)], split="test"))
    features.extract(config, model, renamed)  # another data set
    assert computed == [100, 50]
    features.extract(config, model, dataset, views=2)
    features.extract(config, model, dataset, views=3)  # two of the three are there
    assert computed == [100, 50, 300, 150]


@pytest.mark.parametrize(
    "changes",
    [{"data.image_size": (9, 9)}, {"data.interpolation": "bicubic"}, {"data.mean": (0.1, 0.2, 0.3)}, {"model.cnn.kernel": 5}, {"seed": 1}],
)
def test_other_preprocessing_or_weights_are_another_cache(digits, computed, changes):
    config, model, dataset = digits
    rows = np.arange(4)
    features.extract(config, model, dataset, rows=rows)
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(changes)
    features.extract(other, created(other, 10), dataset, rows=rows)
    assert computed == [4, 4]
    assert len(feature_store.entries()) == 2


def test_other_views_are_another_cache_but_for_what_mixes_images(digits, computed):
    config, model, dataset = digits
    for changes in ({}, {"augment.mixup": 0.2}, {"augment.erase": 0.5}):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict(changes)
        features.extract(other, model, dataset, rows=np.arange(3), views=1)
    assert computed == [3, 3, 3]  # the plain ones, and views twice


# ---- the store ----


def rows_of(count: int, seed: int = 0) -> tuple[list[bytes], np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(32) for _ in range(count)], rng.normal(size=(count, WIDTH)).astype(np.float32)


def store(key: str = "k") -> FeatureStore:
    opened = FeatureStore(key, {"model": key}, WIDTH)
    opened.refresh()
    return opened


def read(keys) -> np.ndarray:
    opened = store()
    return opened.read(opened.find(keys))


def append(keys, values, key: str = "k") -> None:
    opened = store(key)
    with opened.writing(lambda: True):
        opened.append(keys, values)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=st.integers(0, 4), torn=st.integers(1, 3), data=st.data())
def test_a_write_that_was_cut_off_anywhere_leaves_what_was_before(whole, torn, data):
    shutil.rmtree(feature_store.root(), ignore_errors=True)
    keys, values = rows_of(whole + torn)
    if whole:
        append(keys[:whole], values[:whole])
    append(keys[whole:], values[whole:])
    folder = feature_store.root() / "k"
    cut_index = data.draw(st.integers(40 * whole, 40 * (whole + torn)), "bytes of the index")
    rows = cut_index // 40  # the features are on disk before the records that name them
    cut_features = data.draw(st.integers(4 * WIDTH * (whole + torn if cut_index > 40 * whole else whole), 4 * WIDTH * (whole + torn)))
    os.truncate(folder / "index.bin", cut_index)
    os.truncate(folder / "features.f32", cut_features)
    if cut_index % 40 == 0 and data.draw(st.booleans(), "a power cut, after the file system had made room"):
        with (folder / "index.bin").open("ab") as file:
            file.write(bytes(80))

    opened = store()
    np.testing.assert_array_equal(opened.find(keys), [*range(rows), *[-1] * (whole + torn - rows)])
    np.testing.assert_array_equal(opened.read(np.arange(rows)), values[:rows])
    if rows < len(keys):
        append(keys[rows:], values[rows:])
    np.testing.assert_array_equal(read(keys), values)


_WRITER = """
import sys
import numpy as np
from imgclf.probes.feature_store import FeatureStore
store = FeatureStore("k", {"model": "k"}, 3)
with store.writing(lambda: True):
    row = 0
    while True:
        keys = [int(row + i).to_bytes(32, "big") for i in range(7)]
        store.append(keys, np.arange(row, row + 7, dtype=np.float32)[:, None] * np.ones(3, np.float32))
        row += 7
"""


def test_kill_9_of_a_writer_frees_the_lock_and_leaves_a_sound_cache():
    for _ in range(3):
        shutil.rmtree(feature_store.root(), ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-c", _WRITER])
        index = feature_store.root() / "k" / "index.bin"
        while not index.exists() or index.stat().st_size < 40 * 30:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        opened = store()
        count = len(opened)
        assert count >= 30
        np.testing.assert_array_equal(opened.read(np.arange(count)), np.repeat(np.arange(count, dtype=np.float32)[:, None], 3, 1))
        keys, values = rows_of(2)
        append(keys, values)
        np.testing.assert_array_equal(store().read(np.array([count, count + 1])), values)


_EXTRACT = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from digits_experiment import digits_config
from imgclf import models
from imgclf.data.splits import subset
from imgclf.data.table import load_dataset
from imgclf.methods import resolve
from imgclf.probes import features
features._BLOCK_ROWS = 32
config = resolve.resolve(digits_config(**{"loader.eval_batch_size": 16}), 10)
dataset = load_dataset(config)
features.extract(config, models.create(config, 10), subset(dataset, np.tile(np.arange(len(dataset.table)), 3)), views=20)
"""


def test_kill_9_in_the_middle_of_an_extraction_then_continue(digits, computed):
    config, model, _ = digits
    dataset = load_dataset(config)
    process = subprocess.Popen([sys.executable, "-c", _EXTRACT, os.path.dirname(os.path.dirname(__file__))])
    while not any(index.stat().st_size for index in feature_store.root().glob("*/index.bin")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = sum(entry.rows for entry in feature_store.entries())
    found = features.extract(config, model, dataset)
    assert there > 0
    assert sum(computed) == len(dataset.table) - there
    shutil.rmtree(feature_store.root())
    np.testing.assert_allclose(found, features.extract(config, model, dataset), rtol=1e-6, atol=1e-6)


def damage(name: str, position: int) -> None:
    with (feature_store.root() / "k" / name).open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (feature_store.root() / "k").iterdir()}


@pytest.mark.parametrize(
    ("name", "position"), [("features.f32", 0), ("features.f32", 4 * WIDTH * 4 - 1), ("index.bin", 5), ("index.bin", 38), ("about.json", 1)]
)
def test_damage_is_told_with_the_way_out_and_nothing_is_overwritten(name, position):
    keys, values = rows_of(4)
    append(keys, values)
    damage(name, position)
    before = contents()
    with pytest.raises(UserError, match=rf"{name}.*nothing was overwritten.*imgclf cache clear k"):
        read(keys)
    if name != "features.f32":  # rows that are not asked for are not read
        with pytest.raises(UserError, match="imgclf cache clear k"):
            append(*rows_of(1, seed=1))
    assert contents() == before


def test_files_of_another_model_are_refused():
    keys, values = rows_of(4)
    append(keys, values)
    append(keys, values + 1, key="other")
    for name in ("index.bin", "features.f32", "about.json"):
        shutil.rmtree(feature_store.root() / "k")
        append(keys, values)
        shutil.copy(feature_store.root() / "other" / name, feature_store.root() / "k" / name)
        with pytest.raises(UserError, match=f"{name}.*imgclf cache clear k"):
            read(keys)


def test_features_cut_short_are_refused():
    keys, values = rows_of(4)
    append(keys, values)
    os.truncate(feature_store.root() / "k" / "features.f32", 4 * WIDTH * 3)
    with pytest.raises(UserError, match=r"features\.f32 has 36 bytes, its index needs 48"):
        store()


def test_a_second_process_waits_and_computes_nothing(digits, computed):
    config, model, dataset = digits
    rows = np.arange(6)
    expected = features.extract(config, model, dataset, rows=rows)
    (entry,) = feature_store.entries()
    keys = [bytes.fromhex(digest) for digest in dataset.table["sha256"][:6]]
    shutil.rmtree(feature_store.root())
    first = FeatureStore(entry.key, entry.identity, entry.width)
    done = []
    with Console(file=open(os.devnull, "w"), record=True) as console, first.writing(lambda: True):
        thread = threading.Thread(target=lambda: done.append(features.extract(config, model, dataset, rows=rows, console=console)))
        thread.start()
        time.sleep(0.4)
        assert thread.is_alive()
        assert "waiting for it" in console.export_text()
        first.append(keys, expected)
        thread.join(10)
        np.testing.assert_array_equal(done[0], expected)  # while the first still holds the lock
    assert computed == [6]


def test_list_and_clear():
    run = CliRunner()
    assert "0 caches" in run.invoke(commands.app, ["cache", "list"]).stdout
    append(*rows_of(4), key="abc")
    append(*rows_of(2), key="abd")
    listed = run.invoke(commands.app, ["cache", "list"]).stdout
    assert [line.split()[0] for line in listed.splitlines()[1:3]] == ["abd", "abc"]
    assert "2 caches" in listed
    for key, message in (("x", "no cache"), ("ab", "2 keys")):
        result = run.invoke(commands.app, ["cache", "clear", key])
        assert isinstance(result.exception, UserError)
        assert message in str(result.exception)
    assert "4 rows" in run.invoke(commands.app, ["cache", "clear", "abc"]).stdout
    assert [entry.key for entry in feature_store.entries()] == ["abd"]
    assert "too short" in str(run.invoke(commands.app, ["cache", "clear", "ab"]).exception)
    with store("abd").writing(lambda: True), pytest.raises(UserError, match="process is computing"):
        feature_store.clear(feature_store.entries()[0])
    run.invoke(commands.app, ["cache", "clear", "all"])
    assert feature_store.entries() == []
