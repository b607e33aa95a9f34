"""`imgclf bundle`."""

from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import Overwrite, RunArgument, check_run


def bundle(
    run: RunArgument,
    out: Annotated[str, typer.Option(help="A folder, or an address: s3://BUCKET/NAME, hf://USER/NAME.", show_default=False)],
    data: Annotated[
        str, typer.Option(help="manifest (where each image is to be had, and its hash) or include (the images, too).")
    ] = "manifest",
    data_url: Annotated[str, typer.Option(help="Where others find the images, with the same paths: s3://…, https://….")] = "",
    croissant: Annotated[bool, typer.Option("--croissant", help="Describe the images in Croissant's format as well.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Packs a finished run for others: results, model, data, code and environment, each file with its hash.

    Interrupted, the same command continues. No pickle is written.

    Examples:

      imgclf bundle runs/food --out food-bundle

      imgclf bundle runs/food --out s3://my-bucket/food --data include
    """
    check_run(run)
    endings.quieten()
    from imgclf import formatting  # and JAX: after --help and the mistakes above
    from imgclf.workflows import bundle as workflow
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    found = workflow.bundle(run, out, data=data, data_url=data_url, croissant=croissant, overwrite=overwrite, console=console)
    for note in found.notes:
        console.print(f"[yellow]{note}[/]")
    kept = found.bytes - found.sent
    there = f" ({kept / 1e6:,.1f} MB were there already)" if kept > 0 and found.sent < found.bytes * 0.9 else ""
    console.print(f"Bundle: {found.place}, {formatting.count(found.files, 'file')}, {found.bytes / 1e6:,.1f} MB{there}.")
    console.print(f"Root hash: {found.root}")
    console.print(f"Reproduce it: imgclf reproduce {found.place}")
