"""`imgclf openimages`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgclf.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from imgclf import openimages as library

openimages = typer.Typer(
    help="""Open Images: from class names to a clean, licensed, cropped data set.

    \b
    imgclf openimages classes burger
    imgclf openimages get Hamburger Sandwich --out data/burgers
    python run.py --config=configs/openimages_cnn.py:data/burgers
    """,
    no_args_is_help=True,
)

_BASE = "https://storage.googleapis.com/openimages/"
_SPLITS = {None: "auto", True: "official", False: "new"}
_MIRROR = "https://open-images-dataset.s3.amazonaws.com/"

Version = Annotated[str, typer.Option("--version", help="V4, V5, V6 or V7.")]
BaseUrl = Annotated[str, typer.Option(help="Where the metadata lie; a private mirror keeps the same paths.")]
Names = Annotated[list[str], typer.Argument(metavar="CLASSES…", help="Names in any case, singular or plural, or labels such as /m/0cdn1.")]
Out = Annotated[Path, typer.Option(help="The folder to make.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `select`.", file_okay=False)]
Split = Annotated[list[str], typer.Option(help="train, validation or test; may be repeated. Train boxes are 2.3 GB, fetched once.")]
Occluded = Annotated[bool | None, typer.Option("--occluded/--no-occluded", help="Only, or no, boxes partly hidden by something.")]
Truncated = Annotated[bool | None, typer.Option("--truncated/--no-truncated", help="… that reach beyond the photo.")]
GroupOf = Annotated[bool | None, typer.Option("--group-of/--no-group-of", help="… around more than five that touch.")]
Depiction = Annotated[bool | None, typer.Option("--depiction/--no-depiction", help="… of drawings and the like.")]
Inside = Annotated[bool | None, typer.Option("--inside/--no-inside", help="… seen from inside.")]
Unknown = Annotated[bool, typer.Option("--keep-unknown/--drop-unknown", help="What such a filter does with unknown flags (-1).")]
MinSize = Annotated[float, typer.Option(help="Least width and height of a box, as a share of the photo's.")]
PerClass = Annotated[int, typer.Option(help="At most so many of each class, drawn with --seed; 0 = all.")]
Seed = Annotated[int, typer.Option(help="Of --per-class and --background.")]
Licence = Annotated[list[str] | None, typer.Option(help='Such as "CC BY 2.0"; may be repeated. Default: any.')]
ImageLabels = Annotated[bool, typer.Option("--image-labels", help="Whole photos by human-verified labels, instead of boxes.")]
Negatives = Annotated[bool, typer.Option("--negatives", help="With --image-labels: also photos verified to show none of the classes.")]
Source = Annotated[list[str], typer.Option(help="mirror (1,024 px), original or thumbnail (Flickr); repeat it for a second choice.")]
MirrorUrl = Annotated[str, typer.Option(help="Of a private mirror: photos at SPLIT/ID.jpg below it.")]
Workers = Annotated[int, typer.Option(help="Photos under way at once.")]
Rate = Annotated[float | None, typer.Option(help="Requests per second and host; 0 = unlimited. Default: 200 for the mirror, 5 for Flickr.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for a connection, and between two bytes.")]
MaxBytes = Annotated[int, typer.Option(help="Larger files are not kept.")]
Robots = Annotated[bool, typer.Option("--heed-robots/--ignore-robots", help="Skip photos with X-Robots-Tag noai, noindex and the like.")]
Jobs = Annotated[int, typer.Option(help="Processes that share the work.")]
Engine = Annotated[str, typer.Option(help="threads, processes, or ray (a cluster that shares this folder).")]
Padding = Annotated[float, typer.Option(help="Share of the box added on each side.")]
Square = Annotated[bool, typer.Option("--square", help="Widen boxes to squares, as far as the photo reaches.")]
MinSide = Annotated[int, typer.Option(help="Crops with a shorter side (pixels) are left out.")]
Background = Annotated[int, typer.Option(help="Up to so many crops of each photo that meet no box, as a class of their own.")]
Official = Annotated[
    bool | None,
    typer.Option("--official-split/--new-split", help="Default: official with train and another; else the run draws one, by photo."),
]
Format = Annotated[str, typer.Option(help="jpg or png.")]


@openimages.command()
def classes(
    pattern: Annotated[str, typer.Argument(help="Part of a name; empty = all.")] = "",
    counts: Annotated[list[str] | None, typer.Option(metavar="SPLIT", help="Fetch a split's boxes to count them; may be repeated.")] = None,
    version: Version = "V7",
    base_url: BaseUrl = _BASE,
) -> None:
    """Lists classes with their labels, parents, number of kinds, and boxes in the splits that are on this machine.

    \b
    imgclf openimages classes
    imgclf openimages classes bear --counts validation
    """
    from imgclf import openimages as library
    from imgclf.openimages import releases

    console, progress = _consoles()
    metadata = library.Metadata(version, base_url, console=progress)
    known = library.load_classes(metadata)
    labels = known.search(pattern)
    if not labels:
        known.find(pattern)  # says what is near
    asked = {releases.check_split(split) for split in counts or ()}
    boxes = {split: metadata.box_counts(split) for split in releases.SPLITS if split in asked or metadata.has_boxes(split)}
    rows = []
    for label in labels:
        parents = ", ".join(known.names[parent] for parent in known.parents.get(label, ()))
        kinds = len(known.expand(label)) - 1
        rows.append((known.names[label], label, parents, str(kinds or ""), *(f"{found.get(label, 0):,}" for found in boxes.values())))
    _table(console, ("class", "label", "is a", "kinds", *(f"boxes in {split}" for split in boxes)), rows, numbers=3)
    if not boxes:
        console.print("Count boxes with --counts validation (or train, test).", style="dim")


@openimages.command()
def tree(
    name: Annotated[str, typer.Argument(metavar="[CLASS]", help="The class to start from; empty = the whole hierarchy.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write the radial tree to this page instead.", dir_okay=False)] = None,
    version: Version = "V7",
    base_url: BaseUrl = _BASE,
) -> None:
    """Shows the hierarchy: what is a kind of what, and (in brackets) what has parts.

    \b
    imgclf openimages tree Food
    imgclf openimages tree --html hierarchy.html
    """
    from rich.tree import Tree

    from imgclf import openimages as library
    from imgclf.openimages import releases

    console, progress = _consoles()
    metadata = library.Metadata(version, base_url, console=progress)
    known = library.load_classes(metadata)
    label = known.find(name) if name else known.root
    counts: dict[str, int] = {}
    for split in filter(metadata.has_boxes, releases.SPLITS):
        for one, count in metadata.box_counts(split).items():
            counts[one] = counts.get(one, 0) + count
    if html is not None:
        console.print(f"Written: {library.write_page(known, html, label, counts)}", soft_wrap=True)
        return

    def grow(branch: Tree, one: str, way: tuple[str, ...]) -> None:
        for child in sorted(known.children.get(one, ()), key=known.names.__getitem__):
            if child not in way:
                grow(branch.add(_leaf(known, child, counts)), child, (*way, child))

    top = Tree(_leaf(known, label, counts))
    grow(top, label, (label,))
    console.print(top)
    above = [known.names[parent] for parent in known.parents.get(label, ())]
    if above:
        console.print(f"{known.names[label]} is a kind of {' and of '.join(above)}.", style="dim")


@openimages.command()
def select(
    names: Names,
    out: Out,
    split: Split = ["train", "validation", "test"],  # noqa: B006
    version: Version = "V7",
    occluded: Occluded = None,
    truncated: Truncated = None,
    group_of: GroupOf = None,
    depiction: Depiction = None,
    inside: Inside = None,
    keep_unknown: Unknown = True,
    min_size: MinSize = 0.0,
    per_class: PerClass = 0,
    seed: Seed = 0,
    licence: Licence = None,
    image_labels: ImageLabels = False,
    negatives: Negatives = False,
    base_url: BaseUrl = _BASE,
) -> None:
    """Finds the photos and boxes of classes, before any photo is fetched. A class includes its kinds; the most specific one wins.

    \b
    imgclf openimages select Hamburger Sandwich --out data/burgers --split validation
    imgclf openimages select Cat Dog --out data/pets --no-group-of --no-depiction --min-size 0.1 --per-class 1000
    imgclf openimages select Sushi --out data/sushi --image-labels --negatives
    """
    console, progress = _consoles()
    metadata = _metadata(version, base_url, progress)
    flags = {"occluded": occluded, "truncated": truncated, "group_of": group_of, "depiction": depiction, "inside": inside}
    filters = _filters(flags, keep_unknown, min_size, per_class, seed, licence)
    _select(names, out, metadata, split, filters, image_labels, negatives, console)
    metadata.keep()
    console.print(f"Next: imgclf openimages download {out}", style="dim", soft_wrap=True)


@openimages.command()
def download(
    folder: Folder,
    source: Source = ["mirror"],  # noqa: B006
    mirror_url: MirrorUrl = _MIRROR,
    workers: Workers = 16,
    rate: Rate = None,
    timeout: Timeout = 30.0,
    max_bytes: MaxBytes = 64 << 20,
    heed_robots: Robots = True,
    jobs: Jobs = 1,
    engine: Engine = "threads",
) -> None:
    """Fetches a selection's photos, each once; give the command again to go on after an interruption. The ledger is DIR/downloads.parquet.

    \b
    imgclf openimages download data/burgers
    imgclf openimages download data/burgers --source mirror --source original --rate 2
    imgclf openimages download data/burgers --jobs 8 --engine ray
    """
    console, progress = _consoles()
    _download(folder, _plan(source, mirror_url, workers, rate, timeout, max_bytes, heed_robots, jobs, engine), console, progress)
    console.print(f"Next: imgclf openimages crop {folder}", style="dim", soft_wrap=True)


@openimages.command()
def crop(
    folder: Folder,
    padding: Padding = 0.0,
    square: Square = False,
    min_side: MinSide = 16,
    background: Background = 0,
    official: Official = None,
    format: Format = "jpg",
    seed: Seed = 0,
) -> None:
    """Cuts the boxes out of the photos into class folders, with a table whose groups keep the crops of a photo on one side of a split.

    \b
    imgclf openimages crop data/burgers --padding 0.1 --square
    imgclf openimages crop data/fries --background 2        # one class? the rest of its photos is the other
    """
    from imgclf.openimages import Cut

    console, progress = _consoles()
    _crop(folder, Cut(padding, square, min_side, background, _SPLITS[official], format, seed), console, progress)


@openimages.command()
def get(
    names: Names,
    out: Out,
    split: Split = ["train", "validation", "test"],  # noqa: B006
    version: Version = "V7",
    occluded: Occluded = None,
    truncated: Truncated = None,
    group_of: GroupOf = None,
    depiction: Depiction = None,
    inside: Inside = None,
    keep_unknown: Unknown = True,
    min_size: MinSize = 0.0,
    per_class: PerClass = 0,
    seed: Seed = 0,
    licence: Licence = None,
    image_labels: ImageLabels = False,
    negatives: Negatives = False,
    base_url: BaseUrl = _BASE,
    source: Source = ["mirror"],  # noqa: B006
    mirror_url: MirrorUrl = _MIRROR,
    workers: Workers = 16,
    rate: Rate = None,
    timeout: Timeout = 30.0,
    max_bytes: MaxBytes = 64 << 20,
    heed_robots: Robots = True,
    jobs: Jobs = 1,
    engine: Engine = "threads",
    padding: Padding = 0.0,
    square: Square = False,
    min_side: MinSide = 16,
    background: Background = 0,
    official: Official = None,
    format: Format = "jpg",
) -> None:
    """Selects, downloads and crops in one go; given again, it goes on where it was.

    \b
    imgclf openimages get Hamburger Sandwich --out data/burgers --split validation
    python run.py --config=configs/openimages_cnn.py:data/burgers
    """
    from imgclf.openimages import Cut

    console, progress = _consoles()
    cut = Cut(padding, square, min_side, background, _SPLITS[official], format, seed)
    plan = _plan(source, mirror_url, workers, rate, timeout, max_bytes, heed_robots, jobs, engine)
    metadata = _metadata(version, base_url, progress)
    flags = {"occluded": occluded, "truncated": truncated, "group_of": group_of, "depiction": depiction, "inside": inside}
    filters = _filters(flags, keep_unknown, min_size, per_class, seed, licence)
    _select(names, out, metadata, split, filters, image_labels, negatives, console)
    _download(out, plan, console, progress)
    _crop(out, cut, console, progress)
    metadata.keep()


def _consoles() -> "tuple[Console, Console]":
    """For results, and for progress bars."""
    from rich.console import Console

    return Console(highlight=False), Console(stderr=True, highlight=False)


def _table(console: "Console", names: tuple[str, ...], rows: list[tuple[str, ...]], numbers: int) -> None:
    """Prints rows; columns from `numbers` on stand right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place >= numbers else "left", no_wrap=place == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _leaf(known: "library.Classes", label: str, counts: dict[str, int]) -> str:
    parts = [known.names[part] for part in known.parts.get(label, ())]
    shown = f"  [dim]{counts[label]:,} boxes[/]" if counts.get(label) else ""
    return known.names[label] + (f"  [dim](parts: {', '.join(parts)})[/]" if parts else "") + shown


