"""Photos and runs on S3: a server of its protocol on loopback, behind a proxy that breaks connections."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import faulty_proxy
import pandas as pd
import pytest
import several_hosts

import imgclf
from imgclf import config as config_lib
from imgclf.errors import UserError
from imgclf.remote import copies, mirror, retrying, transfer

pytestmark = pytest.mark.slow  # moto takes seconds to start, and the commands train

SETS = {
    "data.image_size": "32",
    "data.scenes": "off",
    "data.in_memory_mb": "0",
    "loader.batch_size": "8",
    "loader.eval_batch_size": "16",
    "eval.explain": "0",
    "model.cnn.widths": "(4,8)",
    "train.duration": "40 steps",
    "train.checkpoint_every": "5 steps",
    "train.log_every": "5 steps",
}
RUN = "s3://bucket/runs/colours"


@pytest.fixture(scope="module")
def s3(color_folder):
    """The proxy before a server that holds the pictures, and the usual environment variables."""
    import boto3
    import s3_server

    with pytest.MonkeyPatch.context() as patch, s3_server.serving(patch) as server, faulty_proxy.before(server.url) as proxy:
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for path in color_folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", f"photos/{path.relative_to(color_folder)}")
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setattr(retrying, "BACKOFF", 0.05)
        patch.setenv("IMGCLF_REMOTE_SECONDS", "60")
        yield proxy


@pytest.fixture
def proxy(s3):
    s3.reset()
    return s3


def train(photos, workdir, cache, **environment) -> subprocess.Popen:
    command = [sys.executable, "-c", "from imgclf.cli import main; main()", "train", f"folder:{photos}", "--workdir", str(workdir)]
    command += [f"--set={name}={value}" for name, value in SETS.items()]
    return subprocess.Popen(
        command, env=os.environ | {"IMGCLF_CACHE": str(cache)} | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_until_saved(url: str, step: int, alive: Callable[[], bool]) -> None:
    """Waits until a whole state of this step or a later one is at the URL."""
    while alive():
        manifest = copies.manifest_at(url)
        if manifest and any(
            int(name.split("/")[2].split("_")[1]) >= step for name in manifest.files if name.startswith("checkpoints/last/step_")
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"step {step} never came to {url}")


def wait_for_step(url: str, step: int, process: subprocess.Popen) -> None:
    try:
        wait_until_saved(url, step, lambda: process.poll() is None)
    except AssertionError as error:
        raise AssertionError(process.communicate()[0]) from error


@pytest.fixture(scope="module")
def here(color_folder, tmp_path_factory):
    """The run on this machine's disks."""
    folder = tmp_path_factory.mktemp("runs") / "here"
    imgclf.train(f"folder:{color_folder}", folder, fields=[f"{name}={value}" for name, value in SETS.items()])
    return folder


