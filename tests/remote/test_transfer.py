"""Reading over connections that break."""

import pytest

from imgclf.remote import retrying, transfer

SIZE = 403


@pytest.mark.parametrize("fault", ["503", "500", "reset", "short", "stall"])
def test_failures_that_pass_are_tried_again(proxy, monkeypatch, fault):
    if fault == "stall":
        monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "1.5")  # a try may last a third of it
    proxy.plan = [fault, "pass"] if fault == "stall" else [fault, fault, "pass"]
    assert transfer.read(f"{proxy.url}/birds/3.bin", SIZE) == b"\x03" * SIZE
    assert not proxy.plan
    proxy.plan = [fault]
    assert transfer.read_range(f"{proxy.url}/birds/3.bin", 0, SIZE) == b"\x03" * SIZE


@pytest.mark.parametrize(("fault", "error"), [("404", FileNotFoundError), ("403", PermissionError)])
def test_answers_that_stay_are_not_tried_again(proxy, fault, error):
    proxy.always = fault
    with pytest.raises(error, match=r"birds/3.bin can't be read"):
        transfer.read(f"{proxy.url}/birds/3.bin")
    assert proxy.count("birds/3.bin") == 1


@pytest.mark.parametrize("fault", ["503", "slow"])
def test_it_gives_up_with_a_sentence(proxy, monkeypatch, fault):
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "0.6")
    proxy.always = fault
    with pytest.raises(
        retrying.Unreachable, match=r"birds/3.bin can't be read \((it answers 503|no answer in time)\); it was tried for 1 s"
    ):
        transfer.read(f"{proxy.url}/birds/3.bin", SIZE)
    assert proxy.count("birds/3.bin") > 1


def test_a_file_of_another_length_is_returned_after_a_second_look(proxy):
    assert len(transfer.read(f"{proxy.url}/birds/3.bin", 1000)) == SIZE
    assert proxy.count("birds/3.bin") == 2


def test_nobody_waits_for_a_host_that_is_not_there(monkeypatch):
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "0.3")
    with pytest.raises(retrying.Unreachable, match=r"127.0.0.1:9/x.jpg can't be read"):
        transfer.read("http://127.0.0.1:9/x.jpg")


def test_what_is_written_is_read(tmp_path):
    url = "memory://transfer/folder/a.bin"
    transfer.write(url, b"abc")
    assert transfer.read(url, 3) == b"abc"
    (tmp_path / "large").write_bytes(bytes(range(256)) * 100)
    transfer.write(url, tmp_path / "large")
    sha256 = transfer.download(url, tmp_path / "back", 25_600)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    assert len(sha256) == 64
    transfer.remove(url)
    transfer.remove(url)
    with pytest.raises(FileNotFoundError):
        transfer.read(url)
