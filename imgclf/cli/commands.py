"""Puts the commands together."""

import importlib.metadata
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from imgclf import errors
from imgclf.cli import endings, flags
from imgclf.cli.bundle import bundle
from imgclf.cli.cache import cache
from imgclf.cli.card import card
from imgclf.cli.compare import compare
from imgclf.cli.configs import configs
from imgclf.cli.create import create
from imgclf.cli.data import data
from imgclf.cli.evaluate import evaluate
from imgclf.cli.explain import explain
from imgclf.cli.export import export
from imgclf.cli.label_errors import label_errors
from imgclf.cli.leaderboard import leaderboard
from imgclf.cli.lr_find import lr_find
from imgclf.cli.map import map_
from imgclf.cli.models import models
from imgclf.cli.openimages import openimages
from imgclf.cli.options import ConfigCommand
from imgclf.cli.plan import plan
from imgclf.cli.predict import predict
from imgclf.cli.push import push
from imgclf.cli.reproduce import reproduce
from imgclf.cli.robustness import robustness
from imgclf.cli.serve import serve
from imgclf.cli.study import study
from imgclf.cli.train import train
from imgclf.cli.tune import tune


class _Group(TyperGroup):
    # ctx: see ConfigCommand.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[__name__] = flags.asked_command(self, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        path, command = ctx.meta[__name__]
        with endings.told(continues=path[:1] in endings.CONTINUING or path in endings.CONTINUING), flags.in_errors(command):
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)  # as they are added below: in the order of a first day's work


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"imgclf {importlib.metadata.version('imgclf')}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")] = False,
) -> None:
    """Image classification research in JAX/Flax."""


app = typer.Typer(
    cls=_Group,
    callback=_options,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=ConfigCommand)(train)
app.command(cls=ConfigCommand)(create)
app.command()(evaluate)
app.command()(leaderboard)
app.command()(predict)
app.command()(explain)
app.command("map")(map_)
app.command()(export)
app.command()(serve)
app.command()(compare)
app.command()(study)
app.command()(configs)
app.command()(models)
app.add_typer(data, name="data")
app.command(cls=ConfigCommand)(lr_find)
app.command(cls=ConfigCommand)(label_errors)
app.command(cls=ConfigCommand)(plan)
app.command(cls=ConfigCommand)(tune)
app.command()(robustness)
app.command()(bundle)
app.command()(reproduce)
app.command()(card)
app.command()(push)
app.add_typer(openimages, name="openimages")
app.add_typer(cache, name="cache")


def run() -> None:
    """Runs the command and leaves the process."""
    leave_by(app)


def leave_by(command: typer.Typer) -> None:
    """Runs a command line; a user's mistake is one sentence and its exit code."""
    with errors.of_flags():
        try:
            command()
        except errors.UserError as error:
            typer.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
