"""Exact resume: killed, stopped or damaged anywhere, a run ends with the same bits as an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import warm_start
from digits_experiment import ELEMENTWISE, digits_config
from rich.console import Console

from imgclf import config as config_lib
from imgclf.data.splits import subset
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.training import checkpoint
from imgclf.training.checkpoint import Checkpoints
from imgclf.training.state import TrainState
from imgclf.workflows import run_folder, train


def run_in_child(config_json: str, folder: str) -> None:
    train.train(config_lib.from_json(config_json), Path(folder), console=Console(quiet=True))


def start(config, folder: Path) -> BaseProcess:
    process, said = warm_start.start(run_in_child, config_lib.to_json(config), str(folder))
    said.close()
    return process


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def writing(folder: Path) -> bool:
    return any(folder.glob("checkpoints/**/*orbax-checkpoint-tmp*"))


@pytest.mark.parametrize(("kills", "steps"), [(3, 75), pytest.param(21, 200, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(tmp_path, kills, steps):
    """SIGKILLs, in turn at any moment after the start, some time after the first new metrics, and while a checkpoint is written."""
    changes = {"train.duration": f"{steps} steps", "train.eval_every": "25 steps", "train.log_every": "1 steps"}
    config = digits_config(**ELEMENTWISE, **changes)
    straight, folder, rng = tmp_path / "straight", tmp_path / "killed", random.Random(0)
    expected = train.train(config, straight, console=Console(quiet=True))
    config.train.checkpoint_every = "3 steps"  # more often is allowed: it does not alter the result
    killed_writing = 0
    for kill in range(kills):
        process = start(config, folder)
        if kill % 3:
            before = (folder / "metrics.jsonl").stat().st_size if (folder / "metrics.jsonl").exists() else 0
            while process.is_alive() and not ((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > before):
                time.sleep(0.001)
        if kill % 3 == 2:
            while process.is_alive() and not writing(folder):
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, 0.01))
        else:
            time.sleep(rng.uniform(0, 1.5 if kill % 3 == 0 else 0.3))
        assert process.is_alive(), "the run ended before it could be killed: give it more steps"
        os.kill(process.pid, signal.SIGKILL)
        killed_writing += writing(folder)
        process.join()
    process = start(config, folder)
    process.join()
    assert process.exitcode == 0
    assert killed_writing >= kills // 7, "no kill fell into the writing of a checkpoint"
    results = json.loads((folder / "results.json").read_text())
    assert results["params_sha256"] == expected["params_sha256"]
    assert results["confusion"] == expected["confusion"]
    assert (folder / "predictions.csv").read_text() == (straight / "predictions.csv").read_text()
    assert [line["step"] for line in lines(folder)] == [line["step"] for line in lines(straight)]
    assert [line.get("train_loss") for line in lines(folder)] == [line.get("train_loss") for line in lines(straight)]
    assert len(list((folder / "checkpoints").glob("best-*"))) == 1


@pytest.fixture
def half_done(straight_run, tmp_path) -> Path:
    """A copy of the finished run as it was after step 16: checkpoints 12 and 16."""
    folder = tmp_path / "half"
    process = start(digits_config(), folder)
    while process.is_alive() and not (folder / "checkpoints/last/step_16").exists():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return folder


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(half_done, straight_run, capsys):
    newest = max((half_done / "checkpoints/last").glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    for file in newest.glob("state/**/d/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    results = train.train(digits_config(), half_done, console=Console())
    told = capsys.readouterr().out.replace("\n", "")
    assert f"step {newest.name.split('_')[1]} is damaged" in told
    assert (half_done / "checkpoints/damaged" / newest.name).is_dir()
    assert results["params_sha256"] == straight_run[1]["params_sha256"]


def test_sigterm_saves_and_leaves(straight_run, tmp_path):
    config_file = tmp_path / "config.json"
    config_file.write_text(config_lib.to_json(digits_config(**{"train.checkpoint_every": "1000 steps", "train.duration": "5000 steps"})))
    folder = tmp_path / "run"

    def terminate(process: BaseProcess) -> None:
        while process.is_alive() and not (folder / "metrics.jsonl").exists():
            time.sleep(0.01)
        while process.is_alive() and len(lines(folder)) < 3:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)

    code, told = warm_start.call([f"--config={config_file}", f"--workdir={folder}"], tmp_path, terminate)
    assert code == 143, told
    assert "the state is saved" in told
    assert "Traceback" not in told
    assert len(list((folder / "checkpoints/last").glob("step_*"))) == 1


def test_ctrl_c_saves_and_the_run_ends_the_same(half_done, straight_run, monkeypatch):
    def interrupt(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return True

    from imgclf.training import loop

    monkeypatch.setattr(loop.MetricsWindow, "add", interrupt)
    with pytest.raises(loop.Interrupted) as stopped:
        train.train(digits_config(), half_done, console=Console(quiet=True))
    monkeypatch.undo()
    assert stopped.value.signum == signal.SIGINT
    assert (half_done / f"checkpoints/last/step_{stopped.value.step}").is_dir()
    assert train.train(digits_config(), half_done, console=Console(quiet=True))["params_sha256"] == straight_run[1]["params_sha256"]


def test_another_config_is_refused_by_name(straight_run):
    folder, _ = straight_run
    with pytest.raises(UserError, match=r"config\.optimizer\.learning_rate was 0\.01, now 0\.02.*another workdir"):
        train.train(digits_config(**{"optimizer.learning_rate": 0.02}), folder, console=Console(quiet=True))


def test_changed_data_is_refused(straight_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(straight_run[0], folder)
    whole = load_dataset(digits_config())
    one_less = subset(whole, np.arange(len(whole.table) - 1))
    with pytest.raises(UserError, match=r"The data has changed.*0 added, 1 gone"):
        train.train(digits_config(), folder, console=Console(quiet=True), dataset=one_less)


def test_a_finished_run_is_reported_again_and_changes_nothing(straight_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(straight_run[0], folder)
    (folder / "report.html").unlink()
    again = train.train(digits_config(), folder, console=Console(quiet=True))
    assert again == straight_run[1] | {"train_seconds": again["train_seconds"]}
    assert (folder / "report.html").exists()
    assert (folder / "metrics.jsonl").read_text() == (straight_run[0] / "metrics.jsonl").read_text()


def test_two_processes_cannot_share_a_folder(tmp_path):
    with run_folder.claim(tmp_path), pytest.raises(UserError, match="Another process"), run_folder.claim(tmp_path):
        pass


def state_of(size: int, step: int) -> TrainState:
    return TrainState(jnp.asarray(step, jnp.int32), {"kernel": jnp.full((size,), float(step))}, {}, ())


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("foresee", [True, False])
def test_a_full_disk_leaves_the_older_checkpoint_and_says_so(small_disk, foresee, monkeypatch):
    checkpoints = Checkpoints(small_disk / "checkpoints")
    rng = np.random.default_rng(0)  # incompressible, as parameters are
    kernel = jnp.asarray(rng.standard_normal(400_000), jnp.float32)
    first = TrainState(jnp.asarray(1, jnp.int32), {"kernel": kernel}, {}, ())
    checkpoints.save(first, {"seconds": 1.0})
    if not foresee:  # the space may go between the look and the write: then the write itself fails
        monkeypatch.setattr(checkpoint.Checkpoints, "_need_space", lambda self, tree: None)
    (small_disk / "filler").write_bytes(bytes(1_500_000))
    with pytest.raises(UserError, match=r"disk .* is full; the checkpoint of step 1 is intact.*same command"):
        checkpoints.save(TrainState(jnp.asarray(2, jnp.int32), {"kernel": kernel + 1}, {}, ()), {"seconds": 2.0})
    checkpoints.close()
    (small_disk / "filler").unlink()
    restored = Checkpoints(small_disk / "checkpoints").restore(lambda step: first, Console(quiet=True))
    assert int(restored.state.step) == 1
    np.testing.assert_array_equal(restored.state.params["kernel"], kernel)


def test_when_all_checkpoints_are_damaged_the_way_out_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state_of(10, 1), {})
    shutil.rmtree(tmp_path / "checkpoints/last/step_1/state/d")
    with pytest.raises(UserError, match="another workdir"):
        checkpoints.restore(lambda step: state_of(10, step), Console(quiet=True))
