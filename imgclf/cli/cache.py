"""`imgclf cache`."""

import time
from typing import Annotated

import typer

from imgclf import formatting

_BEGINNING = 4  # characters of a key, at least, that name a cache to be deleted

cache = typer.Typer(
    help="Lists and deletes what is cached: features of frozen backbones, compiled programs, listings, …", no_args_is_help=True
)


@cache.command("list")
def list_entries() -> None:
    """Lists the caches of features (of which model and weights, how many, how large) and the other folders of the cache.

    Examples:
      imgclf cache list
      IMGCLF_CACHE=/data/cache imgclf cache list
    """
    from imgclf.probes import feature_store
    from imgclf.runtime import caches

    entries = feature_store.entries()
    rows = [("KEY", "MODEL", "INPUT", "VIEWS", "ROWS", "WIDTH", "MB", "LAST WRITTEN")]
    for entry in entries:
        identity = entry.identity
        input_size = "x".join(map(str, identity.get("image_size", ())))
        count = "damaged" if entry.rows is None else f"{entry.rows:,}"
        model = f"{identity.get('model', '?')} {identity.get('weights_sha256', '')[:8]}"
        views = "augmented" if "augment" in identity else "mirrored" if identity.get("mirrored") else "plain"
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        rows.append((entry.key, model, input_size, views, count, str(entry.width), f"{entry.size / 1e6:,.1f}", used))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if entries else ():
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    total = sum(entry.size for entry in entries) / 1e6
    typer.echo(f"{len(entries)} cache{'' if len(entries) == 1 else 's'} of features, {total:,.1f} MB, in {feature_store.root()}.")
    for folder in caches.entries():
        typer.echo(f"{folder.name}: {folder.about}, {formatting.count(folder.files, 'file')}, {folder.size / 1e6:,.1f} MB")


@cache.command()
def clear(
    key: Annotated[
        str,
        typer.Argument(
            help="A key of features that `imgclf cache list` shows, or its beginning; all features: all; or the name of another folder."
        ),
    ],
) -> None:
    """Deletes cached features, or another folder of the cache, and says what was freed. All of it is made again when it is needed.

    Examples:
      imgclf cache clear 42e1c4345313db80
      imgclf cache clear all
      imgclf cache clear xla
    """
    from imgclf.errors import UserError, nearest
    from imgclf.probes import feature_store
    from imgclf.runtime import caches

    if key in caches.KINDS:
        folder = caches.clear(key)
        typer.echo(f"Deleted {folder.name} ({folder.about}): {folder.size / 1e6:,.1f} MB freed.")
        return

    entries = feature_store.entries()
    chosen = entries if key == "all" else [entry for entry in entries if key and entry.key.startswith(key)]
    short = len(key) < _BEGINNING and key not in [entry.key for entry in chosen]  # a slip of the finger is no choice
    if key != "all" and (short or len(chosen) != 1):
        why = f"is the beginning of {len(chosen)} keys" if len(chosen) > 1 else "is no cache of features"
        why = f"is too short, of a key give {_BEGINNING} characters or more;" if short and len(chosen) == 1 else f"{why} in"
        choices = [entry.key for entry in chosen or entries]
        raise UserError(
            f"{key!r} {why} {feature_store.root()}; {nearest(key, [*choices, 'all', *(folder.name for folder in caches.entries())])}"
        )
    for entry in chosen:
        feature_store.clear(entry)
        rows = "damaged" if entry.rows is None else f"{entry.rows:,} rows"
        typer.echo(f"Deleted {entry.key} ({entry.identity.get('model', 'unknown model')}, {rows}): {entry.size / 1e6:,.1f} MB freed.")
    if not chosen:
        typer.echo(f"There are no caches of features in {feature_store.root()}.")