def test_a_run_that_is_killed_continues_on_another_machine_to_the_bit(proxy, here, tmp_path):
    first = train("s3://bucket/photos", RUN, tmp_path / "one")
    wait_for_step(RUN, 10, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    proxy.plan = ["", "503", "", "reset", "", "", "short", ""] * 40
    second = train("s3://bucket/photos", RUN, tmp_path / "two")
    told = second.communicate()[0]
    assert second.returncode == 0, told
    assert "Continuing from step" in told
    there, expected = (json.loads(text) for text in (transfer.read(f"{RUN}/results.json"), (here / "results.json").read_bytes()))
    assert {name for name in expected if there[name] != expected[name]} <= {"train_seconds"}
    assert "secret" not in "".join(transfer.read(f"{RUN}/{name}").decode() for name in ("config.json", "environment.json"))
    for name in copies.manifest_at(RUN).files:
        assert not name.endswith(".part")
    assert "/last/step_40/" in "".join(copies.manifest_at(RUN).files)


def test_the_run_is_used_by_its_url(proxy, here, color_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    proxy.plan = ["", "503", "", "reset", ""] * 20
    classifier = imgclf.load(RUN)
    expected = imgclf.load(here).predict(str(color_folder))
    pd.testing.assert_frame_equal(classifier.predict("s3://bucket/photos"), expected)
    proxy.reset()
    assert imgclf.load(RUN).sha256 == classifier.sha256
    assert not [path for _, path in proxy.log if "checkpoints" in path]  # nothing is fetched twice
    out = tmp_path / "predictions.csv"
    command = [sys.executable, "-c", "from imgclf.cli import main; main()", "predict", RUN, "s3://bucket/photos", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(out)["predicted"].tolist() == expected["predicted"].tolist()


@pytest.mark.parametrize("what", ["photos", "runs"])
@pytest.mark.parametrize("fault", ["503", "403"])
def test_a_place_that_goes_or_forbids_ends_the_run_and_loses_nothing(proxy, here, tmp_path, what, fault):
    url = f"s3://bucket/runs/{what}{fault}"
    process = train("s3://bucket/photos", url, tmp_path / "cache", IMGCLF_REMOTE_SECONDS="20")
    wait_for_step(url, 5, process)
    proxy.only, proxy.always = f"/{what}/", fault
    told = process.communicate()[0]
    assert process.returncode == 2, told
    assert "Traceback" not in told
    assert "can't be" in told
    assert any(reason in told for reason in (("503", "no answer in time") if fault == "503" else ("forbidden to you",)))
    point = r"is saved, and the same command continues there" if what == "photos" else "the same command continues from there"
    assert point in " ".join(told.split())
    proxy.reset()
    process = train("s3://bucket/photos", url, tmp_path / "cache")
    told = process.communicate()[0]
    assert process.returncode == 0, told
    assert "Continuing from step" in told
    there, expected = (json.loads(text) for text in (transfer.read(f"{url}/results.json"), (here / "results.json").read_bytes()))
    assert there["params_sha256"] == expected["params_sha256"]


def test_workers_read_from_s3_and_give_the_same_batches(proxy, color_folder):
    from imgclf.data import pipeline
    from imgclf.data.prepare import load_path

    batches = []
    for place, workers in ((str(color_folder), 0), ("s3://bucket/photos", 2)):
        config = config_lib.load_config("folder:photos", {"loader.batch_size": 16, "loader.workers": workers, "data.image_size": 16})
        dataset = imgclf.ImageData(load_path(place)[0]).split(0.8, seed=1, verbose=False)[0].dataset
        proxy.plan = ["", "reset", "", "503"] * 4
        with pipeline.train_batches(dataset, config, num_steps=6) as stream:
            batches.append([batch["image"] for batch in stream])
    assert all((mine == others).all() for mine, others in zip(*batches, strict=True))


def test_several_processes_keep_their_run_at_a_url(proxy, color_folder, tmp_path):
    """As here, and continued there by processes with another cache after all were killed."""
    fields = [f"--config.{name}={value}" for name, value in SETS.items()]
    config = tmp_path / "config.json"
    config.write_text(config_lib.to_json(config_lib.load_config(f"folder:{color_folder}", {"train.method": "fit"})))
    arguments = [f"--config={config}", *fields]
    ended = several_hosts.finish(several_hosts.start([*arguments, f"--workdir={tmp_path}/here"], tmp_path, 2))
    assert [code for code, _ in ended] == [0, 0], ended
    url = "s3://bucket/runs/two-processes"
    remote = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "IMGCLF_REMOTE"))}

    def start(cache: str) -> several_hosts.Started:
        environment = remote | {"IMGCLF_CACHE": str(tmp_path / cache)}
        return several_hosts.start([*arguments, f"--workdir={url}"], tmp_path, 2, environment=environment)

    started = start("one")
    wait_until_saved(url, 10, lambda: all(process.is_alive() for process, _ in started))
    for process, _ in started:
        process.kill()
    several_hosts.finish(started)
    proxy.plan = ["", "503", "", "reset", "", "", "short", ""] * 40
    ended = several_hosts.finish(start("two"))
    assert [code for code, _ in ended] == [0, 0], ended
    assert "Continuing from step" in ended[0][1]
    there, expected = (json.loads(text) for text in (transfer.read(f"{url}/results.json"), (tmp_path / "here/results.json").read_bytes()))
    assert there["params_sha256"] == expected["params_sha256"]


def test_a_second_writer_is_refused(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "_RENEWED", 0.2)
    monkeypatch.setattr(mirror, "_is_alive", lambda pid: True)
    (tmp_path / "one").mkdir()
    url = "s3://bucket/runs/two-writers"
    with mirror.mirrored(tmp_path / "one" / "run", url, print):
        time.sleep(0.5)
        with pytest.raises(UserError, match="Another process writes to"), mirror.mirrored(tmp_path / "two" / "run", url, print):
            pass
