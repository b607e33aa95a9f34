"""`imgclf map`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run


def map_(
    run: RunArgument,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="[DATA]", help="Labeled images, a folder or a table; default: all of the run's own.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; default: RUN/map.html.", show_default=False)] = None,
    most: Annotated[int, typer.Option(min=5, max=5000, help="Images on the map; of more, a sample by the hash of their names.")] = 5000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page at --out that is of something else.")] = False,
) -> None:
    """Lays a finished run's images out on a map where those that it finds alike are near each other; a page with pictures on hover.

    Features come from the cache, or are computed and kept there; the map itself takes about a minute for 5,000 images (t-SNE).

    Examples:

      imgclf map runs/larger

      imgclf map runs/larger NEW_PHOTOS --out new.html --most 1000
    """
    check_run(run, data)
    from imgclf import outputs

    if out is not None:
        outputs.check_file(out, overwrite=True)  # whether it is of this run is known when that is read
    endings.quieten()
    from imgclf.data.prepare import load_path  # and JAX: after --help and the mistakes above
    from imgclf.deploy import mapping
    from imgclf.deploy.classifier import load
    from imgclf.workflows.console import or_terminal

    images = load_path(data)[0] if data is not None else None
    mapping.map_images(load(run), images, out, most=most, overwrite=overwrite, console=or_terminal(None))
