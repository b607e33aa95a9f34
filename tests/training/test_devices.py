"""Data parallelism: 4 simulated devices, and two processes on loopback, train on the same batches as one device."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import record_batches
import warm_start
from digits_experiment import ELEMENTWISE, digits_config

from imgclf import config as config_lib

BATCH = 64


def losses(folder: Path) -> dict[int, dict]:
    records: dict[int, dict] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        records.setdefault(record["step"], {}).update(record)
    return records


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    """With BatchNorm and dropout; without evaluations in between, so that what is recorded are the training batches."""
    changes = {"train.duration": "12 steps", "train.eval_every": "12 steps", "train.log_every": "1 steps"}
    changes["train.checkpoint_every"] = "12 steps"
    changes["augment.erase_fill"] = "mean"  # noise costs each process seconds of compilation
    config = digits_config(**ELEMENTWISE | changes)  # MixUp's partners stand on other devices
    config.loader.eval_batch_size = 1024  # its only batch is padded, and not recorded
    path = tmp_path_factory.mktemp("devices") / "config.json"
    path.write_text(config_lib.to_json(config))
    return path


def start(config_file: Path, folder: Path, out: Path, devices: int = 1, *distributed: str | int):
    return warm_start.start(record_batches.main, config_file, folder, out, devices, *distributed)


def finish(*processes) -> None:
    for process in processes:
        code, told = warm_start.finish(*process)
        assert code == 0, told


@pytest.fixture(scope="module")
def one_device(config_file, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("one")
    finish(start(config_file, folder / "run", folder / "seen.json"))
    seen = json.loads((folder / "seen.json").read_text())
    assert seen["devices"] == 1
    assert len(seen["batches"]) == 12
    return folder / "run", seen


def assert_same_training(folder: Path, one: Path) -> None:
    expected, actual = losses(one), losses(folder)
    assert list(actual) == list(expected) == list(range(1, 13))
    for step, record in expected.items():
        for name in ("train_loss", "grad_norm", "val_loss"):
            if name in record:
                np.testing.assert_allclose(actual[step][name], record[name], rtol=2e-3, err_msg=f"{name} at step {step}")


@pytest.mark.slow
def test_four_devices_get_the_same_batches(config_file, one_device, tmp_path):
    finish(start(config_file, tmp_path / "run", tmp_path / "seen.json", devices=4))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["devices"] == 4
    assert seen["batches"] == one_device[1]["batches"]
    assert_same_training(tmp_path / "run", one_device[0])


def test_two_processes_read_the_same_global_batches_and_reach_the_same_loss(config_file, one_device, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    finish(*[start(config_file, tmp_path / "run", tmp_path / f"seen{k}.json", 1, coordinator, 2, k) for k in range(2)])
    seen = [json.loads((tmp_path / f"seen{k}.json").read_text()) for k in range(2)]
    assert all(one["processes"] == 2 for one in seen)
    assert seen[0]["params_sha256"] == seen[1]["params_sha256"]
    for ours, first, second in zip(one_device[1]["batches"], seen[0]["batches"], seen[1]["batches"], strict=True):
        assert len(first) == len(second) == BATCH // 2
        assert first + second == ours
    assert_same_training(tmp_path / "run", one_device[0])


def test_a_batch_that_does_not_divide_names_one_that_does(config_file, tmp_path):
    config = config_lib.from_json(config_file.read_text())
    config.loader.batch_size = 50
    other = tmp_path / "config.json"
    other.write_text(config_lib.to_json(config))
    code, told = warm_start.finish(*start(other, tmp_path / "run", tmp_path / "seen.json", devices=4))
    assert code != 0
    assert "config.loader.batch_size=50 does not divide among 4 devices; use 48 or 52" in told
