"""`imgclf lr-find`: its files, and every way to name a config and set its fields."""

import json

import pytest
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.cli.options import _in_one_form
from imgclf.errors import UserError

SMALL = ["--set", "data.image_size=8", "--config.model.cnn.widths=(8,)", "--config.model.cnn.dense", "()"]


def test_the_command_leaves_a_page_a_picture_and_the_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(commands.app, ["lr-find", "quickstart", *SMALL, "--steps=30", "--low=1e-5"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "quickstart-cnn-lr-find"
    found = json.loads((folder / "lr_find.json").read_text())
    assert f"--set optimizer.learning_rate={found['suggested']:.2g}" in result.output.replace("\n", "")
    assert len(found["losses"]) == len(found["learning_rates"]) == found["steps"]
    page = (folder / "lr_find.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (folder / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == ["lr_find.html", "lr_find.json", "lr_find.png"]

    other = ["lr-find", "quickstart", *SMALL, "--steps=20", "--set", "optimizer.name=sgd"]
    result = CliRunner().invoke(commands.app, [*other, "--out", str(folder)])
    assert "holds another page (learning rates: quickstart, cnn)" in str(result.exception)
    assert json.loads((folder / "lr_find.json").read_text()) == found


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--config=a.py:b", "--steps=3"], ["a.py:b", "--steps=3"]),
        (["--config", "a.py"], ["a.py"]),
        (["a.py", "--config.seed=3", "--set", "seed=4"], ["a.py", "--set", "seed=3", "--set", "seed=4"]),
        (["--config.seed=3", "--config=a.py"], ["--set", "seed=3", "a.py"]),
        (["--config.name", "x", "a.py"], ["--set", "name=x", "a.py"]),
        (["--config.augment.zoom_joint", "a.py"], ["--set", "augment.zoom_joint=true", "a.py"]),
        (["--noconfig.augment.zoom_joint", "a.py"], ["--set", "augment.zoom_joint=false", "a.py"]),
        (["--", "--config.seed=3"], ["--", "--config.seed=3"]),
    ],
)
def test_run_pys_flags_are_the_same_as_set(given, read):
    assert list(_in_one_form(given)) == read


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.durration=1 steps"], "did you mean 'train.duration'"),
        (["--config.seed=x"], "config.seed"),
        (["--set", "seed"], "write FIELD=VALUE"),
        (["--set", "loader.batch_size=0"], "config.loader.batch_size=0"),
    ],
)
def test_a_users_mistake_is_one_sentence(arguments, message):
    result = CliRunner().invoke(commands.app, ["lr-find", "quickstart", *arguments])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_an_unknown_option_is_refused():
    result = CliRunner().invoke(commands.app, ["lr-find", "quickstart", "--stepz=3"])
    assert result.exit_code == 2
    assert "--stepz" in result.output
