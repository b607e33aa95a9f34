"""Writing a bundle: continued, verified, never over something else, never half a bundle."""

import errno

import pytest
from rich.console import Console

from imgclf.errors import UserError
from imgclf.publishing import manifest, places, reading, stores, writing
from imgclf.publishing.manifest import NAME, Manifest

QUIET = Console(quiet=True)
CONTENTS = {"README.md": b"# food\n", "run/config.json": b"{}", **{f"data/{n}": bytes([n]) * 100 for n in range(5)}}


def of(contents, subject="a run") -> Manifest:
    return Manifest.of({"subject": subject}, [manifest.file_of(path, data) for path, data in contents.items()])


def write(store, contents=None, subject="a run", *, overwrite=False) -> int:
    contents = CONTENTS if contents is None else contents
    return writing.write(store, of(contents, subject), contents, overwrite=overwrite, console=QUIET)


@pytest.fixture(params=["folder", "address"])
def store(request, tmp_path):
    if request.param == "folder":
        yield stores.Folder(tmp_path / "bundle")
    else:
        address = places.open_store(f"memory://{tmp_path.name}/bundle")
        yield address
        for path in address.sizes():
            address.remove(path)


class Failing:
    """A store whose disk is full after so many files."""

    def __init__(self, store, after):
        self._store, self._left = store, after

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self, path, source):
        if self._left == 0:
            raise UserError("no space left")
        self._left -= 1
        self._store.write(path, source)


def test_what_was_written_comes_back(store):
    whole = of(CONTENTS)
    assert write(store) == whole.size
    assert store.sizes() == {file.path: file.bytes for file in whole.files} | {NAME: len(whole.to_bytes())}
    assert reading.remote_manifest(store) == whole
    assert write(store) == 0


@pytest.mark.parametrize("after", range(1, 8))
def test_an_interrupted_bundle_is_none_and_continues(store, after):
    with pytest.raises(UserError, match="no space left"):
        write(Failing(store, after))
    there = set(store.sizes()) & set(CONTENTS)
    assert NAME not in store.sizes()
    assert len(there) == after - 1
    assert write(store) == sum(len(data) for path, data in CONTENTS.items() if path not in there)
    assert reading.remote_manifest(store) == of(CONTENTS)


def test_a_damaged_file_is_sent_again(store):
    write(store)
    store.write("data/3", b"\0" * 100)
    assert write(store) == 100
    assert stores.sha256_in(store, "data/3") == manifest.file_of("", CONTENTS["data/3"]).sha256


def test_a_bundle_of_the_same_run_is_replaced_and_its_old_files_go(store):
    write(store)
    fewer = {"README.md": b"# other\n", "run/config.json": b"{}"}
    assert write(store, fewer) == len(b"# other\n")
    assert set(store.sizes()) == {*fewer, NAME}


def test_other_things_are_not_replaced(store):
    write(store)
    with pytest.raises(UserError, match=r"holds the bundle of another run \(a run\)"):
        write(store, subject="another")
    assert write(store, subject="another", overwrite=True) == 0
    store.write("mine.txt", b"mine")
    with pytest.raises(UserError, match=r"holds 'mine.txt' beside a bundle"):
        write(store, {"README.md": b"# new\n"}, subject="another")
    assert "mine.txt" in store.sizes()


def test_a_place_with_something_else_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no bundle of imgclf's \('photo.jpg' lies there\)"):
        writing.check_free(stores.Folder(tmp_path), "a run", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(UserError, match="is a file"):
        writing.check_free(stores.Folder(tmp_path / "photo.jpg"), "a run", overwrite=False)


def test_what_a_store_gives_back_is_compared(tmp_path):
    class Wrong(stores.Folder):
        def chunks(self, path):
            yield b"\0" if path.startswith("data") else b"".join(super().chunks(path))

    with pytest.raises(UserError, match="gives back 5 files with other bytes than were sent, such as data/0"):
        write(Wrong(tmp_path / "bundle"))
    assert not (tmp_path / "bundle" / NAME).exists()


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    store = stores.Folder(tmp_path / "bundle")

    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(stores.files, "finish", full)
    with pytest.raises(UserError, match=r"can't be written \(No space left on device\): make room and give the same command"):
        write(store)
    assert not list(tmp_path.rglob("*.part"))


def test_addresses_that_are_none(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        places.open_store(" ")
    with pytest.raises(UserError, match="names no place"):
        places.open_store("s3://")
    with pytest.raises(UserError, match="nothing here knows what nosuch:// is"):
        places.open_store("nosuch://bucket/name")
    with pytest.raises(UserError, match="names no repository"):
        places.open_store("hf://only")


@pytest.mark.slow  # needs the right to mount
def test_a_real_disk_that_is_full(tmp_path):
    import shutil
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no right to mount")
    try:
        contents = {f"data/{n}": bytes([n]) * 20_000 for n in range(6)}
        with pytest.raises(UserError, match="No space left on device"):
            write(stores.Folder(small / "bundle"), contents)
        assert not (small / "bundle" / NAME).exists()
        assert not list(small.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
        assert write(stores.Folder(small / "bundle"), contents) < 120_000
        assert manifest.verify(small / "bundle") == of(contents)
    finally:
        shutil.rmtree(small / "bundle", ignore_errors=True)
        subprocess.run(["umount", str(small)], check=True)
