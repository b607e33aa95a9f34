"""Forms of convolutions that a run notes, and keeps."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from digits_experiment import digits_config
from rich.console import Console
from typer.testing import CliRunner

from imgclf import config as config_lib
from imgclf.cli import commands
from imgclf.errors import UserError
from imgclf.models.cpu import onednn, tuning
from imgclf.models.cpu.chosen import Forms, Layer, Table
from imgclf.training import sharding
from imgclf.workflows import tune

LAYER = Layer((8, 8, 8, 16), (3, 3, 16, 16), 1, ((1, 1), (1, 1)), False)


def noted(folder: Path, forms: Forms, **environment: object) -> Path:
    """A run's folder as far as its forms go."""
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps(environment | tune.described(Table(((LAYER, forms),)))))
    return folder


def test_a_runs_forms_win(tmp_path, capsys):
    config, console = config_lib.default_config(), Console(width=200)
    config.train.forms = "on"
    mesh = sharding.create_mesh(sizes=config.mesh) if jax.device_count() == 1 else None
    if mesh is None:
        pytest.skip("forms are for one device")
    run = noted(tmp_path / "run", Forms("winograd", "plain", "plain"), cpu="An abacus", cpu_features=[])
    table = tune.forms_for(config, None, mesh, 100, run, console)
    assert table == Table(((LAYER, Forms("winograd", "plain", "plain")),))
    assert "measured on another CPU (An abacus); they stay as they are." in capsys.readouterr().out
    assert tune.forms_for(config, None, mesh, 100, tmp_path, console) is None  # a run from before there were such notes
    assert "has noted no forms of its convolutions" in capsys.readouterr().out
    text = (run / "environment.json").read_text()
    for damaged in (text[: len(text) // 2], '{"forms": [{"maps": 3}]}', '{"forms": 3}'):
        (run / "environment.json").write_text(damaged)
        with pytest.raises(UserError, match=r"environment\.json is damaged"):
            tune.forms_for(config, None, mesh, 100, run, console)
    config.train.forms = "off"
    assert tune.forms_for(config, None, mesh, 100, run, console) is None


def test_a_run_with_onednn_where_there_is_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(onednn, "missing", lambda: "it is not installed")
    run = noted(tmp_path / "run", Forms("onednn", "plain", "plain"))
    assert tune._noted(run, config_lib.default_config(), Console(width=200)) is None
    assert "The run has convolutions by oneDNN, and it is not installed: they have the usual forms here" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_of_a_config(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path))
    fields = ("model.name=resnet_tiny", "data.image_size=16", "loader.batch_size=2")
    flags = [word for field in fields for word in ("--set", field)]
    result = CliRunner().invoke(commands.app, ["tune", "quickstart", *flags])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()  # those of the progress come first, as this is no terminal
    head = next(number for number, line in enumerate(lines) if line.split() == ["LAYER", "PART", "MS", "WINNER"])
    first = lines[head + 1]
    assert " forward " in first


@pytest.mark.slow
def test_a_tuned_run_killed_and_resumed_has_the_bits_of_an_undisturbed_one(tmp_path, monkeypatch):
    """Also where the cache would have it otherwise in the meantime."""
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    changes = {"train.forms": "on", "train.duration": "60 steps", "train.log_every": "1 steps", "train.checkpoint_every": "3 steps"}
    config = digits_config(**changes, **{"model.cnn.widths": (16, 16)})
    file = tmp_path / "config.json"
    file.write_text(config_lib.to_json(config))
    tune.tune(config, console=Console(quiet=True))
    prefer(-1, tmp_path / "cache" / "forms")

    def start(name: str) -> subprocess.Popen:
        words = [sys.executable, "-c", "from imgclf.cli import main; main()", "train", str(file), "--workdir", str(tmp_path / name)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL)

    def results(name: str) -> dict:
        return json.loads((tmp_path / name / "results.json").read_text())

    assert start("straight").wait() == 0
    killed = start("killed")
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while killed.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 10):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    prefer(0, tmp_path / "cache" / "forms")
    assert start("killed").wait() == 0
    assert start("usual").wait() == 0
    assert results("killed")["params_sha256"] == results("straight")["params_sha256"] != results("usual")["params_sha256"]


def prefer(place: int, folder: Path) -> None:
    """Has the kept measurements say that a certain one of the forms of each part is the fastest."""
    for file in folder.iterdir():
        parts = [tuning.Measured(**part) for part in json.loads(file.read_text())]
        rows = [vars(part) | {"winner": list(part.milliseconds)[place] if part.milliseconds else part.winner} for part in parts]
        file.write_text(json.dumps(rows))
