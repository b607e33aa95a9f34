"""The `imgclf` command. Training is `run.py`, as its configs are Python files."""

import json
import sys
from typing import Annotated, Any

import typer

from imgclf.errors import UserError

app = typer.Typer(
    help="Image classification research in JAX/Flax.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def main() -> None:
    """Runs the command; a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)


@app.callback()
def _commands() -> None:
    """Makes `imgclf` a group of commands, also while there is one."""


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Lists the models and their published weights: config.model.name and config.model.weights."""
    from imgclf.models import catalogue  # imports JAX: after --help

    entries = catalogue.entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    rows = [("MODEL", "PARAMETERS", "INPUT", "TOP-1 %", "WEIGHTS", "LICENCE")]
    for entry in entries:
        name, parameters = entry["name"], f"{entry['parameters']:,}"
        rows += [(name, parameters, *_columns(weights)) for weights in entry["weights"]] or [(name, parameters, "any", "", "", "")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, parameters, *rest in rows:
        cells = [
            name.ljust(widths[0]),
            parameters.rjust(widths[1]),
            *(cell.ljust(width) for cell, width in zip(rest, widths[2:], strict=True)),
        ]
        typer.echo("  ".join(cells).rstrip())


def _columns(weights: dict[str, Any]) -> tuple[str, str, str, str]:
    height, width = weights["input_size"]
    top1 = "" if weights["top1"] is None else f"{weights['top1']:.2f}"
    return f"{height}x{width}", top1, weights["name"], weights["licence"]
