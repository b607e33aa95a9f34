"""`imgclf data pack` and `imgclf data check`."""

from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import ConfigArgument, Fields, check_there
from imgclf.errors import UserError


def pack(
    config: ConfigArgument,
    out: Annotated[
        str, typer.Option(metavar="DIR|URL", help="The folder or URL to write: empty, or begun by the same command.", show_default=False)
    ],
    fields: Fields = None,
    size: Annotated[
        int, typer.Option(min=0, help="Shorter side of the pictures in pixels; none is enlarged or cut. 0 = as they are.")
    ] = 256,
    format_: Annotated[
        str, typer.Option("--format", help="jpeg, webp, or raw: plain pixels, five to ten times as large, that need no decoding.")
    ] = "jpeg",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of jpeg and webp; webp at 100 is without loss.")] = 95,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one per core, from 2,000 photos on.", show_default=False)
    ] = None,
) -> None:
    """Packs the photos of a config into a few large files (ArrayRecord), from which training reads them faster.

    Classes, splits, groups, scenes and quarantine travel along: a run on the pack has the table, the splits and the audit of a run on the
    photos. What is packed is all of each photo, made smaller; crops and other augmentation stay training's.

    Every record is read back and compared. Interrupted, the same command continues; over a finished pack, it mends damaged files. The pack
    is the same to the byte, whatever the number of workers.

    Examples:

      imgclf data pack folder:PHOTOS --out packed

      imgclf data pack my_config.py --out packed --size 160 --format raw

      imgclf data pack folder:PHOTOS --out s3://BUCKET/packed

      imgclf train packed:packed

      imgclf train my_config.py --set data.source=packed --set data.path=packed
    """
    from imgclf.config import load_config
    from imgclf.workflows import pack as workflow

    checked = load_config(config, fields or [])
    workflow.check(checked, out, size=size, format=format_, quality=quality, workers=workers)
    endings.quieten()
    from rich.console import Console

    from imgclf import formatting

    console = Console(stderr=True)
    done = workflow.pack_data(
        config, out, size=size, format=format_, quality=quality, workers=workers, fields=fields or [], console=console
    )
    there = f" ({done.found} of the files were there, whole)" if done.found else ""
    splits = ", ".join(f"{count:,} {name}" for name, count in done.splits.items())
    typer.echo(f"Packed {formatting.count(done.images, 'image')} ({splits}) in {done.bytes / 2**20:,.1f} MiB{there}.")
    if done.quarantined:
        typer.echo(f"Left out {formatting.count(done.quarantined, 'image')} that can't be used: {out}/quarantine.parquet.")
    if done.exact:
        typer.echo("Their pixels are the photos'.")
    typer.echo(f"Train on them: imgclf train packed:{out}")


def check(path: Annotated[str, typer.Argument(metavar="DIR|URL", help="The folder of a pack.", show_default=False)]) -> None:
    """Reads every record of a pack, and the tables beside them, and compares them with what was packed.

    Damaged pictures are written to damaged.csv in the pack's folder, and left out (quarantined, with the reason) by all that reads the
    pack; the command that made the pack mends them. Ends with the exit code 2 where there are any.

    Examples:

      imgclf data check packed
    """
    check_there(path)
    from rich.console import Console

    from imgclf import formatting
    from imgclf.data.packing import damage  # and what reads images: after the mistake above

    count, bad, tables = damage.check(path, Console(stderr=True))
    if bad:
        name, _, detail = bad[0]
        raise UserError(
            f"{len(bad)} of {formatting.count(count, 'picture')} of the pack {path} can't be read, such as {name} ({detail}): they are "
            "left out from now on. The command that made the pack, given once more, mends them; until then, a run that began with all of "
            "them does not continue, and a new one needs another --workdir."
        )
    if tables:
        raise UserError(
            f"All {formatting.count(count, 'picture')} of the pack {path} are whole, but {' and '.join(tables)} "
            f"{'have' if len(tables) > 1 else 'has'} other bytes than were written: give the command that made the pack once more, which "
            "mends that."
        )
    typer.echo(f"All {formatting.count(count, 'picture')} of the pack {path} are whole.")
