"""`imgclf data`: mistakes and the way through."""

import pytest
from typer.testing import CliRunner

from imgclf.cli import commands
from imgclf.errors import UserError

POLICY = ["--set", "augment.policy=rand_augment", "--set", "augment.policy_args=x=1"]
DIGITS = ["data", "show", "--config=configs/quickstart.py", "--config.data.source=digits"]


def invoke(*arguments: str):
    result = CliRunner().invoke(commands.app, arguments)
    if isinstance(result.exception, UserError):
        raise result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*DIGITS, "--id", "digits/123"], "no image 'digits/123'.*did you mean 'digits/1\\d23'"),
        ([*DIGITS, "--id", "cats/unlike.jpg"], r"no image 'cats/unlike\.jpg'.*; ids look like 'digits/\d+'\.$"),
        ([*DIGITS, "--config.augment.mixupp=1"], "augment.mixup"),
        (["data", "balance", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["data", "balance", "nowhere", "--out", "x", "--config.augment.rotate=x"], "augment.rotate"),
        (["data", "balance", "nowhere", "--out", "x", "--config.augment.erase=0.5"], "is not for files"),
        (
            ["data", "balance", "nowhere", "--out", "x", *POLICY],
            "policy_args",
        ),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        invoke(*arguments)
    assert not list(tmp_path.iterdir())


def test_show(tmp_path):
    out = tmp_path / "views.html"
    result = invoke(*DIGITS, "--views", "2", "--epoch", "7", "--out", str(out))
    assert result.stdout.startswith("Page: ")
    assert "epoch 8" in out.read_text()
