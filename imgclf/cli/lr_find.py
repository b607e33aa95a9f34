"""`imgclf lr-find`."""

from pathlib import Path
from typing import Annotated

import typer

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}  # --config.FIELD=VALUE


def lr_find(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="Config file, FILE.py[:ARGUMENTS], or RUN/config.json.", show_default=False)],
    steps: Annotated[int, typer.Option(help="Training steps to take.")] = 100,
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option(help="The last one.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="Folder for lr_find.html, .png and .json. Default: runs/NAME-lr-find.")] = None,
) -> None:
    """Finds a learning rate: lets it rise over real training steps, and reads off where the loss falls best.

    Any field of the config can be set as for run.py. Nothing of an earlier run is read or changed.

    Examples:

      imgclf lr-find --config=configs/folder.py:PHOTOS

      imgclf lr-find --config=configs/finetune.py:PHOTOS --config.freeze.preset=last_stage --steps 200
    """
    from rich.console import Console

    from imgclf import models
    from imgclf.config import flags
    from imgclf.data.prepare import prepare
    from imgclf.models.weights import pretrained
    from imgclf.reporting import lr_find as page
    from imgclf.runtime import compilation_cache  # and JAX: after --help
    from imgclf.training import lr_find as finder
    from imgclf.workflows import train

    asked = train.check(flags.load(config, context.args, "imgclf lr-find"))
    compilation_cache.enable()
    console = Console(soft_wrap=True)
    prepared = prepare(asked)
    dataset = prepared.dataset
    train.describe_data(dataset, prepared.audit_report, console)
    resolved = pretrained.resolve(asked, len(dataset.class_names))
    model = models.create(resolved, len(dataset.class_names), tell=console.print)
    sweep = finder.find(resolved, dataset, model, console, low=low, high=high, steps=steps)
    suggestion = finder.suggest(sweep, steps)
    folder = out or Path("runs") / f"{asked.name}-lr-find"
    written = page.write(folder, asked.name, asked.optimizer.learning_rate, sweep, suggestion)
    ended = f"ended by divergence after {len(sweep.losses)} steps" if sweep.diverged else f"{len(sweep.losses)} steps"
    if suggestion.valley is None:
        console.print(f"The loss never fell ({ended}): take more --steps, or a lower --low.", highlight=False)
    else:
        console.print(
            f"[bold]Suggested: --config.optimizer.learning_rate={suggestion.valley:.2g}[/] (valley; steepest {suggestion.steepest:.2g}, "
            f"minimum / 10 {suggestion.minimum:.2g}; now {asked.optimizer.learning_rate:.2g}; {ended}).",
            highlight=False,
        )
    console.print(f"Page: {written}", highlight=False, soft_wrap=True)
