"""The downloader against a server that misbehaves."""

import hashlib
import io
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imgclf.errors import UserError
from imgclf.openimages import ledger, photo, transport
from imgclf.openimages.downloader import download
from imgclf.openimages.jobs import DownloadOptions, FetchOptions
from imgclf.openimages.metadata import Metadata
from imgclf.openimages.selection import select

pytestmark = pytest.mark.usefixtures("quick")
IDS = ("001464cfae2a30b8", "026d6e165412d914", "02e49ce7212f9176")
ID = IDS[0]


@pytest.fixture(scope="module")
def selected(running, tmp_path_factory):
    """The selection of all 66 photos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCLF_CACHE", str(tmp_path_factory.mktemp("cache")))
        return select(["French fries"], Metadata("V7", running.url("release/")), splits=["validation"])


@pytest.fixture
def fries(selected, tmp_path) -> Path:
    selected.save(tmp_path / "fries")
    return tmp_path / "fries"


@pytest.fixture
def few(selected, tmp_path) -> Path:
    """Three photos."""
    images = selected.images[selected.images["image_id"].isin(IDS)].reset_index(drop=True)
    boxes = selected.boxes[selected.boxes["image_id"].isin(IDS)].reset_index(drop=True)
    type(selected)(boxes, images, (), selected.request).save(tmp_path / "few")
    return tmp_path / "few"


def options(server, source="mirror", **fetch) -> DownloadOptions:
    return DownloadOptions(sources=(source,), mirror_url=server.url("mirror/"), workers=4, rate=0, fetch=FetchOptions(**fetch))


def record(folder, image_id=ID) -> dict:
    rows = pd.read_parquet(folder / "downloads.parquet").set_index("image_id")
    return rows.loc[image_id].to_dict()


def path_of(folder, image_id=ID, kind="photos") -> Path:
    return folder / kind / image_id[:2] / f"{image_id}.jpg"


def test_all_photos_once(fries, server):
    status = download(fries, options(server)).status
    assert (status["status"] == "ok").all()
    assert len(status) == 66
    for image_id, body in server.photos.items():
        assert path_of(fries, image_id).read_bytes() == body
    assert set(server.photo_requests().values()) == {1}
    rows = pd.read_parquet(fries / "downloads.parquet")
    assert list(rows["sha256"]) == [hashlib.sha256(server.photos[image_id]).hexdigest() for image_id in rows["image_id"]]
    assert (rows["bytes"] == rows["image_id"].map(lambda image_id: len(server.photos[image_id]))).all()
    assert rows["final_url"].str.startswith(server.url("mirror/validation/")).all()
    download(fries, options(server))
    assert set(server.photo_requests().values()) == {1}  # nothing is asked again
    assert not list(fries.rglob("*.part"))
    assert not list(fries.glob("*.journal"))


CASES = {
    "302 to the placeholder": ("redirect", "dead", "redirected to a placeholder", 1),
    "404": ("404", "dead", "404 Not Found", 1),
    "410": ("410", "dead", "410 Gone", 1),
    "a known placeholder": ("gif", "dead", "placeholder imageNotFound.gif", 1),
    "500 then 200": (["500"], "ok", "", 2),
    "500 for ever": ("500", "transient", "500", 4),
    "403": ("403", "transient", "403", 1),
    "503 then 200": (["503", "503"], "ok", "", 3),
    "a slow body": ("trickle=0.002", "ok", "", 1),
    "no answer in time": ("slow=0.5", "transient", "no answer in time", 4),
    "a truncated body": (["truncated"], "ok", "", 2),
    "truncated for ever": ("truncated", "transient", "the connection ended too early", 4),
    "half a photo": ("short", "not_image", "truncated", 1),
    "a wrong content type": ("type", "ok", "", 1),
    "HTML instead of an image": ("html", "not_image", "not_an_image: begins with b'<!doctype", 1),
    "a huge body": ("huge=3000000", "too_big", "3,164,865 bytes", 1),
    "a huge body of unknown length": ("endless=3000000", "too_big", "more than 2,000,000 bytes", 1),
    "noai": ("robots=noai", "refused", "X-Robots-Tag: noai", 1),
    "noimageindex among others": ("robots=nofollow, NoImageIndex", "refused", "X-Robots-Tag: noimageindex", 1),
    "two headers": ("robots=all | noindex", "refused", "X-Robots-Tag: noindex", 1),
    "another robot": ("robots=googlebot: noindex, noai", "ok", "", 1),
    "our robot": ("robots=imgclf: noai", "refused", "X-Robots-Tag: noai", 1),
    "harmless directives": ("robots=max-image-preview: large, nofollow", "ok", "", 1),
    "connection reset": (["reset"], "ok", "", 2),
    "reset for ever": ("reset", "transient", "Connection reset", 4),
    "another scheme": ("redirect=file:///etc/passwd", "refused", "neither http nor https", 1),
    "a loop": ("redirect=/mirror/validation/001464cfae2a30b8.jpg", "transient", "more than 5 redirects", 4),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_misbehaviour_has_its_status(case, few, server):
    what, status, detail, tries = CASES[case]
    server.behaviour[ID] = what if isinstance(what, str) else list(what)
    timeout = 0.3 if case == "no answer in time" else 10  # a busy machine may be slow, too
    result = download(few, options(server, timeout=timeout, max_bytes=2_000_000)).status.set_index("image_id")["status"]
    assert result[ID] == status
    assert result[IDS[1]] == result[IDS[2]] == "ok"
    found = record(few)
    assert (found["status"], found["tries"]) == (status, tries)
    assert detail in found["detail"]
    assert path_of(few).exists() == (status == "ok")
    assert not list(few.rglob("*.part"))
    server.behaviour.clear()
    before = server.photo_requests()[ID]
    again = download(few, options(server)).status.set_index("image_id")["status"]
    # What is final is not asked again; what may change is.
    assert server.photo_requests()[ID] == before + (status == "transient")
    assert again[ID] == ("ok" if status == "transient" else status)


def test_retry_after_is_respected(few, server, monkeypatch):
    server.behaviour[ID] = ["429=1"]
    assert (download(few, options(server)).status["status"] == "ok").all()
    times = [request.time for request in server.requests(ID)]
    assert 1.0 <= times[1] - times[0] < 3
    server.behaviour[ID] = "429=4000"
    path_of(few).unlink()
    start = time.monotonic()
    download(few, options(server))
    assert time.monotonic() - start < 3  # that long is for another run
    assert record(few)["status"] == "transient"
    assert record(few)["http_status"] == 429


def test_a_busy_host_is_left_alone_by_all_workers(fries, server):
    server.behaviour.update({image_id: ["429=1"] for image_id in sorted(server.photos)[:4]})
    download(fries, options(server))
    times = sorted(request.time for request in server.requests(".jpg"))
    assert max(np.diff(times)) > 0.9


def test_a_changed_original_is_kept_apart(few, server):
    server.behaviour[ID] = "changed"
    result = download(few, options(server, "original")).status.set_index("image_id")["status"]
    assert dict(result.value_counts()) == {"ok": 2, "changed": 1}
    assert not path_of(few).exists()
    assert path_of(few, kind="changed").exists()
    assert "bytes instead of 164,865" in record(few)["detail"]
    attribution = pd.read_csv(few / "ATTRIBUTION.csv")
    assert set(attribution["image_id"]) == set(IDS[1:])


def test_the_mirrors_copies_are_not_held_against_the_originals_hash(few, server):
    server.behaviour[ID] = "changed"
    assert (download(few, options(server)).status["status"] == "ok").all()


def test_sources_in_order_of_choice(few, server):
    server.behaviour[ID] = ["404"]  # of the mirror; then the original is fine
    both = DownloadOptions(sources=("mirror", "original"), mirror_url=server.url("mirror/"), rate=0)
    assert (download(few, both).status["status"] == "ok").all()
    rows = pd.read_parquet(few / "downloads.parquet").query("image_id == @ID")
    assert list(rows["source"]) == ["mirror", "original"]
    assert list(rows["status"]) == ["dead", "ok"]
    assert [request.path for request in server.requests(ID)] == [f"mirror/validation/{ID}.jpg", f"original/{ID}.jpg"]


def test_a_dead_source_is_not_asked_again_when_another_is_added(few, server):
    server.behaviour[ID] = ["404"]
    download(few, options(server))
    both = DownloadOptions(sources=("mirror", "original"), mirror_url=server.url("mirror/"), rate=0)
    assert (download(few, both).status["status"] == "ok").all()
    assert [request.path.split("/")[0] for request in server.requests(ID)] == ["mirror", "original"]


def test_robots_may_be_overruled(few, server):
    server.behaviour[ID] = "robots=noai"
    assert (download(few, options(server, heed_robots=False)).status["status"] == "ok").all()


def test_grayscale_photos_are_photos(few, server):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(server.photos[ID])).convert("L").save(buffer, "JPEG")
    original, server.photos[ID] = server.photos[ID], buffer.getvalue()
    try:
        assert (download(few, options(server)).status["status"] == "ok").all()
    finally:
        server.photos[ID] = original


def test_a_deleted_photo_is_fetched_again(few, server):
    download(few, options(server))
    path_of(few).unlink()
    assert (download(few, options(server)).status["status"] == "ok").all()
    assert path_of(few).exists()
    assert server.photo_requests() == {ID: 2, IDS[1]: 1, IDS[2]: 1}


def test_a_photo_without_a_record_is_taken_in(few, server):
    """As after a power failure, which may take the journal's last lines."""
    download(few, options(server))
    (few / "downloads.parquet").unlink()
    assert (download(few, options(server)).status["status"] == "ok").all()
    assert set(server.photo_requests().values()) == {1}
    (few / "downloads.parquet").unlink()
    path_of(few).write_bytes(path_of(few).read_bytes()[:5000])
    assert download(few, options(server)).status.set_index("image_id")["status"][ID] == "not_image"


