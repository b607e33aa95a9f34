"""`imgclf reproduce`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings


def reproduce(  # noqa: PLR0913  (one parameter per option)
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A folder, s3://BUCKET/NAME or hf://USER/NAME.", show_default=False)],
    retrain: Annotated[bool, typer.Option("--retrain", help="Train again, too.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for what is made. Default: NAME-reproduced.", show_default=False)] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the bundle's code without asking.")] = False,
    no_env: Annotated[bool, typer.Option("--no-env", help="Use this environment: quicker, and proves less.")] = False,
    python: Annotated[Path | None, typer.Option(help="The interpreter for the environment.", show_default=False)] = None,
    images: Annotated[Path | None, typer.Option(help="A folder that holds the images, in any order.", show_default=False)] = None,
    mirror_url: Annotated[str, typer.Option(help="Of Open Images' photos.")] = "",
    expect: Annotated[str, typer.Option(help="The root hash that you were told; another bundle is refused.")] = "",
) -> None:
    """Checks every byte of a bundle, makes its environment anew, and compares each prediction; with --retrain it trains again.

    Exit code 0: reproduced; 1: not, or a byte of the bundle has changed, which is named; 2: it could not be tried.

    Examples:

      imgclf reproduce food-bundle

      imgclf reproduce s3://my-bucket/food --retrain --trust
    """
    from imgclf import files
    from imgclf.publishing import manifest, places

    if not places.is_address(bundle):
        manifest.read(files.path_of(bundle, "the folder of a bundle"))
    endings.quieten()
    from rich.markup import escape

    from imgclf.workflows import reproduce as workflow  # and JAX: after --help and the mistakes above
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    found = workflow.reproduce(
        bundle,
        retrain=retrain,
        out=out,
        trust=trust or _ask,
        new_environment=not no_env,
        python=python,
        images=images or "",
        mirror_url=mirror_url,
        expect=expect,
        console=console,
    )
    width = max(len(verdict.what) for verdict in found.verdicts)
    for verdict in found.verdicts:
        colour = "green" if verdict.passed else "red"
        console.print(f"{verdict.what.ljust(width)}  [{colour}]{verdict.outcome.ljust(7)}[/]  {escape(verdict.told)}")
    told = "[bold green]Reproduced.[/]" if found.reproduced else "[bold red]Not reproduced.[/]"
    console.print(f"{told} All of it: {found.folder / workflow.REPORT}")
    if not found.reproduced:
        raise typer.Exit(1)


def _ask(what: str) -> bool:
    """Asks on the terminal; without one the answer is no."""
    return sys.stdin.isatty() and typer.confirm(f"{what} Go on?")
