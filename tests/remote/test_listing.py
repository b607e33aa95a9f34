"""What there is at a URL."""

import pytest

from imgclf.remote import listing, places, retrying, transfer


def everything(folder, held):
    return [entry.name for entry in held if entry.is_folder]


def test_a_tree_is_listed_whole(proxy, tree):
    proxy.plan = ["", "503", "reset", "", "short"]
    found = dict(listing.tree(proxy.url, everything))
    files = sorted(
        f"{folder}/{entry.name}" if folder else entry.name for folder, held in found.items() for entry in held if not entry.is_folder
    )
    assert files == sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert [entry.size for entry in listing.sized(proxy.url, files)] == [(tree / name).stat().st_size for name in files]
    for name in files:
        assert transfer.read(places.join(proxy.url, name)) == (tree / name).read_bytes()


def test_folders_that_are_not_entered_are_not_asked_for(proxy):
    assert set(dict(listing.tree(proxy.url, lambda folder, held: {"a b"} if not folder else ()))) == {"", "a b"}
    assert not proxy.count("birds")


def test_a_forbidden_folder_is_said_beside_the_others(proxy):
    proxy.always, proxy.only = "403", "birds"
    found = dict(listing.tree(proxy.url, everything))
    assert isinstance(found["birds"], PermissionError)
    assert [entry.name for entry in found["a b"]] == ["c%d é.bin"]


def test_a_stamp_changes_with_the_contents():
    transfer.write("memory://stamps/a", b"1")
    before = listing.sized("memory://stamps", ["a", "b"])
    assert isinstance(before[1], FileNotFoundError)
    transfer.write("memory://stamps/a", b"2")
    assert listing.sized("memory://stamps", ["a"])[0].stamp != before[0].stamp


def test_what_stands_there(proxy, monkeypatch):
    assert [listing.kind_of(f"{proxy.url}/{name}") for name in ("birds", "birds/3.bin", "nothing")] == ["folder", "file", ""]
    transfer.write("memory://kinds/folder/a", b"1")
    assert [listing.kind_of(f"memory://kinds{name}") for name in ("", "/folder", "/folder/a", "/b")] == ["folder", "folder", "file", ""]
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "0.3")
    proxy.always = "503"
    with pytest.raises(retrying.Unreachable, match="it answers 503"):
        listing.kind_of(f"{proxy.url}/birds")


def test_servers_that_refuse_head_are_asked_by_get(proxy, monkeypatch):
    monkeypatch.setattr(proxy, "fault", lambda method, path: "403" if method == "HEAD" else "")
    (found,) = listing.sized(proxy.url, ["birds/3.bin"])
    assert found.size == 403