def test_a_public_host_may_not_redirect_into_a_private_network(few, server, monkeypatch):
    """127.0.0.1 plays the public host here, 127.0.0.2 the private one."""
    monkeypatch.setattr(transport, "is_private", lambda address: address == "127.0.0.2")
    with socket.create_server(("127.0.0.2", 0)) as inner:
        server.behaviour[ID] = f"redirect=http://127.0.0.2:{inner.getsockname()[1]}/secret"
        result = download(few, options(server)).status.set_index("image_id")["status"]
        inner.settimeout(0.2)
        connection, _ = inner.accept()  # it was opened, and closed before a byte was sent
        assert connection.recv(100) == b""
    assert result[ID] == "refused"
    assert "private address 127.0.0.2" in record(few)["detail"]


@pytest.mark.parametrize("what", ["500", "reset", "slow=0.5", "403", "429=4000"])
def test_a_url_that_stays_bad_is_asked_in_three_runs_and_stops_none_of_them(what, few, server):
    server.behaviour[ID] = what
    timeout = 0.2 if "slow" in what else 10
    found = []
    for _ in range(5):
        before = server.photo_requests()[ID]
        downloads = download(few, options(server, tries=2, timeout=timeout))
        found.append((downloads.counts(), downloads.missing, record(few)["runs"], server.photo_requests()[ID] > before))
        assert list(downloads.attribution["image_id"]) == list(IDS[1:])
        assert not downloads.silence
    transient, abandoned = {"ok": 2, "transient": 1}, {"ok": 2, "abandoned": 1}
    assert found == [
        (transient, 1, 1, True), (transient, 1, 2, True), (abandoned, 1, 3, True), (abandoned, 1, 3, False), (abandoned, 1, 3, False),
    ]  # fmt: skip
    server.behaviour.clear()
    assert download(few, options(server, runs=4)).missing == 0  # more runs take it up again