def _metadata(version: str, base_url: str, progress: "Console") -> "library.Metadata":
    from imgclf.openimages import Metadata

    return Metadata(version, base_url, console=progress)


def _filters(
    flags: dict[str, bool | None], keep_unknown: bool, min_size: float, per_class: int, seed: int, licence: list[str] | None
) -> "library.Filters":
    from imgclf.openimages import Filters

    if not 0 <= min_size <= 1 or per_class < 0:
        raise UserError("--min-size must lie within 0 and 1, and --per-class be at least 0.")
    chosen = {name: wanted for name, wanted in flags.items() if wanted is not None}
    return Filters(chosen, keep_unknown, min_size, tuple(licence or ()), per_class, seed)


def _plan(source, mirror_url, workers, rate, timeout, max_bytes, heed_robots, jobs, engine) -> "library.Plan":
    from imgclf.openimages import Manners, Plan

    manners = Manners(timeout=timeout, max_bytes=max_bytes, heed_robots=heed_robots)
    return Plan(tuple(source), mirror_url, workers, rate, jobs, engine, manners)


def _select(names, out, metadata, split, filters, image_labels, negatives, console) -> None:
    from imgclf.openimages import select as find

    selection = find(names, metadata, splits=split, filters=filters, image_labels=image_labels, negatives=negatives)
    selection.save(out)
    counts: pd.DataFrame = selection.counts()
    rows = [(row.class_name, row.split, f"{row.boxes:,}", f"{row.photos:,}") for row in counts.itertuples()]
    rows.append(("all", "", f"{len(selection.boxes):,}", f"{len(selection.images):,}"))
    _table(console, ("class", "split", "labels" if image_labels else "boxes", "photos"), rows, numbers=2)
    for note in selection.notes:
        console.print(f"Note: {note}", soft_wrap=True)


