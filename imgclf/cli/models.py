"""`imgclf models`."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from imgclf.errors import UserError


def models(
    best_for: Annotated[str, typer.Option(help="probe: sort the weights by what their fixed features are worth.", show_default=False)] = "",
    max_gflops: Annotated[
        float | None, typer.Option(help="With --best-for: leave out what costs more for an image, in billions of multiply-adds.", min=0.0)
    ] = None,
    commercial: Annotated[
        bool,
        typer.Option("--commercial", help="With --best-for: leave out licences that forbid commercial use, and those that are not stated."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists the models and their published weights: config.model.name and config.model.weights.

    With --best-for probe, it lists the weights alone, the best fixed features first. RANKED BY is the published accuracy of a linear probe
    on ImageNet; below those, the top-1 of the network itself, which for weights trained with smoothed or mixed labels counts no more than
    that of the same network trained without: such labels raise it, but not what the features are worth. GFLOPS are billions of
    multiply-adds for one image of the size at INPUT, as papers count them.

    Examples:

      imgclf models

      imgclf models --best-for probe --max-gflops 5 --commercial

      imgclf models --best-for probe --json
    """
    if best_for not in ("", "probe"):
        raise UserError(f"--best-for {best_for!r} is no purpose that there are figures for: there is probe.")
    if not best_for and (commercial or max_gflops is not None):
        raise UserError("--max-gflops and --commercial choose among weights by purpose: add --best-for probe.")
    from imgclf.models import registry  # imports JAX: after --help

    if best_for:
        found = [registry.described(entry) for entry in registry.best_for_probe(max_gmacs=max_gflops, commercial=commercial)]
        if not found:
            least = min(entry.gmacs for entry in registry.best_for_probe(commercial=commercial) if entry.gmacs is not None)
            raise UserError(f"No published weights cost {max_gflops:g} GFLOPS or less; the least is {least:g}: raise --max-gflops.")
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        parameters = registry.parameters()
        worth = registry.worth_of_features()
        header = ("WEIGHTS", "RANKED BY", "PROBE %", "TOP-1 %", "GFLOPS", "PARAMETERS", "INPUT", "LICENCE")
        _print([header, *(_ranked(weights, worth[weights["name"]], parameters) for weights in found)], right=(1, 2, 3, 4, 5))
        if commercial:
            typer.echo("Weights whose licence is not stated are left out, too; without --commercial they are listed.")
        return
    entries = registry.entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    rows = [("MODEL", "PARAMETERS", "INPUT", "TOP-1 %", "WEIGHTS", "LICENCE")]
    for entry in entries:
        name, count = entry["name"], f"{entry['parameters']:,}"
        rows += [(name, count, *_columns(weights)) for weights in entry["weights"]] or [(name, count, "any", "", "", "")]
    _print(rows, right=(1,))


def _print(rows: Sequence[tuple[str, ...]], *, right: tuple[int, ...]) -> None:
    """Prints a table; the columns `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        typer.echo("  ".join(cells).rstrip())


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else format(value, digits)


def _input(weights: dict[str, Any]) -> str:
    height, width = weights["input_size"]
    return f"{height}x{width}"


def _columns(weights: dict[str, Any]) -> tuple[str, str, str, str]:
    return _input(weights), _number(weights["top1"], ".2f"), weights["name"], weights["licence"]


def _ranked(weights: dict[str, Any], worth: float | None, parameters: dict[str, int]) -> tuple[str, ...]:
    licence = weights["licence"] or "not stated"
    return (
        weights["name"],
        _number(worth, ".1f"),
        _number(weights["linear_probe"], ".1f"),
        _number(weights["top1"], ".1f"),
        _number(weights["gmacs"], ".2f"),
        f"{parameters[weights['model']]:,}",
        _input(weights),
        licence if weights["commercial"] else f"{licence} (no commercial use)",
    )
