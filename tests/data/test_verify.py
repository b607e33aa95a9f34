"""The verification cache: only new and changed images are decoded again, and damage to it is repaired."""

import itertools
import os

import pandas as pd
import pytest
from pictures import folder_config, save

from imgclf.data import images, verify
from imgclf.data.table import load_dataset

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def inspected(monkeypatch) -> list:
    """Grows by one per image that is decoded for verification."""
    calls = []

    def count(data, max_pixels, inspect=images.inspect):
        calls.append(max_pixels)
        return inspect(data, max_pixels)

    monkeypatch.setattr(images, "inspect", count)
    return calls


def test_only_new_and_changed_files_are_verified_again(two_classes, inspected):
    config = folder_config(two_classes)
    first = load_dataset(config)
    assert len(inspected) == 4
    second = load_dataset(config)
    assert len(inspected) == 4
    pd.testing.assert_frame_equal(first.table, second.table)

    save(two_classes / "dog/new.jpg", 20)
    save(two_classes / "dog/a.jpg", 21, (31, 17))
    (two_classes / "cat/b.jpg").unlink()
    third = load_dataset(config)
    assert len(inspected) == 6
    assert third.table["id"].to_list() == ["cat/deep/er/a.png", "dog/a.jpg", "dog/c.gif", "dog/new.jpg"]
    assert third.table["width"].to_list() == [12, 31, 12, 12]

    (two_classes / "dog/new.jpg").write_text("words")
    assert load_dataset(config).quarantine["reason"].to_list() == ["not_an_image"]
    assert len(inspected) == 7
    assert load_dataset(config).quarantine["reason"].to_list() == ["not_an_image"]  # remembered too
    assert len(inspected) == 7
    load_dataset(folder_config(two_classes, max_pixels=1000))
    assert len(inspected) == 11


def test_a_change_that_keeps_the_size_is_seen(tmp_path, inspected):
    save(tmp_path / "a/1.bmp", 1)
    file = save(tmp_path / "b/2.bmp", 2)
    before, status = load_dataset(folder_config(tmp_path)).table, file.stat()
    save(file, 3)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file.stat().st_size == status.st_size
    after = load_dataset(folder_config(tmp_path)).table
    assert len(inspected) == 3
    assert (before["sha256"] == after["sha256"]).to_list() == [True, False]


def test_a_damaged_cache_is_named_and_rebuilt(two_classes, cache, inspected, caplog):
    config = folder_config(two_classes)
    expected = load_dataset(config).table
    (file,) = (cache / "verified").iterdir()
    for damage in (file.read_bytes()[:100], b"", b"words"):
        file.write_bytes(damage)
        caplog.clear()
        pd.testing.assert_frame_equal(load_dataset(config).table, expected)
        assert str(file) in caplog.text
    pd.DataFrame({"id": ["cat/b.jpg"]}).to_parquet(file)  # whole, but another table
    caplog.clear()
    load_dataset(config)
    assert str(file) in caplog.text
    assert len(inspected) == 20
    caplog.clear()
    load_dataset(config)
    assert len(inspected) == 20
    assert not caplog.text


def test_a_cache_that_cannot_be_written_costs_no_run(two_classes, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "file"))
    assert len(load_dataset(folder_config(two_classes)).table) == 4
    assert "can't be kept" in caplog.text


def test_what_was_verified_before_an_interruption_is_kept(tmp_path, monkeypatch):
    for row in range(200):
        save(tmp_path / "ab"[row % 2] / f"{row}.png", row, (4, 4))
    calls = itertools.count(1)

    def interrupt(data, max_pixels, inspect=images.inspect):
        if next(calls) == 150:
            raise KeyboardInterrupt
        return inspect(data, max_pixels)

    with monkeypatch.context() as patch:
        patch.setattr(images, "inspect", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(folder_config(tmp_path))
    again = []
    monkeypatch.setattr(images, "inspect", lambda *args, inspect=images.inspect: again.append(0) or inspect(*args))
    assert len(load_dataset(folder_config(tmp_path)).table) == 200
    assert 0 < len(again) <= 51 + 15  # those not reached, and the rest of the chunk that was interrupted


def test_cache_folder_names(monkeypatch, tmp_path):
    monkeypatch.delenv("IMGCLF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = verify.cache_file("/photos", 100)
    assert file.parent == tmp_path / "imgclf" / "verified"
    assert len({file, verify.cache_file("/photos", 101), verify.cache_file("/other", 100)}) == 3
