"""2 and 4 real processes train as one does; when one ends, however it ends, all end, and their checkpoint continues the training."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import color_images
import numpy as np
import pandas as pd
import pytest
import several_hosts
from digits_experiment import digits_config

from imgclf import config as config_lib
from imgclf.training.checkpoint import load_model
from imgclf.workflows import run_folder

pytestmark = pytest.mark.slow

STEPS = 12
LONG = ["--config.train.duration=4000 steps", "--config.train.eval_every=4000 steps", "--config.train.checkpoint_every=20 steps"]
WRITTEN_ONCE = [
    *("audit.json", "config.json", "dataset.parquet", "environment.json"),
    *("predictions.csv", "quarantine.csv", "report.html", "results.json"),
]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, color_folder) -> Path:
    config = digits_config(**{"train.duration": f"{STEPS} steps", "train.log_every": "1 steps", "train.eval_every": "6 steps"})
    config.data.source, config.data.path = "folder", str(color_folder)
    config.data.image_size = (16, 16)
    config.loader.batch_size = config.loader.eval_batch_size = 16
    config.train.checkpoint_every = "6 steps"
    path = tmp_path_factory.mktemp("several") / "config.json"
    path.write_text(config_lib.to_json(config))
    return path


@pytest.fixture(scope="module")
def one(config_file, tmp_path_factory) -> Path:
    """A training of one process, with four devices."""
    folder = tmp_path_factory.mktemp("one")
    several_hosts.run_one([f"--config={config_file}", "--workdir=run"], folder, devices=4)
    return folder / "run"


def losses(run: Path) -> dict[tuple[int, str], float]:
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found |= {(record["step"], name): record[name] for name in ("train_loss", "grad_norm", "val_loss") if name in record}
    return found


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def params(run: Path) -> np.ndarray:
    model, _ = load_model(run / results(run)["checkpoint"])
    import jax

    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(model["params"])])


def assert_same_training(run: Path, expected: Path, rtol: float) -> None:
    ours, theirs = losses(run), losses(expected)
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=rtol)
    assert np.linalg.norm(params(run) - params(expected)) <= rtol * np.linalg.norm(params(expected))
    tables = [pd.read_csv(one / "predictions.csv") for one in (run, expected)]
    assert tables[0].iloc[:, :2].equals(tables[1].iloc[:, :2])


@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_several_processes_train_as_one_does(config_file, one, color_folder, tmp_path, count, devices):
    started = several_hosts.start([f"--config={config_file}", "--workdir=run"], tmp_path, count, devices=devices)
    ended = several_hosts.finish(started)
    assert [code for code, _ in ended] == [0] * count, ended
    run = tmp_path / "run"
    assert_same_training(run, one, 1e-6)
    assert results(run)["n"] == results(one)["n"]
    assert all((run / name).stat().st_size for name in WRITTEN_ONCE)
    assert [line["step"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())].count(STEPS) <= 2
    assert sum("Report:" in told for _, told in ended) == 1

    opened = [json.loads((tmp_path / f"opened-{k}.json").read_text()) for k in range(count)]
    counts = [sum(name.startswith(str(color_folder)) and name.endswith(".png") for name in files) for files in opened]
    print("images opened by each process:", counts)  # shown with -rP
    sizes = pd.read_parquet(run / "dataset.parquet")["split"].value_counts()
    shown = STEPS * 16 + 2 * sizes["val"] + sizes["test"]
    assert all(number <= (sizes.sum() + shown) / count + 3 for number in counts[1:])  # process 0 also draws the report


def test_images_that_are_verified_in_the_background(config_file, tmp_path):
    arguments = [f"--config={config_file}", "--config.data.verify=background"]
    ended = several_hosts.finish(several_hosts.start([*arguments, "--workdir=run"], tmp_path, 2))
    assert [code for code, _ in ended] == [0, 0], ended
    several_hosts.run_one([*arguments, "--workdir=one"], tmp_path, devices=2)
    assert_same_training(tmp_path / "run", tmp_path / "one", 1e-6)
    quarantined = [pd.read_csv(tmp_path / name / "quarantine.csv")["id"].tolist() for name in ("run", "one")]
    assert quarantined == [["red/broken.jpg"]] * 2


@pytest.mark.parametrize("mesh", [("fsdp", 2), ("fsdp", 4), ("model", 2)])
def test_a_state_that_is_split_over_processes(config_file, one, tmp_path, mesh):
    axis, size = mesh
    arguments = [f"--config={config_file}", "--workdir=run", f"--config.mesh.{axis}={size}"]
    ended = several_hosts.finish(several_hosts.start(arguments, tmp_path, 2, devices=2))
    assert [code for code, _ in ended] == [0, 0], ended
    assert_same_training(tmp_path / "run", one, 1e-5)


def stopped(config_file: Path, folder: Path, count: int, victim: int, signum: int, *more: str) -> list[tuple[int, str, float]]:
    """Sends a signal to one process of a training; returns (exit code, what it said, seconds until its end) of each."""
    arguments = [
        f"--config={config_file}",
        "--workdir=run",
        "--config.train.duration=4000 steps",
        "--config.train.checkpoint_every=20 steps",
    ]
    started = several_hosts.start([*arguments, "--config.train.eval_every=4000 steps", *more], folder, count)
    several_hosts.wait_for_step(folder / "run" / "metrics.jsonl", 30, started)
    pid = started[victim][0].pid
    assert pid is not None
    os.kill(pid, signum)
    began, ends = time.monotonic(), {}
    while len(ends) < count - (signum == signal.SIGSTOP) and time.monotonic() - began < 90:
        ends |= {k: time.monotonic() - began for k, (process, _) in enumerate(started) if k not in ends and not process.is_alive()}
        time.sleep(0.05)
    if signum == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)  # it finds that the others are gone
    return [(*said, ends.get(k, -1.0)) for k, said in enumerate(several_hosts.finish(started))]


def last_step(run: Path) -> int:
    return max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints" / "last").glob("step_*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_is_killed_the_others_end_and_say_so(config_file, tmp_path, victim):
    ended = stopped(config_file, tmp_path, 2, victim, signal.SIGKILL)
    code, told, seconds = ended[1 - victim]
    assert code == 75, told
    assert seconds < 60
    assert "another process of the training is gone" in told
    assert "give all processes their commands again; this one's: run.py --config=" in told
    print("seconds:", seconds)
    assert last_step(tmp_path / "run") >= 20


def test_where_one_hangs_the_others_end_and_say_so(config_file, tmp_path):
    ended = stopped(config_file, tmp_path, 2, 1, signal.SIGSTOP)
    assert [code for code, _, _ in ended] == [75, 75], ended
    assert ended[0][2] < 60
    print("seconds:", ended[0][2])


@pytest.mark.parametrize("split", [False, True])
def test_sigterm_to_one_saves_one_step_which_any_number_of_devices_continues(config_file, tmp_path, split):
    ended = stopped(config_file, tmp_path, 4, 2, signal.SIGTERM, *(["--config.mesh.fsdp=4"] * split))
    assert [code for code, _, _ in ended] == [143] * 4, ended
    step = last_step(tmp_path / "run")
    assert all(f"Stopped at step {step}; the state is saved" in told for _, told, _ in ended), ended
    run_folder.write_stop(tmp_path / "run", f"{step + 4} steps")
    runs = []
    for devices, fsdp in ((1, 1), (2, 2), (8, 4)):
        runs.append(tmp_path / f"on{devices}")
        shutil.copytree(tmp_path / "run", runs[-1])
        mesh = [f"--config.mesh.fsdp={fsdp}"] * split
        several_hosts.run_one([f"--config={runs[-1] / 'config.json'}", f"--workdir={runs[-1]}", *mesh], tmp_path, devices)
    for run in runs[1:]:
        assert_same_training(run, runs[0], 1e-4)


def test_ctrl_c_saves_too(config_file, tmp_path):
    ended = stopped(config_file, tmp_path, 2, 1, signal.SIGINT)
    assert [code for code, _, _ in ended] == [143, 130], ended
    assert f"Stopped at step {last_step(tmp_path / 'run')}; the state is saved" in ended[0][1]


def test_an_image_that_one_host_cannot_read_ends_all(config_file, color_folder, tmp_path):
    copies = [shutil.copytree(color_folder, tmp_path / f"host{k}" / "photos") for k in range(2)]
    own = [[f"--config.data.path={copy}"] for copy in copies]
    arguments = [f"--config={config_file}", "--workdir=run", "--config.data.in_memory_mb=0", *LONG]
    started = several_hosts.start(arguments, tmp_path, 2, own=own)
    several_hosts.wait_for_step(tmp_path / "run" / "metrics.jsonl", 5, started)
    for path in copies[1].rglob("*.png"):
        path.write_bytes(path.read_bytes()[:50])
    ended = several_hosts.finish(started, 60)
    assert [code for code, _ in ended] == [2, 2], ended
    assert "has changed since it was verified" in ended[1][1]
    assert "Process 1 of 2 has ended, and so this one does" in ended[0][1]


def test_a_full_disk_ends_all(config_file, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk needs root")
    try:
        ended = several_hosts.finish(several_hosts.start([f"--config={config_file}", f"--workdir={disk}/run"], tmp_path, 2), 120)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert [code for code, _ in ended] == [2, 2], ended
    assert all(f"The disk of {disk}/run/checkpoints is full; no checkpoint had been written yet" in told for _, told in ended), ended


def test_folders_that_differ_are_told_at_the_start(config_file, color_folder, tmp_path):
    copies = [shutil.copytree(color_folder, tmp_path / f"host{k}" / "photos") for k in range(2)]
    color_images.picture(copies[1] / "red" / "only-here.png", 999, 0)
    own = [[f"--config.data.path={copy}"] for copy in copies]
    ended = several_hosts.finish(several_hosts.start([f"--config={config_file}", "--workdir=run"], tmp_path, 2, own=own), 60)
    assert [code for code, _ in ended] == [2, 2], ended
    assert all("The hosts do not have the same images" in told and "red/only-here.png" in told for _, told in ended), ended
    assert not (tmp_path / "run").exists()


def test_commands_that_differ_are_told_at_the_start(config_file, tmp_path):
    own = [[], ["--config.optimizer.learning_rate=0.5"]]
    ended = several_hosts.finish(several_hosts.start([f"--config={config_file}", "--workdir=run"], tmp_path, 2, own=own), 60)
    assert [code for code, _ in ended] == [2, 2], ended
    assert all("config.optimizer.learning_rate is 0.01 in process 0, 0.5 in process 1" in told for _, told in ended), ended
