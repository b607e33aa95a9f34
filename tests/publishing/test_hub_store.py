"""Bundles in a repository of the hub, against a server of its protocol on loopback."""

import pytest
from hub_server import READER
from rich.console import Console

from imgclf.errors import UserError
from imgclf.publishing import manifest, places, reading, writing
from imgclf.publishing.manifest import Manifest

QUIET = Console(quiet=True)
CONTENTS = {"README.md": b"# food\n", "run/config.json": b"{}", **{f"data/{n}.bin": bytes([n]) * 100 for n in range(5)}}
PLACE = "hf://user/food"


def of(contents) -> Manifest:
    return Manifest.of({"subject": "a run"}, [manifest.file_of(path, data) for path, data in contents.items()])


def write(contents=None) -> int:
    contents = contents or CONTENTS
    return writing.write(places.open_store(PLACE), of(contents), contents, overwrite=False, console=QUIET)


def test_a_bundle_goes_to_the_hub_and_comes_back(server, tmp_path):
    assert write() == of(CONTENTS).size
    store = places.open_store(PLACE)
    assert reading.remote_manifest(store) == of(CONTENTS)
    reading.download(store, of(CONTENTS), tmp_path / "here", QUIET)
    assert manifest.verify(tmp_path / "here") == of(CONTENTS)
    assert write() == 0
    fewer = {"README.md": b"# other\n", "run/config.json": b"{}"}
    assert write(fewer) == len(b"# other\n")
    assert set(server.files("user/food")) == {*fewer, manifest.NAME}


def test_an_interrupted_bundle_is_none_and_continues(server):
    server.breaks = "/commit/"
    with pytest.raises(UserError, match="give the same command again"):
        write()
    assert manifest.NAME not in server.files("user/food")
    large = [request for request in server.requests if request.startswith("PUT /lfs/")]
    assert len(large) == 5
    server.breaks = ""
    server.requests.clear()
    write()
    assert not [request for request in server.requests if request.startswith("PUT /lfs/")]
    assert reading.remote_manifest(places.open_store(PLACE)) == of(CONTENTS)


@pytest.mark.parametrize("token", [READER, "hf_wrong"])
def test_a_token_that_may_not_write(server, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match="the hub asks for a token that may do so; set HF_TOKEN"):
        write()
    assert "user/food" not in server.repos


def test_where_there_is_no_repository_there_is_no_bundle(server):
    with pytest.raises(UserError, match="there is nothing"):
        reading.remote_manifest(places.open_store(PLACE))
