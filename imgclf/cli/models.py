"""`imgclf models`."""

import json
from typing import Annotated, Any

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Lists the models and their published weights: config.model.name and config.model.weights."""
    from imgclf.models import registry  # imports JAX: after --help

    entries = registry.entries()
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
