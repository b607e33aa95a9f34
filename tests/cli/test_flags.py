"""Errors speak of arguments as the command line has them."""

import signal

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from imgclf.cli import commands, flags
from imgclf.errors import UserError

FLAGS = {"overwrite": "--overwrite", "method": "--method", "class_name": "--class", "out": "--out", "path": "--path"}


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("give overwrite=True to replace it.", "give --overwrite to replace it."),
        ("method='cam' is none; did you mean 'hirescam'?", "--method='cam' is none; did you mean 'hirescam'?"),
        ("choose another folder with out=DIR.", "choose another folder with --out=DIR."),
        ("class_name='x' is none", "--class='x' is none"),
        ("config.data.path='x', FILE.py:DATA,path=X and --path=x stay", "config.data.path='x', FILE.py:DATA,path=X and --path=x stay"),
    ],
)
def test_parameters_are_spelled_as_flags(sentence, told):
    assert flags.told(sentence, FLAGS) == told


def test_a_command_is_found_by_its_path():
    group = get_command(commands.app)
    assert isinstance(group, TyperGroup)
    assert flags.asked_command(group, ["data", "balance", "photos"])[0] == ("data", "balance")
    assert flags.asked_command(group, ["map", "data"])[0] == ("map",)
    assert flags.asked_command(group, ["modelz"]) == ((), group)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    return tmp_path


def raising(error):
    def workflow(*arguments, **options):
        raise error

    return workflow


def test_a_command_tells_what_its_workflow_says_in_flags(run, monkeypatch):
    monkeypatch.setattr("imgclf.workflows.bundle.bundle", raising(UserError("leave data_url='x' out, or give overwrite=True.")))
    done = CliRunner().invoke(commands.app, ["bundle", str(run), "--out", "x"])
    assert str(done.exception) == "leave --data-url='x' out, or give --overwrite."


@pytest.mark.parametrize(("command", "continues"), [(["bundle"], True), (["compare", "{run}/other"], False)])
def test_only_commands_that_continue_promise_it_at_ctrl_c(command, continues, run, monkeypatch):
    (run / "other").mkdir()
    (run / "other" / "results.json").write_text("{}")
    name = command[0]
    monkeypatch.setattr(f"imgclf.workflows.{name}.{name}", raising(KeyboardInterrupt()))
    arguments = [name, str(run), *(part.format(run=run) for part in command[1:]), *(["--out", "x"] if continues else [])]
    done = CliRunner().invoke(commands.app, arguments)
    assert done.exit_code == 128 + signal.SIGINT
    assert ("to continue" in done.output) == continues
    assert done.output.startswith("Interrupted.")
