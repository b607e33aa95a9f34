"""`imgclf label-errors`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import ConfigArgument, Fields, Overwrite


def label_errors(
    config: ConfigArgument,
    fields: Fields = None,
    limit: Annotated[float, typer.Option(min=0, max=1, help="Share of the images that is suspected at most.")] = 0.1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for label_errors.html and labels.patch.csv. Default: RUN/label-errors, or runs/NAME-label-errors.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Looks for wrong labels with a pretrained backbone, and leaves a gallery of suspects and a patch to fill in.

    The patch's column "label" is empty: choose the right class of the images in the page, whose button saves the patch, or write it into
    the file, and apply it with --set data.label_patch=FILE. Your data are not touched. Needs cleanlab: pip install "imgclf\\[labels]".

    Examples:

      imgclf label-errors finetune:PHOTOS

      imgclf label-errors runs/photos --set data.label_patch=runs/photos/label-errors/labels.patch.csv
    """
    from imgclf.config import load_config

    asked = load_config(config, fields or [])
    from imgclf.workflows import checks  # and what reads data: after the mistakes in the config's name and fields

    checks.check_config(asked)
    endings.quieten()
    from imgclf.workflows import label_errors as workflow  # and JAX: after --help and the mistakes above
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    found = workflow.find_label_errors(config, fields=fields or [], limit=limit, out=out, overwrite=overwrite, console=console)
    console.print(
        f"[bold]{len(found.suspects):,} of {found.images:,} labels are suspected[/] (estimated wrong: {found.estimated:,}; the "
        f"out-of-fold probe agrees with {found.agreement:.1%} of the labels)."
    )
    console.print(f"Page: {found.page}")
    console.print(
        f"Choose the right classes in the page, whose button saves the patch, or fill in the column label of {found.patch}; then give "
        f"--set data.label_patch={found.patch}",
        markup=False,
    )
