"""`imgclf compare`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import check_run
from imgclf.errors import UserError


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="The folders of finished runs.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes; default: compare.html, or compare-2.html, …", show_default=False)
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare on the images that all runs were tested on, where these differ.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page at --out that is of something else.")] = False,
) -> None:
    """Compares finished runs on the same test images: paired tests, classes, configs, calibration, and the pictures that flipped.

    Examples:

      imgclf compare runs/small runs/large

      imgclf compare runs/seed0 runs/seed1 runs/seed2 --common --out seeds.html
    """
    if len(runs) < 2:
        raise UserError("One run can't be compared with itself: name two runs or more.")
    for run in runs:
        check_run(run)
    from imgclf import outputs

    if out is not None:
        outputs.check_file(out, overwrite=True)  # whether it is of these runs is known when they are read
    endings.quieten()
    from imgclf.workflows import compare as workflow
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    found = workflow.compare(runs, out, common=common, overwrite=overwrite, console=console)
    console.print(repr(found), highlight=False, markup=False, soft_wrap=True)
    console.print(f"Page: {found.page}", highlight=False, markup=False, soft_wrap=True)
