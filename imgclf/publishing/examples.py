"""The images of a bundle: each with its SHA-256, its class and split, and where it is to be had.

They are *included* (files named by their SHA-256), *files* (in a folder or at an address), crops of *openimages* (fetched and cut anew by
imgclf's own downloader), or made by a *source* that needs no files, such as scikit-learn's digits.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.config.fields import DataConfig
from imgclf.data.readers import FileReader, ImageReader, RowsReader
from imgclf.data.sources.base import Listing, Source
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.openimages import attribution

TABLE = "data/examples.csv"
WHERE = "data/where.json"
FILES = "data/files"
OPENIMAGES = "data/openimages"
KINDS = ("included", "files", "openimages", "source")
_OF_SELECTION = ("selection.json", "images.parquet", "boxes.parquet", "crops.json")
_ATTRIBUTED = ("title", "author", "author_url", "licence", "licence_url", "landing_url")


@dataclasses.dataclass(frozen=True)
class Described:
    """The images of a run, as a bundle tells of them.

    Attributes:
      table: a row per image, in the run's order: id, class_name, split, group, sha256, bytes, path; of crops of Open Images also image_id,
        url (of the photo), title, author, author_url, licence, licence_url, landing_url.
      where: `kind` (of KINDS), `base` (the address that paths are relative to, "" = the run's own), `bytes`, and of Open Images `sources`
        and `mirror_url`.
      files: path in the bundle → the file to put there.
    """

    table: pd.DataFrame
    where: dict[str, Any]
    files: dict[str, Path]


def describe(config: Config, dataset: Dataset, *, include: bool, base: str) -> Described:
    """Describes the images of a run.

    Args:
      config: the run's.
      dataset: its images.
      include: whether their bytes become part of the bundle.
      base: the address where others find the files, with the same paths below it; "" = there is none.

    Raises:
      UserError: if images are to be included that are no files.
    """
    columns = ["id", "class_name", "split", "group", "sha256"]
    table = dataset.table[columns].copy()
    paths = _paths(dataset.reader)
    if paths is None:
        if include or base:
            raise UserError(f"The images of config.data.source={config.data.source!r} are no files: bundle with --data=manifest.")
        return Described(table, {"kind": "source", "base": "", "bytes": 0}, {})
    root = _root(config)
    table["bytes"] = [path.stat().st_size for path in paths]
    table["path"] = [path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths]
    where: dict[str, Any] = {"kind": "included" if include else "files", "base": base, "bytes": int(table["bytes"].sum())}
    files: dict[str, Path] = {}
    if selection := _selection(config):
        table = _with_attribution(table, selection)
        if not include and not base:
            where |= {"kind": "openimages", **_photo_sources(table)}
            files = {f"{OPENIMAGES}/{name}": selection / name for name in _OF_SELECTION}
    if include:
        files |= {file_name(sha256): path for sha256, path in zip(table["sha256"], paths, strict=True)}
    return Described(table, where, files)


def file_name(sha256: str) -> str:
    """The path of an included image in the bundle."""
    return f"{FILES}/{sha256[:2]}/{sha256}"


class Examples(Source):
    """The images of a bundle where they lie now: a table, .parquet, with id, class_name, split, group, path, bytes and perhaps scene."""

    def __init__(self, data: DataConfig, table: str = ""):
        super().__init__(data)
        self.table = table

    def listing(self) -> Listing:
        """Lists the rows of the table, in their order."""
        table = pd.read_parquet(self.table)
        sizes = table["bytes"].to_numpy(np.int64)
        return Listing(
            source="bundle",
            ids=table["id"].tolist(),
            reader=FileReader("/", table["path"].tolist(), sizes),
            sizes=sizes,
            classes=table["class_name"].tolist(),
            splits=table["split"].tolist(),
            groups=table["group"].tolist(),
            scenes=table["scene"].tolist() if "scene" in table else None,
        )


def config_for(config: Config, table: Path | None, splits: set[str]) -> Config:
    """The run's config, with images that come from `table` as they were split, audited and limited then; None = from the run's own source.

    Nothing that the run's table already went through is done again: corrected labels, merged classes, limits and the audit.

    Args:
      config: the run's.
      table: what `Examples` lists.
      splits: those that the run has; no other is drawn.
    """
    config = config.copy_and_resolve_references()
    if table is None:
        return config
    data = config.data
    data.source, data.source_args = f"{__name__}:{Examples.__name__}", f"table={str(table)!r}"
    data.path = data.root = data.label_patch = ""
    data.class_map, data.per_class, data.audit = (), 0, "off"
    data.split.method = "given"
    if "val" not in splits:
        train, val, test = data.split.fractions
        data.split.fractions = (train + val, 0.0, test)
    return config


def read_where(bundle: Path) -> dict[str, Any]:
    """Reads where a bundle's images are to be had; see `Described.where`.

    Raises:
      UserError: for a kind that this version doesn't know.
    """
    where: dict[str, Any] = json.loads((bundle / WHERE).read_text(encoding="utf-8"))
    if where.get("kind") not in KINDS:
        raise UserError(
            f"{bundle / WHERE} names images of the kind {where.get('kind')!r}, which this imgclf does not know: use the bundle's own."
        )
    return where


def _paths(reader: ImageReader) -> list[Path] | None:
    """The file of each row; None where images are no files."""
    if isinstance(reader, RowsReader):
        inner = _paths(reader.reader)
        return None if inner is None else [inner[row] for row in reader.rows.tolist()]
    return [Path(reader.path(row)) for row in range(len(reader))] if isinstance(reader, FileReader) and not reader.has_urls else None


def _root(config: Config) -> Path:
    """The folder that the paths of a run's images are relative to."""
    data = config.data
    if data.source == "csv":
        return (Path(data.root) if data.root else Path(data.path).parent).expanduser().absolute()
    return Path(data.path).expanduser().absolute()


def _selection(config: Config) -> Path | None:
    """The folder that `imgclf openimages` has made, where the images of a run are its crops."""
    folder = Path(config.data.path).expanduser().absolute().parent
    made = config.data.source == "csv" and all((folder / name).is_file() for name in (*_OF_SELECTION, attribution.FILE))
    return folder if made else None


def _with_attribution(table: pd.DataFrame, selection: Path) -> pd.DataFrame:
    """Adds to each crop its photo: the id, the address that it was fetched from, its author and licence."""
    from imgclf.openimages.crops import TABLE as CROPS
    from imgclf.openimages.ledger import Ledger

    crops = pd.read_csv(selection / CROPS, dtype=str, keep_default_na=False, usecols=["path", "image_id"]).set_index("path")["image_id"]
    photos = attribution.read(selection).set_index("image_id")
    records = Ledger(selection).records
    fetched = records[records["status"] == "ok"].drop_duplicates("image_id", keep="last").set_index("image_id")
    ids = table["path"].map(crops)
    added = {name: ids.map(fetched[column]) for name, column in (("photo_source", "source"), ("url", "url"), ("photo_sha256", "sha256"))}
    return table.assign(image_id=ids, **added, **{name: ids.map(photos[name]) for name in _ATTRIBUTED}).fillna("")


def _photo_sources(table: pd.DataFrame) -> dict[str, Any]:
    """From which of Open Images' sources the photos came, and the address of the mirror."""
    photos = table.drop_duplicates("image_id")
    mirrored = photos[photos["photo_source"] == "mirror"]
    urls = {url.rsplit("/", 2)[0] + "/" for url in mirrored["url"]}
    return {"sources": sorted(set(photos["photo_source"]) - {""}), "mirror_url": next(iter(urls), "")}
