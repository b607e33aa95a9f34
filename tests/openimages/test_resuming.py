"""Large files that arrive in pieces."""

import hashlib
import json

import pytest

from imgclf import files
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("quick")
BOXES = "v5/validation-annotations-bbox.csv"


def test_an_interrupted_download_is_continued(server, metadata):
    whole = server.files[BOXES]
    server.behaviour[BOXES] = ["truncated", "truncated", "reset", "500"]
    assert metadata.text(BOXES).read_bytes() == whole
    requests = server.requests(BOXES)
    assert requests[1].headers["Range"] == f"bytes={len(whole) // 2}-"
    assert sum(request.sent for request in requests) == len(whole)  # not a byte twice


def test_a_process_that_was_killed_leaves_a_part_that_the_next_one_continues(server, metadata):
    server.behaviour[BOXES] = ["truncated", *["reset"] * 5]
    with pytest.raises(UserError, match=r"can't be fetched: .* 3,280 bytes are kept, and the same command continues there"):
        metadata.text(BOXES)
    assert metadata.text(BOXES).read_bytes() == server.files[BOXES]
    assert server.requests(BOXES)[-1].headers["Range"] == "bytes=3280-"


def test_a_file_that_changed_meanwhile_starts_anew(server, metadata):
    server.behaviour[BOXES] = ["truncated", *["reset"] * 5]
    with pytest.raises(UserError):
        metadata.text(BOXES)
    server.files = {**server.files, BOXES: server.files[BOXES][::-1]}
    assert metadata.text(BOXES).read_bytes() == server.files[BOXES]
    assert server.requests(BOXES)[-1].headers["If-Range"] == f'"{hashlib.md5(server.files[BOXES][::-1]).hexdigest()}"'


def test_a_wrong_checksum_is_tried_once_more_then_told(server, metadata):
    wrong = "AAAAAAAAAAAAAAAAAAAAAA=="
    server.behaviour[BOXES] = [f"md5={wrong}"]
    assert metadata.text(BOXES).read_bytes() == server.files[BOXES]
    assert len(server.requests(BOXES)) == 2
    metadata.text(BOXES).unlink()
    server.behaviour[BOXES] = f"md5={wrong}"
    with pytest.raises(UserError, match=r"arrives damaged .* twice"):
        metadata.text(BOXES)
    assert not list(metadata.folder.rglob("*.csv"))


@pytest.mark.parametrize("extra", [0, 7])
def test_a_process_killed_after_the_last_byte_leaves_nothing_to_fetch_unless_there_is_too_much(extra, server, metadata):
    whole = server.files[BOXES]
    part = files.part_of(metadata.folder / BOXES)
    part.parent.mkdir(parents=True)
    part.write_bytes(whole + b"x" * extra)
    md5 = hashlib.md5(whole).hexdigest()
    part.with_name(part.name + ".json").write_text(json.dumps({"length": len(whole), "md5": md5, "validator": f'"{md5}"'}))
    assert metadata.text(BOXES).read_bytes() == whole
    assert sum(request.sent for request in server.requests(BOXES)) == (len(whole) if extra else 0)
    assert sorted(path.name for path in part.parent.iterdir()) == [part.stem, part.stem + ".lock"]
