"""`imgclf evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run


def evaluate(
    run: RunArgument,
    on: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Labeled images, a folder or a table; default: the run's own, as it was trained.", show_default=False
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the run's own images: train, val or test; default: that of its headline.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print all metrics as JSON.")] = False,
) -> None:
    """Scores a finished run on labeled images: accuracy with its interval, and each class.

    Examples:

      imgclf evaluate runs/photos

      imgclf evaluate runs/photos --on NEW_PHOTOS

      imgclf evaluate runs/photos --on labels.csv --json
    """
    check_run(run, on)
    endings.quieten()
    from rich.console import Console

    from imgclf.workflows import evaluate as workflow  # and JAX: after --help and the mistakes above

    found = workflow.evaluate(run, on, split=split, console=Console(stderr=True))
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    typer.echo(repr(found))
    width = max(map(len, [*found["per_class"], "CLASS"]))
    typer.echo(f"{'CLASS'.ljust(width)}  IMAGES  PRECISION  RECALL     F1")
    for name, row in found["per_class"].items():
        typer.echo(
            f"{name.ljust(width)}  {row['support']:6,}  {_percent(row['precision'])}  {_percent(row['recall'])}  {_percent(row['f1'])}"
        )


def _percent(value: float | None) -> str:
    return "–".rjust(8) if value is None else f"{value:8.1%}"
