"""Bundles on S3, against a server of its protocol on loopback."""

import pytest
from rich.console import Console

from imgclf.errors import UserError
from imgclf.publishing import manifest, places, reading, writing
from imgclf.publishing.manifest import Manifest
from imgclf.remote import retrying

pytestmark = pytest.mark.slow  # moto takes seconds to start, and s3fs to give up

QUIET = Console(quiet=True)
CONTENTS = {f"data/{n:02d}.bin": bytes([n]) * (1000 + n) for n in range(12)} | {"run/results.json": b"{}"}


@pytest.fixture
def s3(monkeypatch):
    import boto3
    from s3_server import serving

    monkeypatch.setattr(retrying, "BACKOFF", 0.05)
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "10")
    with serving(monkeypatch) as server:
        boto3.client("s3").create_bucket(Bucket="bucket")
        server.log.clear()
        yield server


@pytest.fixture
def bundle() -> Manifest:
    return Manifest.of({"subject": "a run"}, [manifest.file_of(path, data) for path, data in CONTENTS.items()])


def write(bundle, url="s3://bucket/food") -> int:
    return writing.write(places.open_store(url), bundle, CONTENTS, overwrite=False, console=QUIET)


def test_a_bundle_goes_to_s3_and_comes_back(s3, bundle, tmp_path):
    assert write(bundle) == bundle.size
    store = places.open_store("s3://bucket/food/")
    assert reading.remote_manifest(store) == bundle
    reading.download(store, bundle, tmp_path / "here", QUIET)
    assert manifest.verify(tmp_path / "here") == bundle
    sent = len(s3.puts())
    assert write(bundle) == 0
    assert len(s3.puts()) == sent


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_failures_that_pass_are_tried_again(s3, bundle, fault):
    s3.faults = [fault, "", fault, fault]
    assert write(bundle) == bundle.size
    assert reading.remote_manifest(places.open_store("s3://bucket/food")) == bundle
    assert not s3.faults


def test_an_interrupted_upload_continues(s3, bundle):
    s3.faults = [""] * 8 + ["403"] * 50
    with pytest.raises(UserError, match="is forbidden to you"):
        write(bundle)
    s3.faults = []
    there = places.open_store("s3://bucket/food").sizes()
    assert manifest.NAME not in there
    with pytest.raises(UserError, match="an interrupted `imgclf bundle` has left none"):
        reading.remote_manifest(places.open_store("s3://bucket/food"))
    arrived = set(there) & set(CONTENTS)
    assert 0 < len(arrived) < len(CONTENTS)
    s3.log.clear()
    write(bundle)
    assert not {path.removeprefix("/bucket/food/") for path in s3.puts()} & arrived
    assert reading.remote_manifest(places.open_store("s3://bucket/food")) == bundle


def test_what_stands_in_the_way_is_one_sentence(s3, bundle, monkeypatch):
    with pytest.raises(UserError, match="there is no bucket 'nobody'"):
        write(bundle, "s3://nobody/food")
    with pytest.raises(UserError, match="there is nothing"):
        reading.remote_manifest(places.open_store("s3://bucket/food"))
    s3.always = "503"
    with pytest.raises(UserError, match="give the same command again"):
        write(bundle)
    s3.always = "403"
    with pytest.raises(UserError, match="is forbidden to you"):
        write(bundle)
    s3.always = ""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(UserError, match="no credentials were found"):
        write(bundle)


def test_a_bundle_that_was_tampered_with_is_refused(s3, bundle, tmp_path):
    write(bundle)
    store = places.open_store("s3://bucket/food")
    store.write("data/03.bin", b"x" * len(CONTENTS["data/03.bin"]))
    with pytest.raises(UserError, match=r"data/03\.bin \(its contents have changed\)"):
        reading.download(store, bundle, tmp_path / "here", QUIET)
    store.remove("data/04.bin")
    store.write("data/extra.bin", b"x")
    with pytest.raises(UserError, match=r"data/04\.bin \(missing\); data/extra\.bin \(not listed in the manifest\)"):
        reading.remote_manifest(store)
