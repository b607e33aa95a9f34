"""`imgclf data`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli import pack as packing
from imgclf.cli.options import ConfigArgument, ConfigCommand, Fields, Overwrite

data = typer.Typer(help="Shows what training sees, and balances classes on disk.", no_args_is_help=True)
data.command(cls=ConfigCommand)(packing.pack)
data.command()(packing.check)
_MOST_PICTURES = 6  # that a page of all augmentations shows well


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
    from imgclf import outputs
    from imgclf.data import images as decoder
    from imgclf.errors import UserError

    images = images or []
    if len(images) > _MOST_PICTURES:
        raise UserError(f"{len(images)} pictures are more than one page shows well: name up to {_MOST_PICTURES}.")
    outputs.check_file(out)
    pictures = []
    for path in images:
        try:
            pictures.append((path.name, decoder.decode(path.read_bytes())))
        except OSError as error:
            raise UserError(f"{path} can't be read ({error.strerror}): name an image file.") from error
        except decoder.ImageError as error:
            raise UserError(f"{path} is not an image that can be read ({error}): name another file.") from error
    from sklearn.datasets import load_sample_image  # slow to import

    from imgclf.reporting import augmentations as page  # and JAX: after the mistakes above

    pictures = pictures or [("china.jpg of scikit-learn", load_sample_image("china.jpg"))]
    typer.echo(f"Page: {page.write_page(pictures, load_sample_image('flower.jpg'), out)}")


@data.command(cls=ConfigCommand)
def show(
    config: ConfigArgument,
    fields: Fields = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="An image's id, as in dataset.parquet and predictions.csv; may be given again.")
    ] = None,
    epoch: Annotated[int, typer.Option(min=0, help="The first epoch to show, counted from 0.")] = 0,
    views: Annotated[int, typer.Option(min=1, max=200, help="How many epochs.")] = 6,
    out: Annotated[
        Path | None, typer.Option(help="The page. Default: views.html in the run's folder, or runs/NAME-views.html.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draws again what training saw of an image: the same pixels, epoch by epoch, beside what evaluation sees.

    With MixUp or CutMix, the page also names the partner and its share. Without --id, the first images of the training split. What lies
    beyond the end of training is marked as what it would show.

    Examples:

      imgclf data show runs/photos --id cats/0012.jpg --epoch 3

      imgclf data show folder:PHOTOS --set augment.hue=20 --set augment.cutmix=1 --views 12
    """
    from imgclf.config import load_config
    from imgclf.workflows import checks

    checks.check_config(load_config(config, fields or []))
    endings.quieten()
    from rich.console import Console

    from imgclf.workflows import show as workflow  # and JAX: after --help and the mistakes above

    epochs = range(epoch, epoch + views)
    console = Console(stderr=True)
    page = workflow.show(config, fields=fields or [], ids=ids or [], epochs=epochs, out=out, overwrite=overwrite, console=console)
    typer.echo(f"Page: {page}")


@data.command(cls=ConfigCommand)
def scenes(
    photos: Annotated[
        str,
        typer.Argument(metavar="FOLDER|CSV|CONFIG", help="Class folders, a table of paths and labels, or a config.", show_default=False),
    ],
    fields: Fields = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Weights whose features tell similar photos: a name that `imgclf models` lists, or path:FILE. Default: the "
            "config's; for a folder or table none, which leaves capture times.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for scenes.html and scenes.csv. Default: runs/NAME-scenes.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Finds photos that are shots of one scene (bursts, one object several times in one setting), and shows them on a page.

    Such photos on both sides of a split make a score too good for new scenes. Training looks for them by itself where data.scenes=auto
    (create, and the configs folder, csv and finetune, say so). Three signals: similar features within a class, capture times of one camera
    (EXIF), and neighbouring numbers in file names, which count where they mean something. Your data are not touched.

    To correct what was found, edit the column scene of scenes.csv and train by it.

    Examples:

      imgclf data scenes PHOTOS --weights timm/resnet50.tv_in1k

      imgclf data scenes finetune:PHOTOS --out scenes

      imgclf train csv:scenes/scenes.csv --set data.root=PHOTOS
    """
    from imgclf.config import load_config
    from imgclf.workflows import checks
    from imgclf.workflows.photos import config_named

    checks.check_config(load_config(config_named(photos), fields or []))
    endings.quieten()
    from imgclf.workflows import scenes as workflow  # and JAX: after --help and the mistakes above
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    found = workflow.find_scenes(photos, fields=fields or [], weights=weights, out=out, overwrite=overwrite, console=console)
    for told in (found.sentence, *found.notes):
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Page: {found.page}", highlight=False, soft_wrap=True)
    console.print(f"Table: {found.csv}", highlight=False, soft_wrap=True)


@data.command(cls=ConfigCommand)
def balance(
    source: Annotated[str, typer.Argument(metavar="FOLDER|CSV", help="Class folders, or a table of paths and labels.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write: empty, or begun by the same command.", show_default=False)],
    fields: Fields = None,
    to: Annotated[int, typer.Option(min=1, help="Training images per class.")] = 600,
    edge: Annotated[int, typer.Option(min=0, help="Longer side of the augmented copies in pixels at most; 0 = the originals'.")] = 0,
    link: Annotated[bool, typer.Option("--link", help="Link to the originals instead of copying their files.")] = False,
) -> None:
    """Balances classes on disk: adds augmented copies of training images up to a number per class, after the split.

    Only the training split gets copies, each in one group with its original; classes that have more stay as they are. The folder then
    trains by csv:OUT/labels.csv. Interrupted, the same command continues. Augmentation is Keras's usual set (rotation up to 40
    degrees, shifts, zoom and shear of 0.2, flips), unless fields of config.augment say otherwise; data.* and seed count too.

    Without files, and with new views in every epoch: --set loader.sampling=balanced, in training.

    Examples:

      imgclf data balance PHOTOS --out balanced --to 600

      imgclf data balance train.csv --set data.root=IMAGES --out balanced --to 600 --edge 400 --set augment.hue=10
    """
    from rich.console import Console

    from imgclf.workflows import balance as workflow

    found = workflow.balance(source, out, to=to, edge=edge, link=link, fields=fields or [], console=Console(stderr=True))
    done = found.done
    if found.dropped:
        typer.echo(f"Left out {found.dropped} training images that are copies of val or test images.")
    more = [name for name, count in done.before.items() if count > to]
    if more:
        typer.echo(f"More than {to} images, left as they are: {', '.join(f'{name} ({done.before[name]})' for name in more)}.")
    before, after = sum(done.before.values()), sum(done.after.values())
    rest = ", ".join(f"{found.splits[name]} {name}" for name in ("val", "test") if name in found.splits)
    there = f" ({done.found} of the files were there)" if done.found else ""
    typer.echo(f"Training images: {before} → {after}, {to} or more per class{there}; as they were: {rest}.")
    typer.echo(f"Train on them: imgclf train csv:{found.table}")
