"""Fetching metadata: once, continued, checked, told clearly."""

import threading

import pytest

from imgclf.errors import UserError
from imgclf.openimages import metadata as metadata_lib
from imgclf.openimages import releases
from imgclf.openimages.metadata import Metadata

pytestmark = pytest.mark.usefixtures("quick")
BOXES = "v5/validation-annotations-bbox.csv"


def test_the_files_of_each_version():
    assert releases.boxes_file("V7", "train") == "v6/oidv6-train-annotations-bbox.csv"
    assert releases.boxes_file("V5", "train") == "2018_04/train/train-annotations-bbox.csv"
    assert releases.boxes_file("V6", "test") == "v5/test-annotations-bbox.csv"
    assert releases.boxes_file("V4", "test") == "2018_04/test/test-annotations-bbox.csv"
    assert releases.labels_file("V7", "validation", False) == "v7/oidv7-val-annotations-human-imagelabels.csv"
    assert releases.labels_file("V6", "train", False) == "v6/oidv6-train-annotations-human-imagelabels.csv"
    assert releases.labels_file("V7", "train", True) == "v5/train-annotations-human-imagelabels-boxable.csv"
    assert releases.images_file("train", True) == "2018_04/train/train-images-boxable-with-rotation.csv"
    with pytest.raises(UserError, match=r"no version 'V9'"):
        releases.check_version("V9")
    with pytest.raises(UserError, match=r"no split 'training'; did you mean 'train'"):
        releases.check_split("training")


def test_a_file_is_fetched_once_and_kept_as_parquet(server, metadata):
    first = metadata.boxes("validation", ["/m/02y6n"])
    again = Metadata("V6", server.url("release/")).boxes("validation", ["/m/02y6n"])  # V6 shares V7's file
    assert first.num_rows == 75
    assert again.equals(first)
    assert len(server.requests(BOXES)) == 1
    kept = sorted(path.name for path in metadata.folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    assert kept == ["validation-annotations-bbox.parquet"]
    assert metadata.box_counts("validation") == {"/m/02y6n": 75}


def test_a_large_file_is_scanned_first_and_converted_later(server, metadata, monkeypatch):
    monkeypatch.setattr(metadata_lib, "SCAN_ABOVE", 100)
    scanned = metadata.boxes("train", ["/m/04yx4"])
    csv = metadata.folder / "v6" / "oidv6-train-annotations-bbox.csv"
    assert csv.exists()
    metadata.keep()
    assert not csv.exists()
    assert sorted(metadata.boxes("train", ["/m/04yx4"]).to_pylist(), key=str) == sorted(scanned.to_pylist(), key=str)
    assert len(server.requests("oidv6-train-annotations-bbox")) == 1


def test_two_processes_may_fetch_at_once(server, own_cache):
    server.latency = 0.05
    results, url = [], server.url("release/")
    threads = [
        threading.Thread(target=lambda: results.append(Metadata("V7", url).boxes("validation", ["/m/02y6n"]).num_rows)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [75, 75, 75]
    assert len(server.requests(BOXES)) == 1


def test_unreachable_hosts_missing_files_and_wrong_addresses_are_told(own_cache, server):
    with pytest.raises(UserError, match=r"can't be fetched: Connection refused. Check the network"):
        Metadata("V7", "http://127.0.0.1:9/").boxes("validation", ["/m/02y6n"])
    with pytest.raises(UserError, match=r"can't be fetched: its name is not known"):
        Metadata("V7", "http://nowhere.invalid/").boxes("validation", ["/m/02y6n"])
    with pytest.raises(UserError, match=r"answers 404 .*: check version, split"):
        Metadata("V7", server.url("other/")).text("release/none.csv")
    with pytest.raises(UserError, match=r"no http or https address"):
        Metadata("V7", "ftp://host/")


def test_a_corrupt_line_is_named(server, metadata):
    lines = server.files[BOXES].split(b"\n")
    lines[40] = b"0123456789abcdef,xclick,/m/02y6n,1,0.5"
    server.files = {**server.files, BOXES: b"\n".join(lines)}
    with pytest.raises(UserError, match=r"line 41 is damaged"):
        metadata.boxes("validation", ["/m/02y6n"])


def test_a_full_disk_is_told(metadata):
    part = metadata.folder / (BOXES + ".part")
    part.parent.mkdir(parents=True)
    part.with_name(part.name + ".json").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"can't be written .No space left on device.: make room, or set IMGCLF_CACHE"):
        metadata.text(BOXES)
