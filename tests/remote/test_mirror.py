"""The run at a URL and its working copy."""

import json
import shutil

import pytest

from imgclf.errors import UserError
from imgclf.remote import copies, listing, mirror, transfer


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A fresh URL, the folder of its working copy, and one on another machine."""
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    url = f"memory://{tmp_path.name}/run"
    return url, mirror.working_copy(url), tmp_path / "elsewhere" / "run"


def work(folder, step):
    """What a training leaves at a step: a checkpoint in the place of the one before, and a longer log."""
    last = folder / "checkpoints" / "last"
    shutil.rmtree(last, ignore_errors=True)
    (last / f"step_{step}").mkdir(parents=True)
    (last / f"step_{step}" / "array").write_bytes(bytes([step]) * 100)
    (folder / "config.json").write_text("{}")
    (folder / ".lock").touch()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f"{step}\n")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in copies.names_in(folder)}


def test_a_state_is_sent_and_continued_elsewhere(place):
    url, folder, elsewhere = place
    told = []
    with mirror.mirrored(folder, url, told.append):
        for step in (1, 2, 3):
            work(folder, step)
            mirror.saved(folder / "checkpoints")
    assert not told
    whole = contents(folder)
    with mirror.mirrored(elsewhere, url, told.append):
        assert contents(elsewhere) == whole
        work(elsewhere, 4)
    assert "Fetching the run" in told[0]
    there = {
        f"{name}/{entry.name}" if name else entry.name
        for name, held in listing.tree(url, lambda _, held: [e.name for e in held if e.is_folder])
        for entry in held
        if not entry.is_folder
    }
    assert there == {"checkpoints/last/step_4/array", "config.json", "metrics.jsonl", copies.MANIFEST}
    with mirror.mirrored(folder, url, told.append):  # what went on elsewhere is fetched here, too
        assert contents(folder) == contents(elsewhere)
    assert transfer.read(f"{url}/metrics.jsonl") == b"1\n2\n3\n4\n"


def test_a_run_that_was_killed_while_it_sent_is_continued_from_the_whole_state(place, monkeypatch):
    url, folder, elsewhere = place
    with mirror.mirrored(folder, url, print):
        work(folder, 1)
    before = contents(folder)
    written = transfer.write

    def dies(place, source):
        if place.endswith(copies.MANIFEST):
            raise transfer.retrying.Unreachable("killed before the manifest")
        written(place, source)

    monkeypatch.setattr(transfer, "write", dies)

    def run():
        with mirror.mirrored(folder, url, print):
            work(folder, 2)
            mirror.saved(folder)

    with pytest.raises(UserError, match=r"killed before the manifest\. The run is whole in .* on this machine: the same command continues"):
        run()
    monkeypatch.undo()
    monkeypatch.setenv("IMGCLF_CACHE", str(folder.parents[2]))
    copies.fetch(url, copies.manifest_at(url), elsewhere)
    assert {name: data for name, data in contents(elsewhere).items() if "checkpoints" in name} == {
        name: data for name, data in before.items() if "checkpoints" in name
    }
    with mirror.mirrored(folder, url, print):  # the working copy is ahead of the URL: it stays
        assert (folder / "checkpoints/last/step_2").exists()
    assert transfer.read(f"{url}/checkpoints/last/step_2/array") == b"\x02" * 100


def test_what_is_written_again_while_it_is_sent_is_sent_as_it_was(place, monkeypatch):
    url, folder, _ = place
    written = transfer.write

    def slow(place, source):
        if place.endswith("/config.json"):
            (folder / "config.json").write_text("")  # the same file, cut off, as a writer without a temporary name leaves it for a moment
        written(place, source)

    monkeypatch.setattr(transfer, "write", slow)
    with mirror.mirrored(folder, url, print):
        work(folder, 1)
    assert transfer.read(f"{url}/config.json") == b"{}"


def test_a_damaged_checkpoint_is_named(place):
    url, folder, elsewhere = place
    with mirror.mirrored(folder, url, print):
        work(folder, 1)
    transfer.write(f"{url}/checkpoints/last/step_1/array", b"\x07" * 100)
    with pytest.raises(UserError, match=r"step_1/array is damaged"):
        copies.fetch(url, copies.manifest_at(url), elsewhere)
    transfer.write(f"{url}/{copies.MANIFEST}", b'{"schema": 1, "id": "x", "files": {"../../x": {"bytes": 1, "sha256": ""}}}')
    with pytest.raises(UserError, match="is damaged"):
        copies.manifest_at(url)


def test_there_is_one_writer(place, monkeypatch):
    url, folder, elsewhere = place
    monkeypatch.setattr(mirror, "_STALE", 0.2)
    monkeypatch.setattr(mirror, "_RENEWED", 0.05)
    monkeypatch.setattr(mirror.retrying, "wait", lambda seconds: None)
    with mirror.mirrored(folder, url, print):
        work(folder, 1)
        with pytest.raises(UserError, match="Another process on this machine writes"), mirror.mirrored(folder, url, print):
            pass
        ticks = iter(range(1_000))
        monkeypatch.setattr(mirror, "_is_alive", lambda pid: True)
        real = mirror.Mirror._writer
        monkeypatch.setattr(mirror.Mirror, "_writer", lambda self: (real(self) or {}) | {"time": 9e9 + next(ticks)})
        with pytest.raises(UserError, match="Another process writes to memory://"), mirror.mirrored(elsewhere, url, print):
            pass
        monkeypatch.setattr(mirror.Mirror, "_writer", real)
    transfer.write(f"{url}/{mirror.WRITER}", json.dumps({"host": "far away", "pid": 1, "id": "other", "time": 0}).encode())
    with mirror.mirrored(elsewhere, url, print):  # one that has said nothing for long is dead
        assert contents(elsewhere) == contents(folder)


def test_a_run_is_fetched_to_be_used(place):
    url, folder, _ = place
    with mirror.mirrored(folder, url, print):
        work(folder, 1)
        (folder / "checkpoints" / "best-1").mkdir()
        (folder / "checkpoints" / "best-1" / "array").write_bytes(b"model")
    used = copies.fetched(url)
    assert copies.names_in(used) == ["checkpoints/best-1/array", "config.json", "metrics.jsonl"]
    transfer.remove(f"{url}/{copies.MANIFEST}")  # as a folder that was uploaded by hand
    assert copies.names_in(copies.fetched(url)) == ["checkpoints/best-1/array", "config.json", "metrics.jsonl"]
    with pytest.raises(UserError, match=r"is no run \(it has no config.json\)"):
        copies.fetched(url + "s")
