"""`imgclf robustness`: slips are named before anything is loaded. What it does is tested in tests/workflows."""

import pytest
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.errors import UserError


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
