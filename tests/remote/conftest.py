"""A folder behind http:// on loopback, with a proxy before it that breaks connections by a plan."""

from collections.abc import Iterator
from pathlib import Path

import faulty_proxy
import pytest

from imgclf.remote import retrying

CONTENTS = {f"birds/{number}.bin": bytes([number]) * (400 + number) for number in range(6)} | {
    "a b/c%d é.bin": b"x" * 700,
    "empty.bin": b"",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name, data in CONTENTS.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def running(tree) -> Iterator[faulty_proxy.FaultyProxy]:
    with faulty_proxy.folder(str(tree)) as url, faulty_proxy.before(url) as proxy:
        yield proxy


@pytest.fixture
def proxy(running, monkeypatch) -> faulty_proxy.FaultyProxy:
    """The proxy of this module, well-behaved again; nobody waits long between tries."""
    monkeypatch.setattr(retrying, "BACKOFF", 0.01)
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "60")
    running.reset()
    return running
