"""`imgclf card`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run, is_export
from imgclf.errors import UserError


def card(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="The file for it, such as README.md; default: it is printed.", show_default=False)
    ] = None,
    address: Annotated[str, typer.Option(help="What imgclf.load will be given by those who use the model.")] = "hf://USER/NAME",
    licence: Annotated[str, typer.Option(help="Of the trained model; default: that of the weights that it began with.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file at --out.")] = False,
) -> None:
    """Shows a finished run's model card: data, licences, metrics with intervals, intended use, and what was not measured.

    `imgclf push` and `imgclf bundle` write the same one. An export has a card of its own, which `imgclf push EXPORT` writes. No network is
    needed.

    Examples:

      imgclf card runs/larger

      imgclf card runs/larger --out README.md --licence cc-by-4.0
    """
    if is_export(run):
        raise UserError(
            f"{run} is an export, whose card imgclf push {run} hf://USER/NAME writes: give it to push, or name the run that it is of."
        )
    check_run(run)
    if out is not None and out.is_dir():
        raise UserError(f"--out={out} is a folder: name the file in it, such as {out / 'README.md'}.")
    if out is not None and out.exists() and not overwrite:
        raise UserError(f"{out} is there already: name another file, or give --overwrite to replace it.")
    endings.quieten()
    from imgclf import files
    from imgclf.publishing import card as cards  # and JAX: after --help and the mistakes above

    text = cards.write(run, address=address, licence=licence)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        files.write_text(out, text)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}): name another file.") from error
    typer.echo(f"Card: {out}")
