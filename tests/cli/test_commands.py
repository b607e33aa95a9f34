"""The `imgclf` command."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import imgclf
from imgclf.cli import commands
from imgclf.errors import AlteredError, UserError
from imgclf.models import registry


def test_models_as_json():
    result = CliRunner().invoke(commands.app, ["models", "--json"])
    assert result.exit_code == 0
    entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert all({"tiny", "micro"} & set(name.split("_")) for name in set(registry.NAMES) - set(entries))
    resnet50 = entries["resnet50"]
    assert resnet50["parameters"] == 25_557_032
    a1 = next(weights for weights in resnet50["weights"] if weights["name"] == "timm/resnet50.a1_in1k")
    assert (a1["top1"], a1["input_size"], a1["licence"], a1["hub"]) == (80.38, [224, 224], "apache-2.0", "timm/resnet50.a1_in1k")


def test_models_as_a_table():
    lines = CliRunner().invoke(commands.app, ["models"]).stdout.splitlines()
    assert lines[0].split() == ["MODEL", "PARAMETERS", "INPUT", "TOP-1", "%", "WEIGHTS", "LICENCE"]
    row = next(line for line in lines if "resnet50.a1_in1k" in line)
    assert row.split() == ["resnet50", "25,557,032", "224x224", "80.38", "timm/resnet50.a1_in1k", "apache-2.0"]
    assert sum(len(entry["weights"]) or 1 for entry in registry.entries()) == len(lines) - 1


def test_the_best_models_for_a_probe():
    limits = ["models", "--best-for", "probe", "--max-gflops", "0.5"]
    lines = CliRunner().invoke(commands.app, limits).stdout.splitlines()
    assert lines[0].split() == ["WEIGHTS", "RANKED", "BY", "PROBE", "%", "TOP-1", "%", "GFLOPS", "PARAMETERS", "INPUT", "LICENCE"]
    row = next(line for line in lines if "mobilenetv3_large_100.ra_in1k" in line)
    assert row.split() == ["timm/mobilenetv3_large_100.ra_in1k", "75.3", "75.8", "0.23", "5,483,032", "224x224", "apache-2.0"]
    start = lines[0].index("RANKED BY")
    of_top1 = [line[start : start + 9] for line in lines[1:] if not line[start + 9 : start + 18].strip()]
    ranks = [float(cell) for cell in of_top1 if cell.strip()]
    assert len(ranks) > 20
    assert ranks == sorted(ranks, reverse=True)
    found = json.loads(CliRunner().invoke(commands.app, [*limits, "--commercial", "--json"]).stdout)
    assert [entry["name"] for entry in found] == [entry.name for entry in registry.best_for_probe(max_gmacs=0.5, commercial=True)]
    assert all(entry["gmacs"] <= 0.5 and entry["commercial"] and entry["licence"] for entry in found)
    with pytest.raises(UserError, match=r"No published weights cost 0 GFLOPS or less; the least is 0\.\d+"):
        CliRunner().invoke(commands.app, [*limits[:-1], "0"], catch_exceptions=False)


def test_limits_without_a_purpose_and_unknown_purposes_are_told():
    for arguments, told in ((["--commercial"], "add --best-for probe"), (["--best-for", "detection"], "there is probe")):
        with pytest.raises(UserError, match=told):
            CliRunner().invoke(commands.app, ["models", *arguments], catch_exceptions=False)


def test_help_is_quick_and_mistakes_have_no_traceback():
    code = "import sys; from imgclf.cli import main; sys.argv = ['imgclf', 'modelz']\ntry: main()\nfinally: assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'modelz'" in done.stderr
    assert "Traceback" not in done.stderr


def test_version():
    done = CliRunner().invoke(commands.app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"imgclf {imgclf.__version__}\n")


@pytest.mark.parametrize(("error", "code"), [(UserError("A mistake."), 2), (AlteredError("Not as it was written."), 1)])
def test_a_check_that_fails_ends_otherwise_than_a_mistake(error, code, capsys, monkeypatch):
    app = typer.Typer()

    @app.callback(invoke_without_command=True)
    def command():
        raise error

    monkeypatch.setattr(sys, "argv", ["imgclf"])
    with pytest.raises(SystemExit) as ended:
        commands.leave_by(app)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"Error: {error}\n"
