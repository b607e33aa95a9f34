"""`imgclf label-errors`."""

from pathlib import Path
from typing import Annotated

import typer

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}  # --config.FIELD=VALUE


def label_errors(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="Config file, FILE.py[:ARGUMENTS], or RUN/config.json.", show_default=False)],
    limit: Annotated[float, typer.Option(min=0, max=1, help="Share of the images that is suspected at most.")] = 0.1,
    out: Annotated[
        Path | None, typer.Option(help="Folder for label_errors.html and labels.patch.csv. Default: runs/NAME-label-errors.")
    ] = None,
) -> None:
    """Looks for wrong labels with a pretrained backbone, and leaves a gallery of suspects and a patch to fill in.

    The patch's column "label" is empty: write the right class for the images you have looked at, and apply it with
    --config.data.label_patch. Your data are not touched. Needs cleanlab: pip install "imgclf[labels]".

    Examples:

      imgclf label-errors --config=configs/finetune.py:PHOTOS

      imgclf label-errors --config=runs/photos/config.json --config.data.label_patch=runs/photos-label-errors/labels.patch.csv
    """
    from rich.console import Console

    from imgclf import models
    from imgclf.config import flags
    from imgclf.data import label_patch
    from imgclf.data.table import load_dataset
    from imgclf.errors import UserError
    from imgclf.evaluation import label_errors as finder
    from imgclf.models.weights import pretrained
    from imgclf.reporting import label_errors as page
    from imgclf.runtime import compilation_cache  # and JAX: after --help
    from imgclf.workflows import train

    asked = train.check(flags.load(config, context.args, "imgclf label-errors"))
    if asked.model.weights == "none":
        raise UserError(
            "config.model.weights='none': features of random weights tell nothing of labels; set weights that `imgclf models` lists."
        )
    finder.require_cleanlab()
    compilation_cache.enable()
    console = Console(soft_wrap=True)
    folder, applied = out or Path("runs") / f"{asked.name}-label-errors", asked.data.label_patch
    page.check_target(folder, applied)
    dataset = load_dataset(asked)
    resolved = pretrained.resolve(asked, len(dataset.class_names))
    model = models.create(resolved, len(dataset.class_names), tell=lambda said: None)  # the head is not used
    probabilities = finder.probabilities(resolved, model, dataset, console)
    decided = label_patch.decided(applied)
    known = dataset.table["id"].isin(decided["id"]).to_numpy()
    suspects = finder.find(probabilities, dataset.table["label"].to_numpy(), limit, known)
    written, patch = page.write(folder, dataset, suspects, decided, applied, console)
    agree = float((probabilities.argmax(1) == dataset.table["label"].to_numpy()).mean())
    console.print(
        f"[bold]{len(suspects.rows):,} of {len(dataset.table):,} labels are suspected[/] (estimated wrong: {suspects.estimated:,}; the "
        f"out-of-fold probe agrees with {agree:.1%} of the labels).",
        highlight=False,
    )
    console.print(f"Page: {written}", highlight=False, soft_wrap=True)
    console.print(f"Fill in the column label of {patch}, then give --config.data.label_patch={patch}", highlight=False, soft_wrap=True)
