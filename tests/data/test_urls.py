"""Images at URLs are the images of the folder that lies there, whatever happens on the way."""

import time

import faulty_proxy
import numpy as np
import pandas as pd
import pytest

import imgclf
from imgclf import config as config_lib
from imgclf.data import pipeline
from imgclf.data.images import Decoding
from imgclf.data.prepare import load_path
from imgclf.data.readers import FileReader
from imgclf.deploy import inputs, items
from imgclf.errors import UserError
from imgclf.remote import retrying, transfer
from imgclf.remote.ahead import WINDOW


@pytest.fixture(scope="module")
def running(color_folder):
    with faulty_proxy.folder(str(color_folder)) as url, faulty_proxy.before(url) as proxy:
        yield proxy


@pytest.fixture
def proxy(running, monkeypatch, tmp_path):
    monkeypatch.setattr(retrying, "BACKOFF", 0.01)
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "60")
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    running.reset()
    return running


def test_a_folder_is_read_as_on_this_machine_over_a_bad_connection(proxy, color_folder):
    proxy.plan = ["", "503", "", "reset"] + ["", "short", "", "", "500", "", "reset"] * 20
    table = load_path(proxy.url)[0].table
    here = load_path(color_folder)[0].table
    pd.testing.assert_frame_equal(table.drop(columns="source"), here.drop(columns="source"))
    proxy.reset()
    again = load_path(proxy.url)[0]
    pd.testing.assert_frame_equal(again.table, table)
    assert not [path for method, path in proxy.log if method == "GET" and path.endswith((".png", ".jpg"))]  # known by their ETag or time


def test_batches_are_those_of_the_folder_and_each_image_is_fetched_once(proxy, color_folder):
    config = config_lib.load_config("folder:photos", {"loader.batch_size": 16, "loader.threads": 2, "data.image_size": 16})
    batches = []
    for place in (color_folder, proxy.url):
        dataset = load_path(place)[0]
        dataset = imgclf.ImageData(dataset).split(0.8, seed=1, verbose=False)[0].dataset
        proxy.reset()
        proxy.plan = ["", "reset", "", "503"] * 4
        with pipeline.train_batches(dataset, config, num_steps=6) as stream:
            batches.append(list(stream))
    for mine, others in zip(*batches, strict=True):
        for name in mine:
            np.testing.assert_array_equal(mine[name], others[name])
    images = [path for _, path in proxy.log if path.endswith((".png", ".jpg"))]
    assert len(images) <= len(set(images)) + 8 + 16  # the spoiled ones, and a batch that needs other scales
    assert proxy.most_at_once > 2
    deadline = time.monotonic() + 5
    while WINDOW.held and time.monotonic() < deadline:  # what nobody took may be on its way still
        time.sleep(0.01)
    assert WINDOW.held == 0


def test_a_list_names_images_at_urls(proxy, color_folder, tmp_path):
    names = sorted(str(path.relative_to(color_folder)) for path in color_folder.rglob("*.png"))[::5]
    labels = [name.split("/")[0] for name in names]
    pd.DataFrame({"path": names, "label": labels}).to_csv(tmp_path / "here.csv", index=False)
    transfer.write("memory://lists/there.csv", (tmp_path / "here.csv").read_bytes())
    pd.DataFrame({"path": [f"{proxy.url}/{name}" for name in names], "label": labels}).to_csv(tmp_path / "urls.csv", index=False)
    expected = load_path(tmp_path / "here.csv", root=str(color_folder))[0].table["sha256"].tolist()
    assert load_path("memory://lists/there.csv", root=proxy.url)[0].table["sha256"].tolist() == expected
    assert load_path(tmp_path / "urls.csv")[0].table["sha256"].tolist() == expected
    stems = pd.DataFrame({"path": [name.rsplit(".", 1)[0] for name in names] + ["red/nobody"], "label": [*labels, labels[0]]})
    transfer.write("memory://lists/stems.csv", stems.to_csv(index=False).encode())
    by_stem = load_path("memory://lists/stems.csv", root=proxy.url)[0]
    assert by_stem.table["sha256"].tolist() == expected
    assert by_stem.quarantine["reason"].tolist() == ["missing"]


def test_what_is_not_there_or_forbidden_is_one_sentence(proxy, monkeypatch):
    with pytest.raises(UserError, match="there is nothing; check the address"):
        load_path(f"{proxy.url}/nothing")
    proxy.always = "403"
    with pytest.raises(UserError, match="forbidden to you"):
        load_path(proxy.url)
    proxy.reset()
    proxy.only = ".png"
    proxy.always = "503"
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "1")
    with pytest.raises(UserError, match=r"can't be read \(it answers 503\)"):  # an outage puts no image into quarantine
        load_path(proxy.url)


def test_an_image_that_has_changed_is_told(proxy):
    reader = FileReader(proxy.url, ["red/00.png"], np.array([5]))
    with pytest.raises(UserError, match="has changed since it was verified"):
        reader.read(0)


def test_what_is_to_be_predicted_is_found_and_read(proxy, color_folder):
    here, there = inputs.find([str(color_folder)]), inputs.find([proxy.url])
    assert there.ids == here.ids
    proxy.plan = ["", "reset", "503", ""] * 10
    rows = range(0, len(there), 7)
    with items.ahead(there, rows):
        for row in rows:
            if row not in here.bad:
                np.testing.assert_array_equal(*(items.pixels(found[row], Decoding(), None) for found in (here, there)))
    (one,) = inputs.find([f"{proxy.url}/{there.ids[3]}"])
    assert one == f"{proxy.url}/{there.ids[3]}"
    with pytest.raises(UserError, match="does not exist"):
        inputs.find([f"{proxy.url}/nothing"])
