"""Options that are declared once for several commands."""

import dataclasses
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from imgclf.cli.option_groups import with_groups


@dataclasses.dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="In pixels.")] = 3
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Colour:
    names: Annotated[list[str], typer.Option("--name")] = dataclasses.field(default_factory=lambda: ["red"])
    seed: int = 0


app = typer.Typer()


@app.command()
@with_groups
def paint(what: str, size: Size, colour: Colour, *, twice: bool = False) -> None:
    """Paints."""
    print(what, size, colour, twice)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("house", "house Size(width=3, seed=0) Colour(names=['red'], seed=0) False"),
        (
            "house --width 5 --name blue --name green --seed 7 --twice",
            "house Size(width=5, seed=7) Colour(names=['blue', 'green'], seed=7) True",
        ),
    ],
)
def test_groups_become_options(words, printed):
    result = CliRunner().invoke(app, words.split())
    assert result.output.strip() == printed, result.output


def test_help_shows_them_once():
    output = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    assert "In pixels." in output
    assert output.count("--seed") == 1
    assert "Paints." in output
