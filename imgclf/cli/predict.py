"""`imgclf predict`."""

import dataclasses
import warnings
from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run


def predict(  # noqa: PLR0913  (options by name)
    run: RunArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|IMAGES...|LIST",
            help="A folder (with all in it), image files, or a list of paths: .csv, .tsv, .parquet, or .txt with one per line.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the predictions go: .csv or .parquet.")] = Path("predictions.csv"),
    top_k: Annotated[int, typer.Option(help="How many classes to name per image.")] = 5,
    batch_size: Annotated[int, typer.Option("--batch", help="Images per batch; 0 = as in the run's evaluation.")] = 0,
    threshold: Annotated[
        float | None,
        typer.Option(help='Adds the column "answer": the predicted class, or "unknown" where its probability is lower.'),
    ] = None,
    conformal: Annotated[
        bool, typer.Option("--conformal", help='Adds the column "set": the classes that the run\'s conformal threshold admits.')
    ] = False,
    reduced_decode: Annotated[
        bool,
        typer.Option(
            "--reduced-decode",
            help="Decode large JPEGs at a reduced scale: a tenth of the time for 12 megapixels, about a grey level apart from evaluation.",
        ),
    ] = False,
    column: Annotated[str, typer.Option(help="The list's column of paths. Default: that of the run's own table, or path.")] = "",
    root: Annotated[str, typer.Option(help="The folder that the list's paths are relative to; default: the list's own.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an --out that was made of something else.")] = False,
) -> None:
    """Classifies any number of images with a finished run, to a table with a row per image.

    The answers for a few images are also printed. Interrupted, it continues when the same command is given again. Images that can't be read
    have a row with the reason; where none can, the exit code is 1. A list's column "id" names the rows, its other columns are kept.

    Examples:

      imgclf predict runs/larger PHOTOS

      imgclf predict runs/larger a.jpg b.png --top-k 3

      imgclf predict runs/larger test.csv --root IMAGES --out submission.parquet --batch 256

      imgclf predict runs/larger PHOTOS --threshold 0.8 --conformal
    """
    check_run(run, *sources)
    from imgclf.deploy.options import Options

    options = Options(top_k, batch_size or 1, threshold, conformal)  # says what is wrong with them before the run is loaded
    endings.quieten()
    from rich.console import Console

    from imgclf.data import native_messages
    from imgclf.deploy import inputs, predict_files  # and JAX: after --help and the mistakes above
    from imgclf.deploy.classifier import load

    predict_files.check_out(out)
    predictor = dataclasses.replace(load(run), reduced_decode=reduced_decode)
    if conformal and (rule := predictor.need_conformal()).admits_all:
        typer.echo(f"The run's {rule.n} val images are too few for alpha {rule.alpha:g}: every set holds all classes.", err=True)
    images = inputs.find(sources, column=column, usual=predictor.config.data.columns.path, root=root)
    options = dataclasses.replace(options, batch_size=batch_size or predictor.config.loader.eval_batch_size)
    for note in images.notes:
        typer.echo(note, err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on odd metadata; what can't be read is told in its row
        with native_messages.held_back() as stream:  # what is wrong with an image stands in the column reason
            done = predict_files.predict_files(predictor, images, out, options, Console(file=stream), overwrite=overwrite)
    if 0 < done.images <= predict_files.SHOWN:
        typer.echo("\n".join(predict_files.answers(out, options)))
    typer.echo(predict_files.describe(done, images.ignored, out))
    if done.images and not done.predicted:
        raise typer.Exit(1)
