"""`imgclf export`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run
from imgclf.errors import UserError


def export(  # noqa: PLR0913  (options by name)
    run: RunArgument,
    to: Annotated[str, typer.Option(help="onnx | stablehlo | timm | keras.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The folder of the export; default: RUN/exports/FORMAT.", show_default=False)] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Convolutions in integers of 8 bits, fitted to training images; says what that costs and buys.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights and activations in floats of 16 bits.")] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Images to check the export with, a folder or a table; default: the run's own.", show_default=False),
    ] = None,
    python: Annotated[
        str, typer.Option(help="The Python that checks the export, where another environment than this has what it needs: timm, Keras.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export of another run.")] = False,
) -> None:
    """Writes a finished run in a form that runs without imgclf.

    An export is finished only when it says of real images what the run says, in a process that has no imgclf. Decoding and resizing stay
    outside of the model, as no format has them as they were in training: preprocess.py goes along, which needs Pillow and NumPy.

    Examples:

      imgclf export runs/photos                              # ONNX, for onnxruntime

      imgclf export runs/photos --int8

      imgclf export runs/photos --to stablehlo --out shipped

      imgclf export runs/photos --to timm --python ENVIRONMENT/bin/python

      python runs/photos/exports/onnx/predict.py PHOTO.jpg   # without imgclf
    """
    check_run(run, images)
    from imgclf import files, outputs
    from imgclf.exports.choices import Options, check

    options = Options(int8, fp16, python)
    check(to, options)
    if python and not files.path_of(python, "the interpreter").is_file():
        raise UserError(f"--python={python} is no program: name the interpreter, such as ENVIRONMENT/bin/python.")
    if out is not None:  # whether it is of this run is known when that is read
        outputs.check_folder(out, outputs.Identity("export", "", ""), "export.json", overwrite=True)
    endings.quieten()
    from rich.console import Console

    from imgclf.deploy import exporting  # and JAX: after --help and the mistakes above
    from imgclf.deploy.classifier import load
    from imgclf.exports import told

    found = exporting.export(load(run), to, out, options=options, images=images, overwrite=overwrite, console=Console(stderr=True))
    typer.echo(told.table([found]))
    for sentence in told.sentences(found):
        typer.echo(sentence)