def _download(folder, plan, console, progress) -> None:
    import pandas as pd

    from imgclf.openimages import attribution
    from imgclf.openimages import download as fetch
    from imgclf.openimages.downloader import summarize

    status = fetch(folder, plan, progress)
    _table(console, ("photos", "number"), [(name, f"{count:,}") for name, count in summarize(status)], numbers=1)
    if (status["status"] == "transient").any():
        console.print("Some photos could not be had just now: give the command again later.")
    summary = attribution.summary(pd.read_csv(folder / "ATTRIBUTION.csv", dtype=str, keep_default_na=False))
    rows = [
        (row.licence, row.terms, f"{row.photos:,}", f"{row.authors:,}", f"{row.author_missing:,}", f"{row.link_missing:,}")
        for row in summary.itertuples()
    ]
    _table(console, ("licence", "asks to", "photos", "authors", "without author", "without link"), rows, numbers=2)
    console.print(f"Attribution: {folder / 'ATTRIBUTION.csv'}; ledger: {folder / 'downloads.parquet'}", soft_wrap=True)
    if not (status["status"] == "ok").any():
        raise UserError(f"None of the {len(status):,} photos could be had; {folder / 'downloads.parquet'} says why for each.")


def _crop(folder, cut, console, progress) -> None:
    from imgclf.openimages import crop as cut_all

    table = cut_all(folder, cut, progress)
    shown = table.assign(split=table.get("split", "drawn by the run")).groupby(["label", "split"])["image_id"].agg(["size", "nunique"])
    rows = [(label, split, f"{row['size']:,}", f"{row['nunique']:,}") for (label, split), row in shown.iterrows()]
    _table(console, ("class", "split", "crops", "of photos"), rows, numbers=2)
    small = table.attrs["left_out"].get("small", 0)
    if small:
        console.print(f"{small:,} crops with a side below {cut.min_side} pixels are left out.")
    if table["label"].nunique() == 1:
        console.print("One class trains no classifier: ask for a second one, or crop with --background 1.")
    else:
        console.print(f"Train: python run.py --config=configs/openimages_cnn.py:{folder}", soft_wrap=True)
