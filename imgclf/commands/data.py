"""`imgclf data`."""

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(help="Shows what training sees.", no_args_is_help=True)


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