def test_many_urls_that_stay_bad_stop_nothing(fries, server):
    """More than those after which a run gives up where nobody answers."""
    bad = sorted(server.photos)[-15:]
    server.behaviour.update(dict.fromkeys(bad, "reset"))
    found = [download(fries, options(server, tries=1)) for _ in range(3)]
    assert [one.missing for one in found] == [15, 15, 15]
    assert not found[0].silence
    assert "can't be reached (Connection reset by peer)" in found[1].silence


def test_bad_urls_at_the_beginning_come_last_in_the_next_run(fries, server):
    server.behaviour.update(dict.fromkeys(sorted(server.photos)[:15], "reset"))
    with pytest.raises(UserError, match="can't be reached"):
        download(fries, options(server, tries=1))
    assert download(fries, options(server, tries=1)).counts() == {"ok": 51, "transient": 15}


def test_a_network_that_was_down_is_not_held_against_the_urls(few, server):
    for _ in range(4):
        with pytest.raises(UserError, match="can't be reached"):
            download(few, DownloadOptions(mirror_url="http://127.0.0.1:9/", rate=0))
    rows = pd.read_parquet(few / "downloads.parquet")
    assert set(rows["status"]) == {"transient"}
    assert not rows["runs"].any()


def test_a_ledger_that_did_not_count_runs_is_read(few, server):
    server.behaviour[ID] = "500"
    download(few, options(server))
    pd.read_parquet(few / "downloads.parquet").drop(columns="runs").to_parquet(few / "downloads.parquet")
    download(few, options(server))
    assert record(few)["runs"] == 1


