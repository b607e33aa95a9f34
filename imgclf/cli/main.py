"""The `imgclf` command. Training is `run.py`, as its configs are Python files."""

import sys

import typer

from imgclf.cli import label_errors, lr_find
from imgclf.cli.cache import cache
from imgclf.cli.data import data
from imgclf.cli.models import models
from imgclf.cli.openimages import openimages
from imgclf.cli.predict import predict
from imgclf.cli.robustness import robustness
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


app.add_typer(cache, name="cache")
app.add_typer(data, name="data")
app.command(context_settings=label_errors.SETTINGS)(label_errors.label_errors)
app.command(context_settings=lr_find.SETTINGS)(lr_find.lr_find)
app.command()(models)
app.add_typer(openimages, name="openimages")
app.command()(predict)
app.command()(robustness)
