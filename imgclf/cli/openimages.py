"""`imgclf openimages`: parses and prints; the work is done by `imgclf.openimages`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgclf.cli.option_groups import with_groups

if TYPE_CHECKING:
    from rich.console import Console

    from imgclf.openimages import Classes, CropOptions, Crops, DownloadOptions, Downloads, Filters, Metadata, Selection

openimages = typer.Typer(
    help="""Open Images: from class names to a clean, licensed, cropped data set.

    \b
    imgclf openimages classes burger
    imgclf openimages get Hamburger Sandwich --out data/burgers
    imgclf train openimages_cnn:data/burgers
    """,
    no_args_is_help=True,
)

_BASE = "https://storage.googleapis.com/openimages/"
_SPLITS = {None: "auto", True: "official", False: "new"}
_MIRROR = "https://open-images-dataset.s3.amazonaws.com/"

Names = Annotated[list[str], typer.Argument(metavar="CLASSES…", help="Names in any case, singular or plural, or labels such as /m/0cdn1.")]
Out = Annotated[Path, typer.Option(help="The folder to make, or to continue.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `select`.", file_okay=False)]
Seed = Annotated[int, typer.Option(help="Decides what --per-class and --background draw.")]


@dataclasses.dataclass(frozen=True)
class ReleaseGroup:
    """Options of the release: which one, and from where."""

    version: Annotated[str, typer.Option("--version", help="V4, V5, V6 or V7.")] = "V7"
    base_url: Annotated[str, typer.Option(help="Where the metadata lie; a private mirror has the same paths.")] = _BASE

    def metadata(self, progress: "Console") -> "Metadata":
        from imgclf.openimages import Metadata

        return Metadata(self.version, self.base_url, console=progress)


@dataclasses.dataclass(frozen=True)
class SelectGroup:
    """Options of `select`."""

    split: Annotated[list[str], typer.Option(help="train, validation or test; may be repeated. Train boxes are 2.3 GB, fetched once.")] = (
        dataclasses.field(default_factory=lambda: ["train", "validation", "test"])
    )
    occluded: Annotated[bool | None, typer.Option("--occluded/--no-occluded", help="Only, or no, boxes partly hidden by something.")] = None
    truncated: Annotated[bool | None, typer.Option("--truncated/--no-truncated", help="… that reach beyond the photo.")] = None
    group_of: Annotated[bool | None, typer.Option("--group-of/--no-group-of", help="… around more than five that touch.")] = None
    depiction: Annotated[bool | None, typer.Option("--depiction/--no-depiction", help="… of drawings and the like.")] = None
    inside: Annotated[bool | None, typer.Option("--inside/--no-inside", help="… seen from inside.")] = None
    keep_unknown: Annotated[
        bool, typer.Option("--keep-unknown/--drop-unknown", help="Whether boxes pass such a filter whose flag is unknown (-1).")
    ] = True
    min_size: Annotated[float, typer.Option(help="Least width and height of a box, as a share of the photo's.")] = 0.0
    per_class: Annotated[int, typer.Option(help="At most so many of each class, drawn with --seed; 0 = all.")] = 0
    seed: Seed = 0
    licence: Annotated[list[str] | None, typer.Option(help='Such as "CC BY 2.0"; may be repeated. Default: any.')] = None
    image_labels: Annotated[bool, typer.Option("--image-labels", help="Whole photos by human-verified labels, instead of boxes.")] = False
    negatives: Annotated[
        bool, typer.Option("--negatives", help="With --image-labels: also photos verified to show none of the classes.")
    ] = False

    def filters(self) -> "Filters":
        from imgclf.openimages import Filters

        flags = {name: getattr(self, name) for name in ("occluded", "truncated", "group_of", "depiction", "inside")}
        chosen = {name: wanted for name, wanted in flags.items() if wanted is not None}
        return Filters(chosen, self.keep_unknown, self.min_size, tuple(self.licence or ()), self.per_class, self.seed)


@dataclasses.dataclass(frozen=True)
class DownloadGroup:
    """Options of `download`."""

    source: Annotated[list[str], typer.Option(help="mirror (1,024 px), original or thumbnail (Flickr); repeat it for a second choice.")] = (
        dataclasses.field(default_factory=lambda: ["mirror"])
    )
    mirror_url: Annotated[str, typer.Option(help="Of a private mirror: photos at SPLIT/ID.jpg below it.")] = _MIRROR
    workers: Annotated[int, typer.Option(help="Photos under way at once.")] = 16
    rate: Annotated[
        float | None, typer.Option(help="Requests per second and host; 0 = unlimited. Default: 200 for the mirror, 5 for Flickr.")
    ] = None
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a connection, and between two bytes.")] = 30.0
    max_bytes: Annotated[int, typer.Option(help="Larger files are not kept.")] = 64 << 20
    runs: Annotated[int, typer.Option(help="In how many runs a photo is asked for that can't be had just now.")] = 3
    heed_robots: Annotated[
        bool, typer.Option("--heed-robots/--ignore-robots", help="Skip photos with X-Robots-Tag noai, noindex and the like.")
    ] = True
    jobs: Annotated[int, typer.Option(help="Processes that share the work.")] = 1
    engine: Annotated[str, typer.Option(help="threads, processes, or ray (a cluster that shares this folder).")] = "threads"

    def options(self) -> "DownloadOptions":
        from imgclf.openimages import DownloadOptions, FetchOptions

        fetch = FetchOptions(timeout=self.timeout, max_bytes=self.max_bytes, runs=self.runs, heed_robots=self.heed_robots)
        return DownloadOptions(tuple(self.source), self.mirror_url, self.workers, self.rate, self.jobs, self.engine, fetch)


@dataclasses.dataclass(frozen=True)
class CropGroup:
    """Options of `crop`."""

    padding: Annotated[float, typer.Option(help="Share of the box added on each side.")] = 0.0
    square: Annotated[bool, typer.Option("--square", help="Widen boxes to squares, as far as the photo reaches.")] = False
    min_side: Annotated[int, typer.Option(help="Crops with a shorter side (pixels) are left out.")] = 16
    background: Annotated[int, typer.Option(help="Up to so many crops of each photo that meet no box, as a class of their own.")] = 0
    official: Annotated[
        bool | None,
        typer.Option("--official-split/--new-split", help="Default: official with train and another; else the run draws one, by photo."),
    ] = None
    format: Annotated[str, typer.Option(help="jpg or png.")] = "jpg"
    seed: Seed = 0

    def options(self) -> "CropOptions":
        from imgclf.openimages import CropOptions

        split = _SPLITS[self.official]
        return CropOptions(self.padding, self.square, self.min_side, self.background, split, self.format, self.seed)


@openimages.command()
@with_groups
def classes(
    release: ReleaseGroup,
    pattern: Annotated[str, typer.Argument(help="Part of a name; empty = all.")] = "",
    counts: Annotated[list[str] | None, typer.Option(metavar="SPLIT", help="Fetch a split's boxes to count them; may be repeated.")] = None,
) -> None:
    """Lists classes with their labels, parents, number of kinds, and boxes in the splits that are on this machine.

    \b
    imgclf openimages classes
    imgclf openimages classes bear --counts validation
    """
    from imgclf.openimages import load_classes

    console, progress = _consoles()
    metadata = release.metadata(progress)
    known = load_classes(metadata)
    labels = known.search(pattern)
    if not labels:
        known.find(pattern)  # its error says what is near
    boxes = metadata.local_box_counts(fetch=counts or ())
    rows = []
    for label in labels:
        parents = ", ".join(known.names[parent] for parent in known.parents.get(label, ()))
        kinds = len(known.expand(label)) - 1
        rows.append((known.names[label], label, parents, str(kinds or ""), *(f"{found.get(label, 0):,}" for found in boxes.values())))
    _table(console, ("class", "label", "is a", "kinds", *(f"boxes in {split}" for split in boxes)), rows, numbers=3)
    if not boxes:
        console.print("Count boxes with --counts validation (or train, test).", style="dim")


@openimages.command()
@with_groups
def tree(
    release: ReleaseGroup,
    name: Annotated[str, typer.Argument(metavar="[CLASS]", help="The class to start from; empty = the whole hierarchy.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write the radial tree to this page instead.", dir_okay=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace whatever file is at that path.")] = False,
) -> None:
    """Shows the hierarchy: what is a kind of what, and (in brackets) what has parts.

    \b
    imgclf openimages tree Food
    imgclf openimages tree --html hierarchy.html
    """
    from rich.tree import Tree

    from imgclf.openimages import load_classes, write_page

    console, progress = _consoles()
    metadata = release.metadata(progress)
    known = load_classes(metadata)
    label = known.find(name) if name else known.root
    counts: dict[str, int] = {}
    for found in metadata.local_box_counts().values():
        for one, count in found.items():
            counts[one] = counts.get(one, 0) + count
    if html is not None:
        console.print(f"Written: {write_page(known, html, label, counts, overwrite=overwrite)}", soft_wrap=True)
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
@with_groups
def select(names: Names, out: Out, release: ReleaseGroup, group: SelectGroup) -> None:
    """Finds the photos and boxes of classes, before any photo is fetched. A class includes its kinds; the most specific one wins.

    \b
    imgclf openimages select Hamburger Sandwich --out data/burgers --split validation
    imgclf openimages select Cat Dog --out data/pets --no-group-of --no-depiction --min-size 0.1 --per-class 1000
    imgclf openimages select Sushi --out data/sushi --image-labels --negatives
    """
    from imgclf.openimages import select

    console, progress = _consoles()
    metadata = release.metadata(progress)
    selection = select(
        names,
        metadata,
        splits=group.split,
        filters=group.filters(),
        image_labels=group.image_labels,
        negatives=group.negatives,
    )
    selection.save(out)
    _print_selection(selection, console)
    metadata.keep()
    console.print(f"Next: imgclf openimages download {out}", style="dim", soft_wrap=True)


@openimages.command()
@with_groups
def download(folder: Folder, group: DownloadGroup) -> None:
    """Fetches a selection's photos, each once; give the command again to go on after an interruption. The ledger is DIR/downloads.parquet.

    \b
    imgclf openimages download data/burgers
    imgclf openimages download data/burgers --source mirror --source original --rate 2
    imgclf openimages download data/burgers --jobs 8 --engine ray
    """
    from imgclf.openimages import download

    console, progress = _consoles()
    options = group.options()
    downloads = download(folder, options, progress)
    _print_downloads(downloads, options, console)
    downloads.check()
    console.print(f"Next: imgclf openimages crop {folder}", style="dim", soft_wrap=True)


@openimages.command()
@with_groups
def crop(folder: Folder, group: CropGroup) -> None:
    """Cuts the boxes out of the photos into class folders, with a table whose groups keep the crops of a photo on one side of a split.

    \b
    imgclf openimages crop data/burgers --padding 0.1 --square
    imgclf openimages crop data/fries --background 2        # one class? the rest of its photos is the other
    """
    from imgclf.openimages import crop

    console, progress = _consoles()
    options = group.options()
    _print_crops(crop(folder, options, progress), options, folder, console)


@openimages.command()
@with_groups
def get(names: Names, out: Out, release: ReleaseGroup, selecting: SelectGroup, downloading: DownloadGroup, cropping: CropGroup) -> None:
    """Selects, downloads and crops in one go; given again, it goes on where it was.

    \b
    imgclf openimages get Hamburger Sandwich --out data/burgers --split validation
    imgclf train openimages_cnn:data/burgers
    """
    from imgclf.openimages import Crops, Downloads, Selection, get

    console, progress = _consoles()
    download_options, crop_options = downloading.options(), cropping.options()

    def show(result: Selection | Downloads | Crops) -> None:
        if isinstance(result, Selection):
            _print_selection(result, console)
        elif isinstance(result, Downloads):
            _print_downloads(result, download_options, console)
        else:
            _print_crops(result, crop_options, out, console)

    get(
        names,
        out,
        release.metadata(progress),
        splits=selecting.split,
        filters=selecting.filters(),
        image_labels=selecting.image_labels,
        negatives=selecting.negatives,
        download_options=download_options,
        crop_options=crop_options,
        report=show,
        console=progress,
    )


def _consoles() -> "tuple[Console, Console]":
    """Returns a console for results, and one for progress bars."""
    from rich.console import Console

    return Console(highlight=False), Console(stderr=True, highlight=False)


def _table(console: "Console", names: tuple[str, ...], rows: list[tuple[str, ...]], numbers: int) -> None:
    """Prints rows; the columns from `numbers` on are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place >= numbers else "left", no_wrap=place == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _leaf(known: "Classes", label: str, counts: dict[str, int]) -> str:
    parts = [known.names[part] for part in known.parts.get(label, ())]
    shown = f"  [dim]{counts[label]:,} boxes[/]" if counts.get(label) else ""
    return known.names[label] + (f"  [dim](parts: {', '.join(parts)})[/]" if parts else "") + shown


