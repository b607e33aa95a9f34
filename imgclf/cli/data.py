"""`imgclf data`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas

data = typer.Typer(help="Shows what training sees, and balances classes on disk.", no_args_is_help=True)
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}  # --config.FIELD=VALUE
_EXAMPLES = 6  # where none is named
_NEAREST_AMONG = 50_000  # ids: some seconds


@data.command()
def augmentations(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Pictures to show them on. Default: a photograph that comes with scikit-learn.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("gallery.html"),
) -> None:
    """Writes a page with every augmentation at a few strengths: geometry, policies, colour, pixel operations, erasing, mixing.

    Examples:

      imgclf data augmentations

      imgclf data augmentations cat.jpg dog.jpg --out=augmentations.html
    """
    from imgclf.data import images as decoder
    from imgclf.errors import UserError
    from imgclf.reporting import augmentations as page
    from imgclf.reporting import pages

    images = images or []
    if len(images) > page.MOST:
        raise UserError(f"{len(images)} pictures are more than one page shows well: name up to {page.MOST}.")
    pages.check_target(out)
    pictures = []
    for path in images:
        try:
            pictures.append((path.name, decoder.decode(path.read_bytes())))
        except OSError as error:
            raise UserError(f"{path} can't be read ({error.strerror}): name an image file.") from error
        except decoder.ImageError as error:
            raise UserError(f"{path} is not an image that can be read ({error}): name another file.") from error
    from sklearn.datasets import load_sample_image  # slow to import

    pictures = pictures or [("china.jpg of scikit-learn", load_sample_image("china.jpg"))]
    typer.echo(f"Page: {page.write_page(pictures, load_sample_image('flower.jpg'), out)}")


@data.command(context_settings=SETTINGS)
def show(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="Config file, FILE.py[:ARGUMENTS], or RUN/config.json.", show_default=False)],
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="An image's id, as in dataset.parquet and predictions.csv; may be given again.")
    ] = None,
    epoch: Annotated[int, typer.Option(min=0, help="The first epoch to show, counted from 0.")] = 0,
    views: Annotated[int, typer.Option(min=1, max=200, help="How many epochs.")] = 6,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("views.html"),
) -> None:
    """Draws again what training saw of an image: the same pixels, epoch by epoch, beside what evaluation sees.

    With MixUp or CutMix, the page also names the partner and its share. Without --id, the first images of the training split.

    Examples:

      imgclf data show --config=runs/photos/config.json --id cats/0012.jpg --epoch 3

      imgclf data show --config=configs/folder.py:PHOTOS --config.augment.hue=20.0 --config.augment.cutmix=1.0 --views 12
    """
    from rich.console import Console

    from imgclf.config import flags  # and JAX: after --help
    from imgclf.data import pipeline
    from imgclf.data.prepare import prepare
    from imgclf.errors import UserError
    from imgclf.models.weights import pretrained
    from imgclf.reporting import pages
    from imgclf.reporting import seen as page
    from imgclf.training import loop
    from imgclf.workflows import run_folder, train

    asked = train.check(flags.load(config, context.args, "imgclf data show"))
    pages.check_target(out)
    dataset = prepare(asked).dataset
    if Path(config).suffix == ".json":
        try:
            run_folder.check_same_data(dataset, Path(config).parent)
        except UserError as error:
            changed = str(error).partition(" Choose ")[0]
            raise UserError(f"{changed} What it saw can't be drawn again without the old data.") from None
    rows = _rows(dataset.table, ids or [])
    resolved = pretrained.resolve(asked, len(dataset.class_names))
    steps = loop.Plan.from_config(resolved, pipeline.steps_per_epoch(dataset, resolved)).total
    written = page.write_page(out, resolved, dataset, rows, range(epoch, epoch + views), Console(stderr=True), steps=steps)
    typer.echo(f"Page: {written}")


def _rows(table: "pandas.DataFrame", ids: list[str]) -> list[int]:
    """The rows of these training images, or of the first few."""
    import difflib

    import numpy as np

    from imgclf.errors import UserError

    if not ids:
        return np.flatnonzero(table["split"] == "train")[:_EXAMPLES].tolist()
    row_of = {image_id: row for row, image_id in enumerate(table["id"])}
    for image_id in ids:
        if image_id not in row_of:
            close = difflib.get_close_matches(image_id, list(row_of)[:_NEAREST_AMONG], cutoff=0.5) or list(row_of)[:1]
            hint = " or ".join(repr(other) for other in close)
            raise UserError(f"There is no image {image_id!r} in the data (dropped copies of evaluation images aside); did you mean {hint}?")
        if (split := table["split"].iat[row_of[image_id]]) != "train":
            raise UserError(f"{image_id!r} is in the {split} split, which training never sees: name an image of the training split.")
    return [row_of[image_id] for image_id in dict.fromkeys(ids)]


@data.command(context_settings=SETTINGS)
def balance(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FOLDER|CSV", help="Class folders, or a table of paths and labels.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write: empty, or begun by the same command.", show_default=False)],
    to: Annotated[int, typer.Option(min=1, help="Training images per class.")] = 600,
    edge: Annotated[int, typer.Option(min=0, help="Longer side of the augmented copies in pixels at most; 0 = the originals'.")] = 0,
    link: Annotated[bool, typer.Option("--link", help="Link to the originals instead of copying their files.")] = False,
) -> None:
    """Balances classes on disk: adds augmented copies of training images up to a number per class, after the split.

    Only the training split gets copies, each in one group with its original; classes that have more stay as they are. The folder then
    trains by configs/csv.py:OUT/labels.csv. Interrupted, the same command continues. Augmentation is Keras's usual set (rotation up to 40
    degrees, shifts, zoom and shear of 0.2, flips), unless fields of config.augment say otherwise; config.data.* and config.seed count too.

    Without files, and with new views in every epoch: --config.loader.sampling=balanced.

    Examples:

      imgclf data balance PHOTOS --out balanced --to 600

      imgclf data balance train.csv --config.data.root=IMAGES --out balanced --to 600 --edge 400 --config.augment.hue=10.0
    """
    from rich.console import Console

    from imgclf.cli import balance_config
    from imgclf.config import flags, validation
    from imgclf.data import balance as balancing
    from imgclf.data.prepare import prepare

    asked = flags.load(f"{balance_config.__file__}:{source}", context.args, "imgclf data balance")
    validation.validate(asked)
    balancing.check(asked)
    prepared = prepare(asked)
    dataset, report = prepared.dataset, prepared.audit_report
    try:
        done = balancing.write(dataset, asked, to, out, Console(stderr=True), edge=edge, link=link)
    except KeyboardInterrupt:
        typer.echo("Interrupted. Give the same command to continue.", err=True)
        raise typer.Exit(130) from None
    if report["dropped"]:
        typer.echo(f"Left out {len(report['dropped'])} training images that are copies of val or test images.")
    more = [name for name, count in done.before.items() if count > to]
    if more:
        typer.echo(f"More than {to} images, left as they are: {', '.join(f'{name} ({done.before[name]})' for name in more)}.")
    before, after = sum(done.before.values()), sum(done.after.values())
    splits = dataset.table["split"].value_counts()
    rest = ", ".join(f"{splits[name]} {name}" for name in ("val", "test") if name in splits)
    found = f" ({done.found} of the files were there)" if done.found else ""
    typer.echo(f"Training images: {before} → {after}, {to} or more per class{found}; as they were: {rest}.")
    typer.echo(f"Train on them: python run.py --config=configs/csv.py:{out / balancing.TABLE}")
