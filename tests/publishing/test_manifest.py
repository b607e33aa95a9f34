"""What a manifest notices: any byte, any file, and names that no bundle has."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import AlteredError, UserError
from imgclf.publishing import manifest
from imgclf.publishing.manifest import NAME, File, Manifest

CONTENTS = {"README.md": b"# food\n", "run/config.json": b'{"seed": 0}\n', "data/files/ab/ab01": bytes(range(64)), "empty.txt": b""}


def make(folder, contents=None, about=None) -> Manifest:
    contents = CONTENTS if contents is None else contents
    whole = Manifest.of(about or {"name": "food"}, [manifest.file_of(path, data) for path, data in contents.items()])
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / NAME).write_bytes(whole.to_bytes())
    return whole


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_as_it_was_written_is_whole(folder):
    assert manifest.verify(folder) == manifest.read(folder)
    assert len(manifest.verify(folder).root) == 64


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lasting")
    make(folder)
    return folder


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_named(lasting, data):
    name = data.draw(st.sampled_from([NAME, *(path for path in CONTENTS if CONTENTS[path])]))
    path = lasting / name
    before = path.read_bytes()
    place, flip = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(before[:place] + bytes([before[place] ^ flip]) + before[place + 1 :])
        # of the manifest itself, a changed kind or version is told as such
        with pytest.raises(UserError if name == NAME else AlteredError, match=name.replace(".", r"\.")):
            manifest.verify(lasting)
    finally:
        path.write_bytes(before)


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 10_000), more=st.binary(min_size=0, max_size=4))
def test_a_manifest_cut_short_or_grown_is_named(lasting, cut, more):
    path = lasting / NAME
    before = path.read_bytes()
    changed = before[: min(cut, len(before) - 1)] + more
    if changed == before:
        return
    try:
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"manifest\.json"):
            manifest.verify(lasting)
    finally:
        path.write_bytes(before)


def test_missing_and_extra_files_are_named(folder):
    (folder / "README.md").unlink()
    (folder / "run" / "more.txt").write_text("x")
    with pytest.raises(UserError, match=r"2 files differ.*README\.md \(missing\); run/more\.txt \(not listed in the manifest\)"):
        manifest.verify(folder)


def test_links_are_refused(folder):
    target = folder / "run" / "config.json"
    elsewhere = folder.parent / "elsewhere.json"
    target.rename(elsewhere)
    target.symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"run/config\.json \(a link or a device, which no bundle holds\)"):
        manifest.verify(folder)
    target.unlink()
    os.mkfifo(target)
    with pytest.raises(UserError, match=r"run/config\.json \(a link or a device"):
        manifest.verify(folder)


@pytest.mark.parametrize(
    "path",
    ["../escape", "/etc/passwd", "a/../../b", "a//b", "./a", "C:/x", "a\\b", "a\nb", "", " a", "x" * 300, NAME],
)
def test_names_that_lead_elsewhere_are_refused(path):
    whole = Manifest.of({"name": "x"}, [File(path, 0, "0" * 64)])
    with pytest.raises(UserError, match=r"not of imgclf's making"):
        manifest.parse(whole.to_bytes(), "there")


@pytest.mark.parametrize("paths", [("A.txt", "a.txt"), ("a", "a/b"), ("a", "a")])
def test_names_that_are_one_on_some_system_are_refused(paths):
    whole = Manifest.of({"name": "x"}, [File(path, 0, "0" * 64) for path in paths])
    with pytest.raises(UserError, match="twice"):
        manifest.parse(whole.to_bytes(), "there")


@pytest.mark.parametrize(("size", "sha256"), [(-1, "0" * 64), (True, "0" * 64), (1.0, "0" * 64), (0, "x"), (0, "0" * 63), (0, "A" * 64)])
def test_sizes_and_hashes_that_are_none_are_refused(size, sha256):
    whole = Manifest.of({"name": "x"}, [File("a", size, sha256)])
    with pytest.raises(UserError, match="no size and SHA-256"):
        manifest.parse(whole.to_bytes(), "there")


def test_a_file_larger_than_it_says_is_refused_as_it_arrives():
    taken: list[bytes] = []
    with pytest.raises(UserError, match="larger than the bundle's"):
        manifest.hashed_stream((b"x" * 1000 for _ in range(10**9)), taken.append, 2500, "big.bin")
    assert len(taken) == 2


def test_another_version_has_a_way_out(folder):
    found = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps(found | {"version": 2}))
    with pytest.raises(UserError, match="says bundle version 2, and this imgclf reads version 1"):
        manifest.verify(folder)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match="There is no bundle"):
        manifest.verify(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"is no bundle: it has no manifest\.json"):
        manifest.verify(tmp_path)
    (tmp_path / NAME).write_text('{"kind": "something", "version": 1}')
    with pytest.raises(UserError, match="is of no imgclf bundle"):
        manifest.verify(tmp_path)
