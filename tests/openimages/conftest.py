from pathlib import Path

import pytest
from release_server import ReleaseServer

from imgclf.openimages.metadata import Metadata
from imgclf.remote import retrying


@pytest.fixture(scope="module")
def running(shared):
    with ReleaseServer(shared) as server:
        yield server


@pytest.fixture
def server(running):
    """The server of this module's tests, well-behaved again and with an empty log."""
    files = dict(running.files)
    yield running
    running.behaviour.clear()
    running.log.clear()
    running.files = files
    running.latency = running.bandwidth = 0.0


@pytest.fixture
def quick(monkeypatch):
    """Nobody waits between tries."""
    monkeypatch.setattr(retrying, "BACKOFF", 0.01)


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def metadata(server, own_cache) -> Metadata:
    return Metadata("V7", server.url("release/"))