def test_an_unreachable_mirror_ends_the_run(fries):
    with pytest.raises(UserError, match=r"can't be reached \(Connection refused\): check the network and the mirror's URL"):
        download(fries, DownloadOptions(mirror_url="http://127.0.0.1:9/", rate=0))


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(few, server):
    part = few / "photos" / ID[:2] / f"{ID}.jpg.part"
    part.parent.mkdir(parents=True)
    for other in IDS[1:]:
        path_of(few, other).parent.mkdir(parents=True, exist_ok=True)
    real = photo.Fetcher._attempt

    def full(self, job, *args):
        if job.image_id == ID:
            part.unlink(missing_ok=True)
            part.symlink_to("/dev/full")
        return real(self, job, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo.Fetcher, "_attempt", full)
        with pytest.raises(UserError, match=r"can't be written .No space left on device.: make room and give the same command again"):
            download(few, DownloadOptions(mirror_url=server.url("mirror/"), workers=1, rate=0))
    there = [image_id for image_id in IDS if path_of(few, image_id).exists()]
    assert (download(few, options(server)).status["status"] == "ok").all()
    counts = server.photo_requests()
    assert all(counts[image_id] == 1 for image_id in there)


def test_wrong_options_are_told(few, server):
    for options, message in (
        ({"sources": ("mirrors",)}, "source='mirrors' is unknown; did you mean 'mirror'"),
        ({"engine": "rays"}, "engine='rays' is unknown; did you mean 'ray'"),
        ({"workers": 0}, "workers=0 must be greater than 0"),
        ({"mirror_url": "s3://bucket"}, "no http or https address"),
    ):
        with pytest.raises(UserError, match=message):
            download(few, DownloadOptions(**options))


def test_ids_that_lead_elsewhere_are_refused(selected, tmp_path):
    images = selected.images.assign(image_id="../../evil")
    type(selected)(selected.boxes, images, (), selected.request).save(tmp_path / "evil")
    with pytest.raises(UserError, match=r"'../../evil' is no ImageID"):
        download(tmp_path / "evil")


def test_two_downloads_of_a_folder_don_t_meet(few, server):
    server.latency = 0.3
    first = threading.Thread(target=download, args=(few, options(server)))
    first.start()
    time.sleep(0.1)
    with pytest.raises(UserError, match="Another download is running"):
        download(few, options(server))
    first.join()


def test_processes_share_the_work(fries, server):
    shared = DownloadOptions(mirror_url=server.url("mirror/"), workers=4, rate=0, jobs=2, engine="processes")
    assert (download(fries, shared).status["status"] == "ok").all()
    assert set(server.photo_requests().values()) == {1}
    assert not list(fries.glob("*.journal"))


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_shares_the_work(fries, server, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        both = DownloadOptions(mirror_url=server.url("mirror/"), workers=4, rate=0, jobs=2, engine="ray")
        assert (download(fries, both).status["status"] == "ok").all()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert set(server.photo_requests().values()) == {1}
    assert len(server.photo_requests()) == 66


def kill_at_random_moments(fries, server, kills: int, seed: int) -> None:
    """Starts the downloader, kills it, and so on; checks after each kill and at the end."""
    server.bandwidth = 400_000.0
    code = (
        "import sys; from pathlib import Path; from imgclf.openimages.downloader import *; from imgclf.openimages.jobs import *; "
        f"download(Path({str(fries)!r}), DownloadOptions(mirror_url={server.url('mirror/')!r}, workers=4, rate=0))"
    )
    moments = random.Random(seed)
    paid: set[str] = set()  # photos that had arrived as a whole
    done = 0
    while True:
        before = server.photo_requests()
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        if done < kills:
            while server.photo_requests() == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.35))
            process.send_signal(signal.SIGKILL)
            done += process.wait() == -signal.SIGKILL
        else:
            server.bandwidth = 0.0
            assert process.wait() == 0, process.stderr.read()
        asked = server.photo_requests() - before
        assert not paid & set(asked), "what had arrived was fetched again"
        assert all(count == 1 for count in asked.values())
        for path in fries.glob("photos/??/*.jpg"):
            assert path.read_bytes() == server.photos[path.stem], "a partial file is named as whole"
            paid.add(path.stem)
        for path in fries.glob("photos/??/*.jpg.part"):
            image_id = path.name.split(".")[0]
            if path.stat().st_size == len(server.photos[image_id]):
                paid.add(image_id)
        recorded = ledger.Ledger(fries).records.query("status == 'ok'")["image_id"]
        assert set(recorded) <= paid
        if process.returncode == 0:
            break
    assert done == kills
    rows = pd.read_parquet(fries / "downloads.parquet")
    assert sorted(rows["image_id"]) == sorted(server.photos)
    assert (rows["status"] == "ok").all()
    assert not list(fries.rglob("*.part"))


def test_three_kills(fries, server):
    kill_at_random_moments(fries, server, 3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_twenty_kills(fries, server, seed):
    kill_at_random_moments(fries, server, 20, seed)
