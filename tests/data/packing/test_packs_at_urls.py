"""Packs at URLs: written there as they are here, and read by ranges, whatever happens on the way."""

import contextlib
import functools
import http.server
from pathlib import Path

import faulty_proxy
import fsspec
import loopback
import numpy as np
import pandas as pd
import pytest
from pictures import folder_config, save
from rich.console import Console

from imgclf.data import pipeline
from imgclf.data.packing import damage, manifest, writing
from imgclf.data.packing.forms import Form
from imgclf.data.packing.places import place_of
from imgclf.data.prepare import load_path, prepare
from imgclf.errors import UserError
from imgclf.remote import retrying

pytestmark = pytest.mark.usefixtures("cache")
QUIET = Console(quiet=True)
FORM = Form("raw", 20, 0)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(writing, "_LEAST_PHOTOS", 6)
    monkeypatch.setattr(retrying, "BACKOFF", 0.01)
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "30")


@pytest.fixture
def prepared(tmp_path):
    for row in range(16):
        save(tmp_path / "photos" / ("cat" if row % 2 else "dog") / f"{row}.png", row, (40, 30))
    return prepare(folder_config(tmp_path / "photos"))


@pytest.fixture
def packed(prepared, tmp_path):
    writing.write(prepared, FORM, place_of(tmp_path / "pack"), workers=1, console=QUIET)
    return tmp_path / "pack"


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """A folder over http, of which parts can be asked for, as of an object store."""

    def do_GET(self) -> None:
        path, asked = Path(self.translate_path(self.path)), self.headers.get("Range", "")
        if not asked or not path.is_file():
            super().do_GET()
            return
        data, (first, last) = path.read_bytes(), map(int, asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def behind_a_proxy(folder):
    handler = functools.partial(_Ranges, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with loopback.running(server), faulty_proxy.before(f"http://127.0.0.1:{server.server_port}") as proxy:
        yield proxy


def batches_of(path):
    dataset, data = load_path(path)
    config = folder_config(path, source=data.source, image_size=(16, 16), in_memory_mb=0)
    config.loader.batch_size = 4
    with pipeline.train_batches(dataset, config, num_steps=6) as stream:
        return dataset, list(stream)


def test_a_pack_is_read_by_ranges_over_a_bad_connection(packed):
    here, expected = batches_of(packed)
    with behind_a_proxy(packed.parent) as proxy:
        proxy.plan = ["", "503", "", "reset", *["", "", "short", "", "reset", ""] * 5]
        there, found = batches_of(f"{proxy.url}/pack")
        pd.testing.assert_frame_equal(there.table.drop(columns="source"), here.table.drop(columns="source"))
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one["image"], other["image"])
        shards = [path for method, path in proxy.log if method == "GET" and path.endswith("array_record")]
        assert len(shards) < 6 * 4 + 30  # a request for each record, and the tries again; no shard as a whole
        assert damage.known(place_of(f"{proxy.url}/pack"), *_manifest(f"{proxy.url}/pack")) == []
        proxy.always = "403"
        with pytest.raises(UserError, match="forbidden"):
            load_path(f"{proxy.url}/pack")


def _manifest(path):
    return manifest.read(place_of(path)), manifest.read_table(place_of(path), manifest.INDEX)


def test_a_pack_written_to_a_url_has_the_bytes_of_one_written_here(prepared, packed, photos_left):
    url = "memory://bucket/pack"
    photos_left(8)
    with pytest.raises(KeyboardInterrupt):
        writing.write(prepared, FORM, place_of(url), workers=1, console=QUIET)
    photos_left(100)
    again = writing.write(prepared, FORM, place_of(url), workers=1, console=QUIET)
    assert (again.found, again.made) == (1, 2)
    files = fsspec.filesystem("memory")
    there = {path.rpartition("/")[2]: files.cat_file(path) for path in files.find("/bucket/pack")}
    assert there == {path.name: path.read_bytes() for path in packed.iterdir()}
    np.testing.assert_array_equal(load_path(url)[0].reader[3], load_path(packed)[0].reader[3])


def test_a_pack_that_is_looked_for_where_nobody_answers_is_not_waited_for_as_long_as_one_that_is_read(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_CONTACT", 1.0)
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "300")
    for look in (manifest.is_pack, lambda url: manifest.read(place_of(url))):
        with pytest.raises(retrying.Unreachable, match="it was tried for 1 s"):
            look("http://127.0.0.1:9/pack")
