"""`imgclf robustness`: slips are named before anything is loaded. What it does is tested in tests/workflows."""

import types

import pytest
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.errors import UserError
from imgclf.workflows import robustness as workflow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--severities", "1;2"], "is no list"),
        (["nowhere"], "There is no run 'nowhere'"),
        (["photos"], "photos is not a finished run"),
        (["run", "elsewhere"], "elsewhere does not exist"),
        (["run", "--corruptions", "blurr"], "no corruption 'blurr'"),
    ],
)
def test_slips_are_told_before_anything_is_loaded(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    done = CliRunner().invoke(commands.app, ["robustness", *arguments])
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)


@pytest.mark.parametrize(("drop", "said"), [(0.031, "3.1 points below clean"), (-0.008, "0.8 points above clean")])
def test_a_loss_and_a_gain_are_told_by_their_words(drop, said, tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("{}")
    results = {
        "clean": {"top1": 0.5, "top1_ci95": (0.4, 0.6)},
        "split": "test",
        "n": 50,
        "mean_top1": 0.5 - drop,
        "mean_top1_ci95": (0.4, 0.6),
        "mean_drop": drop,
        "orientations": {"same": 50, "images": 50},
        "notes": [],
    }
    found = types.SimpleNamespace(results=results, page=tmp_path / "robustness.html")
    monkeypatch.setattr(workflow, "robustness", lambda *arguments, **options: found)
    done = CliRunner().invoke(commands.app, ["robustness", str(tmp_path)])
    assert said in done.output.replace("\n", " ")
