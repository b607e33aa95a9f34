"""`imgclf lr-find`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import ConfigArgument, Fields, Overwrite


def lr_find(
    config: ConfigArgument,
    fields: Fields = None,
    steps: Annotated[int, typer.Option(help="Training steps to take.")] = 100,
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option(help="The last one.")] = 10.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for lr_find.html, .png and .json. Default: RUN/lr-find, or runs/NAME-MODEL-lr-find.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Finds a learning rate: lets it rise over real training steps, and reads off where the loss falls best.

    Nothing of an earlier run is read or changed.

    Examples:

      imgclf lr-find folder:PHOTOS

      imgclf lr-find finetune:PHOTOS --set freeze.preset=last_stage --steps 200
    """
    from imgclf.config import load_config

    asked = load_config(config, fields or [])
    from imgclf.workflows import checks  # and what reads data: after the mistakes in the config's name and fields

    checks.check_config(asked)
    endings.quieten()
    from imgclf.workflows import lr_find as workflow  # and JAX: after --help and the mistakes above
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    found = workflow.lr_find(config, fields=fields or [], steps=steps, low=low, high=high, out=out, overwrite=overwrite, console=console)
    sweep, suggestion = found.sweep, found.suggestion
    ended = f"ended by divergence after {len(sweep.losses)} steps" if sweep.diverged else f"{len(sweep.losses)} steps"
    if suggestion.valley is None:
        console.print(f"The loss never fell ({ended}): take more --steps, or a lower --low.")
    else:
        console.print(
            f"[bold]Suggested: --set optimizer.learning_rate={suggestion.valley:.2g}[/] (valley; steepest {suggestion.steepest:.2g}, "
            f"minimum / 10 {suggestion.minimum:.2g}; now {found.configured:.2g}; {ended})."
        )
    if sweep.remark:
        console.print(sweep.remark, highlight=False)
    console.print(f"Page: {found.page}")
