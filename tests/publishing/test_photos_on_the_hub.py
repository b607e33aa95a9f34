"""Photos in a repository of the hub, by hf://."""

import pandas as pd
import pytest

from imgclf.data.prepare import load_path
from imgclf.errors import UserError
from imgclf.remote import listing, retrying


@pytest.fixture
def hub(server, color_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retrying, "BACKOFF", 0.01)
    files = {path.relative_to(color_folder).as_posix(): path.read_bytes() for path in sorted(color_folder.rglob("0*.png"))[::3]}
    server.put("user/colours", {f"photos/{name}": data for name, data in files.items()})
    return server


@pytest.mark.parametrize("place", ["hf://datasets/user/colours/photos", "hf://user/colours@main/photos"])
def test_a_folder_of_the_hub_is_read_as_on_this_machine(hub, color_folder, place):
    table = load_path(place)[0].table
    here = load_path(color_folder)[0].table.set_index("id")["sha256"]
    assert len(table) == 10
    pd.testing.assert_series_equal(table.set_index("id")["sha256"], here[table["id"]])


def test_what_is_not_on_the_hub_is_told(hub):
    assert listing.kind_of("hf://datasets/user/colours") == "folder"
    with pytest.raises(UserError, match="there is nothing; check the address"):
        load_path("hf://datasets/user/colours/nothing")
    with pytest.raises(UserError, match="there is nothing; check the address"):
        load_path("hf://datasets/user/nobody/photos")
