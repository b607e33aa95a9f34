"""What the commands that take a config have in common: its argument, and one way to set fields in it."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from imgclf.errors import UserError
from imgclf.remote import places

CONFIG_HELP = "A shipped config (quickstart, folder:PHOTOS), a config file FILE.py[:ARGUMENT], or a run's folder or config.json."
ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help=CONFIG_HELP, show_default=False)]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Sets a field of the config, such as data.image_size=96; may be given again. --config.FIELD=VALUE is the same.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what another model left there.")]


def _run_folder(text: str) -> Path:
    """A run's folder; one at a URL is fetched."""
    from imgclf.remote import copies

    return copies.fetched(text) if places.is_url(text) and places.protocol(text) != "hf" else Path(text)


RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a finished run, or its URL.", show_default=False, parser=_run_folder)
]


def check_run(run: Path, *data: Path | str | None) -> None:
    """Raises a UserError where there is no finished run, or no such data; quick, before JAX is imported."""
    if not run.is_dir():
        raise UserError(f"There is no run {str(run)!r}: give the folder of a finished run, or of a saved model.")
    if not (run / "results.json").exists():
        raise UserError(f"{run} is not a finished run (it has no results.json): train it first, with imgclf train CONFIG --workdir={run}.")
    try:
        whole = isinstance(json.loads((run / "results.json").read_text(encoding="utf-8")), dict)
    except ValueError:
        whole = False
    if not whole:
        raise UserError(f"{run / 'results.json'} is damaged: restore the run from a copy, or train again, into another folder.")
    for path in data:
        if path is not None:
            check_there(path)


def is_export(folder: Path) -> bool:
    """Whether a folder is what `imgclf export` has written; by the name of its file, since the room that writes it imports JAX."""
    return (folder / "export.json").is_file()


def check_there(path: Path | str) -> None:
    """Raises a UserError where there is no such file or folder; a URL is not looked for."""
    if not places.is_url(path) and not os.path.exists(path):
        raise UserError(f"{path} does not exist (looked for as {os.path.abspath(path)}): check the path.")


class ConfigCommand(TyperCommand):
    """A command with the option --set, which also takes what run.py takes: --config=CONFIG and --config.FIELD=VALUE."""

    # ctx is a click.Context, or that of the click which newer versions of typer bring along.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_in_one_form(args)))


def _in_one_form(args: Sequence[str]) -> Iterator[str]:
    """Turns every way to name a config or set a field into the one that the commands declare; the order stays, as the last value counts."""
    rest = iter(args)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--":
            yield argument
            yield from rest
        elif name == "--config":
            yield value if equals else next(rest, argument)
        elif name.startswith("--config."):
            field = name.removeprefix("--config.")
            if not equals:
                value = "true" if _is_switch(field) else next(rest, "")
            yield from ("--set", f"{field}={value}")
        elif name.startswith("--noconfig.") and not equals:
            yield from ("--set", f"{name.removeprefix('--noconfig.')}=false")
        else:
            yield argument


def _is_switch(field: str) -> bool:
    from imgclf.config import default_config, flatten

    return isinstance(flatten(default_config()).get(field), bool)
