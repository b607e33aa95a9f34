"""`imgclf tune`."""

from typing import TYPE_CHECKING

import typer

from imgclf.cli import endings
from imgclf.cli.options import ConfigArgument, Fields

if TYPE_CHECKING:
    from imgclf.workflows.tune import Tuned


def tune(config: ConfigArgument, fields: Fields = None) -> None:
    """Times the forms of a network's convolutions on this CPU, for trainings with train.forms=on. No image is read.

    What is found is kept in the cache folder.

    Examples:

      imgclf tune folder:PHOTOS --set model.name=resnet18

      imgclf train folder:PHOTOS --set model.name=resnet18 --set train.forms=on
    """
    from imgclf.config import load_config
    from imgclf.workflows import checks

    checks.check_config(load_config(config, fields or []))
    endings.quieten()
    from imgclf.workflows import tune as workflow  # and JAX: after --help and the mistakes above

    for line in _table(workflow.tune(config, fields=fields or [])):
        typer.echo(line)


def _table(found: "Tuned") -> list[str]:
    rows = [("LAYER", "PART", "MS", "WINNER")]
    for layer, parts in found.layers.items():
        for number, part in enumerate(parts):
            times = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in part.milliseconds.items()) or "-"
            gain = ""
            if part.milliseconds:
                usual = next(iter(part.milliseconds))
                gain = f" ({part.milliseconds[usual] / part.milliseconds[part.winner]:.2f}x)" if part.winner != usual else " (as usual)"
            rows.append(("" if number else str(layer), part.part.replace("_", " "), times, part.winner + gain))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows]
    if found.note:
        lines.append(f"oneDNN was not tried: {found.note}.")
    return lines
