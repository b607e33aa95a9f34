"""The images of a bundle, brought together: found, fetched or cut anew, and each compared with its SHA-256."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, progress
from imgclf.errors import UserError, missing_extra
from imgclf.openimages import releases, transport
from imgclf.openimages.crops import CropOptions, crop
from imgclf.openimages.downloader import download
from imgclf.openimages.jobs import DownloadOptions
from imgclf.publishing import examples
from imgclf.publishing.manifest import hashed_stream

_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What could be had of a bundle's images.

    Attributes:
      table: what `examples.Examples` lists: those that are there, with the same bytes, in the run's order; None where a source makes them.
      total: how many the run has.
      problems: id → why the image is not there, or is another one.
    """

    table: Path | None
    total: int
    problems: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the user has images, or mirrors of them.

    Attributes:
      images: a folder of image files, in any order; "" = there is none.
      mirror_url: of Open Images' photos; "" = the one that they came from, where it is on the public internet.
    """

    images: str = ""
    mirror_url: str = ""


def fetch(bundle: Path, out: Path, places: Places, console: Console) -> Fetched:
    """Brings the images of a bundle together, into `out`/data where they have to be fetched.

    Args:
      bundle: its folder, verified.
      out: the folder of the reproduction.
      places: the user's own.
      console: for the progress.

    Raises:
      UserError: if none of the images can be had.
    """
    where = examples.read_where(bundle)
    saved = pd.read_parquet(bundle / "run" / "dataset.parquet")
    if where["kind"] == "source":
        return Fetched(None, len(saved), {})
    rows = pd.read_csv(bundle / examples.TABLE, dtype=str, keep_default_na=False)
    rows["bytes"] = rows["bytes"].astype("int64")
    target = out / "data"
    target.mkdir(parents=True, exist_ok=True)
    if where["kind"] == "included":
        paths: list[Path | None] = [bundle / examples.file_name(sha256) for sha256 in rows["sha256"]]
    elif where["kind"] == "openimages":
        folder = _cut_anew(bundle / examples.OPENIMAGES, target / "openimages", where, places, console)
        paths = [folder / path for path in rows["path"]]
    elif not places.images and "://" in where["base"]:
        paths = _download(where["base"], rows, target / "files", console)
    else:
        paths = _find(Path(places.images or where["base"] or _own_folder(bundle)), rows, console)
    return _compared(rows, paths, saved, target, console)


def _own_folder(bundle: Path) -> Path:
    """Where the run had its images, which is of use on the machine that it was made on."""
    data = config_lib.from_json((bundle / "run" / "config.json").read_text(encoding="utf-8")).data
    path = Path(data.path).expanduser()
    if data.source == "csv":
        return (Path(data.root).expanduser() if data.root else path.parent).absolute()
    return path.absolute()


def _compared(rows: pd.DataFrame, paths: list[Path | None], saved: pd.DataFrame, target: Path, console: Console) -> Fetched:
    """Hashes what was found, and writes the table of what is as it was."""
    problems: dict[str, str] = {}
    good: list[int] = []
    with progress.bar(console) as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        wanted = list(zip(rows["id"], rows["sha256"], paths, strict=True))
        checks = pool.map(lambda one: _problem(one[2], one[1]), wanted)
        for row, problem in enumerate(bar.track(checks, len(wanted), description="Checking images")):
            if problem:
                problems[str(wanted[row][0])] = problem
            else:
                good.append(row)
    if not good:
        name, reason = next(iter(problems.items()))
        raise UserError(
            f"None of the bundle's {len(rows):,} images could be had (such as {name!r}: {reason}): give a folder that holds them with "
            "--images, or another mirror with --mirror-url."
        )
    table = rows.iloc[good][["id", "class_name", "split", "group", "bytes"]].assign(path=[str(paths[row]) for row in good])
    if "scene" in saved:
        table["scene"] = table["id"].map(saved.set_index("id")["scene"]).fillna("")
    with files.replacing(target / "examples.parquet") as aside:
        table.to_parquet(aside, index=False)
    return Fetched((target / "examples.parquet").absolute(), len(rows), problems)


def _problem(path: Path | None, sha256: str) -> str:
    if path is None or not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return "" if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else "other bytes than the run's"


def _find(folder: Path, rows: pd.DataFrame, console: Console) -> list[Path | None]:
    """Finds files in a folder by their paths, and those that are not there by their contents, wherever they lie."""
    found: list[Path | None] = [folder / path if (folder / path).is_file() else None for path in rows["path"]]
    absent = [row for row, path in enumerate(found) if path is None or _problem(path, rows["sha256"].iloc[row])]
    if not absent or not folder.is_dir():
        return found
    sizes = set(rows["bytes"].iloc[absent])
    like = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size in sizes]
    by_hash: dict[str, Path] = {}
    with progress.bar(console) as bar:
        for path in bar.track(like, description="Looking for images by their contents"):
            by_hash.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    for row in absent:
        found[row] = by_hash.get(rows["sha256"].iloc[row], found[row])
    return found


def _download(base: str, rows: pd.DataFrame, target: Path, console: Console) -> list[Path | None]:
    """Fetches files from an address that fsspec knows; what is there already is not fetched again."""
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(base)
    except (ImportError, ValueError) as error:
        raise missing_extra(f"Fetching images from {base} ({error})", "s3fs", "publish") from None
    target.mkdir(parents=True, exist_ok=True)

    def get(row: tuple[str, str, int]) -> Path | None:
        path, sha256, size = row
        place = target / sha256
        if not place.exists():
            try:
                with system.open(f"{root}/{path}", "rb") as source, files.replacing(place, shared=True) as aside, aside.open("wb") as file:
                    hashed_stream(_chunks(source), file.write, size, path)
            except (OSError, UserError):  # told for each image by `_compared`
                return None
        return place

    wanted = list(zip(rows["path"], rows["sha256"], rows["bytes"].tolist(), strict=True))
    with progress.bar(console) as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(bar.track(pool.map(get, wanted), len(wanted), description="Fetching images"))


def _chunks(source: Any) -> Iterator[bytes]:
    while chunk := source.read(1 << 20):
        yield chunk


def _cut_anew(selection: Path, folder: Path, where: dict[str, Any], places: Places, console: Console) -> Path:
    """Fetches the photos of a selection of Open Images, and cuts their boxes out as the run's were."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images.parquet", "boxes.parquet"):
        shutil.copyfile(selection / name, folder / name)
    # An address out of a stranger's bundle must not lead into the user's own network; one that the user gives may.
    mirror = places.mirror_url or where["mirror_url"] or releases.MIRROR_URL
    if not places.mirror_url and transport.leads_to_private(mirror):
        raise UserError(f"The photos came from {mirror}, an address in a private network: if you trust it, give --mirror-url={mirror}")
    request = json.loads((selection / "selection.json").read_text(encoding="utf-8"))
    files.write_json(folder / "selection.json", request | {"base_url": mirror if places.mirror_url else releases.BASE_URL})
    sources = ["mirror"] if places.mirror_url else where["sources"]
    download(folder, DownloadOptions(sources=sources, mirror_url=mirror), console).check()
    options = json.loads((selection / "crops.json").read_text(encoding="utf-8"))
    crop(folder, CropOptions(**{name: value for name, value in options.items() if name != "boxes"}), console)
    return folder
