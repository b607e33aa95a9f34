"""`imgclf create`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import Fields
from imgclf.errors import UserError
from imgclf.remote import places


def create(
    photos: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS", help="Labeled images: a folder of class folders, or a table; or the URL of either.", show_default=False
        ),
    ],
    fields: Fields = None,
    model: Annotated[str, typer.Option(help="One that `imgclf models` lists; default: the one that the weights belong to.")] = "",
    weights: Annotated[
        str,
        typer.Option(
            help="Published weights, path:FILE, or none; default: the best features that can be had, of the model if one is named."
        ),
    ] = "",
    method: Annotated[str, typer.Option(help="auto | probe | lp_ft | fit.")] = "auto",
    time_limit: Annotated[
        str,
        typer.Option(help="Such as '10 minutes': a probe at once, then what may be better, as long as there is time.", show_default=False),
    ] = "",
    workdir: Annotated[
        str | None, typer.Option(help="The run's folder, or its URL; default: a fresh one under runs/.", show_default=False)
    ] = None,
) -> None:
    """Trains a classifier on labeled images without a config: the model and the method are chosen by the data.

    What was chosen, and why, is said first. The run is like any other: `imgclf predict`, `evaluate` and `robustness` take its folder.

    Examples:

      imgclf create PHOTOS

      imgclf create PHOTOS --model squeezenet1_1

      imgclf create PHOTOS --time-limit "10 minutes"

      imgclf create PHOTOS --weights path:mobilenet_v2.h5 --method lp_ft --set train.duration=20
    """
    if not places.is_url(photos) and not Path(photos).exists():
        raise UserError(f"There is no folder or table {photos!r}: check the path.")
    from imgclf.config import parse_assignment
    from imgclf.data.prepare import load_path  # without JAX
    from imgclf.workflows import time_limit as time_limits

    if time_limit:
        time_limits.seconds(time_limit, "--time-limit")

    overrides = dict(map(parse_assignment, fields or []))
    own = {name.removeprefix("data."): value for name, value in overrides.items() if name.startswith("data.")}
    showing = ("image_size", "resize", "crop_fraction", "interpolation", "mean", "std")
    reading = {name: value for name, value in own.items() if name not in showing}
    dataset, read_as = load_path(photos, **reading)
    endings.quieten()
    from imgclf.image_data import ImageData
    from imgclf.workflows import create as workflow  # and JAX: after --help and the mistakes above

    data = ImageData(dataset, read_as)
    typer.echo(repr(data))
    again = "Give the same command to continue." if workdir else "Give the same command with its folder as --workdir to continue."
    with endings.stops(again):
        found = workflow.create(
            data,
            model=model or None,
            weights=weights or None,
            method=method,
            time_limit=time_limit or None,
            workdir=workdir,
            config=overrides,
        )
    typer.echo(f"Predict with it: imgclf predict {found.folder} IMAGES")
