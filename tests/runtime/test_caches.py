"""The folders of the cache beside the features."""

import pytest

from imgclf.errors import UserError
from imgclf.runtime import caches


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path))
    (tmp_path / "xla" / "deep").mkdir(parents=True)
    (tmp_path / "xla" / "deep" / "program").write_bytes(bytes(30))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.safetensors").write_bytes(bytes(10))
    return tmp_path


def test_what_is_there_is_told_and_cleared(cache):
    assert caches.entries() == [caches.CacheFolder("xla", caches.KINDS["xla"], 1, 30)]
    assert caches.clear("xla").size == 30
    assert caches.entries() == []


def test_what_was_put_there_by_hand_stays(cache):
    with pytest.raises(UserError, match="'weights' is no folder of the cache"):
        caches.clear("weights")
    assert (cache / "weights" / "mine.safetensors").exists()