def _print_selection(selection: "Selection", console: "Console") -> None:
    counts = selection.counts().astype(str)
    rows: list[tuple[str, ...]] = [
        (name, split, f"{int(boxes):,}", f"{int(photos):,}") for name, split, boxes, photos in counts.itertuples(index=False, name=None)
    ]
    rows.append(("all", "", f"{len(selection.boxes):,}", f"{len(selection.images):,}"))
    _table(console, ("class", "split", "labels" if selection.request["image_labels"] else "boxes", "photos"), rows, numbers=2)
    for note in selection.notes:
        console.print(f"Note: {note}", soft_wrap=True)


def _print_downloads(downloads: "Downloads", options: "DownloadOptions", console: "Console") -> None:
    from imgclf.formatting import count
    from imgclf.openimages import attribution, ledger

    counts = downloads.counts()
    _table(console, ("photos", "number"), [(name, f"{n:,}") for name, n in counts.items()], numbers=1)
    if downloads.silence:
        console.print(f"Nobody answered any more: {downloads.silence}", soft_wrap=True)
    if downloads.missing:
        later, abandoned, runs = counts.get("transient", 0), counts.get("abandoned", 0), options.fetch.runs
        told = f"{count(downloads.missing, 'photo')} of {len(downloads.status):,} {'is' if downloads.missing == 1 else 'are'} missing."
        if later:
            told += f" {later:,} could not be had just now: give the command again later."
        if abandoned:
            told += f" {abandoned:,} failed in {count(runs, 'run')} and will not be asked for again; --runs {runs + 1} asks once more."
        console.print(told, soft_wrap=True)
    columns = ["licence", "terms", "photos", "authors", "author_missing", "link_missing"]
    summary = attribution.summary(downloads.attribution)[columns].astype(str)
    rows: list[tuple[str, ...]] = [
        (licence, terms, *(f"{int(n):,}" for n in numbers)) for licence, terms, *numbers in summary.itertuples(index=False, name=None)
    ]
    _table(console, ("licence", "asks to", "photos", "authors", "without author", "without link"), rows, numbers=2)
    folder = downloads.folder
    console.print(f"Attribution: {folder / attribution.FILE}; ledger: {folder / ledger.LEDGER}", soft_wrap=True)


def _print_crops(crops: "Crops", options: "CropOptions", folder: Path, console: "Console") -> None:
    rows: list[tuple[str, ...]] = [
        (label, split or "drawn by the run", f"{pictures:,}", f"{photos:,}") for label, split, pictures, photos in crops.counts()
    ]
    _table(console, ("class", "split", "crops", "of photos"), rows, numbers=2)
    if crops.too_small:
        console.print(f"{crops.too_small:,} crops with a side below {options.min_side} pixels are left out.")
    if crops.table["label"].nunique() == 1:
        console.print("One class trains no classifier: ask for a second one, or crop with --background 1.")
    else:
        console.print(f"Train: imgclf train openimages_cnn:{folder}", soft_wrap=True)
