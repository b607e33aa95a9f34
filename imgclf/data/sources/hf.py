"""The source "hf": image data sets of the Hugging Face hub, as parquet files with an Image and a ClassLabel; `datasets` is not needed."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from imgclf import progress
from imgclf.config.fields import DataConfig
from imgclf.data import arrow_cache, shard_names
from imgclf.data.arrow_cache import ArrowReader
from imgclf.data.paths import printable
from imgclf.data.shard_names import ShardFile
from imgclf.data.sources.base import Listing, Source
from imgclf.errors import UserError
from imgclf.remote import places

PARQUET = (".parquet",)
_HUB = "hf://"
_ADDRESS = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", re.IGNORECASE)
_LABELS = ("label", "labels", "class", "class_name", "category")  # of columns, where the file doesn't say which one is the class


class Hf(Source):
    """Parquet files at `config.data.path`: a folder (such as a snapshot of the hub's), a file, or `hf://datasets/OWNER/NAME`.

    What lies on the hub is downloaded by its own client into its own cache, whole files at a time.

    Args:
      image, label: names of columns; "" = the only Image and the only ClassLabel.
    """

    def __init__(self, data: DataConfig, image: str = "", label: str = ""):
        super().__init__(data)
        self.image, self.label = image, label

    def check(self) -> None:
        """Raises a UserError where no data set is named."""
        if not self.data.path:
            raise UserError("config.data.source='hf' needs config.data.path: train by hf:FOLDER, or by hf:hf://datasets/OWNER/NAME.")

    def listing(self) -> Listing:
        """Lists the rows. Splits are told from the names of files and folders; an id is a file's name and the row's number in it.

        Raises:
          UserError: if there are no parquet files, or it is not certain which columns are the image and the class.
        """
        root = _downloaded(self.data.path) if self.data.path.lower().startswith(_HUB) else self.data.path
        shards = shard_names.find(root, PARQUET)
        if any(places.is_url(shard.path) for shard in shards):
            raise UserError(
                f"config.data.path={self.data.path!r}: the source hf reads local folders and hf://; copy the files, or pack them."
            )
        ids, labels, splits, files, rows, stamps = list[str](), list[str](), list[str](), list[int](), list[int](), list[int]()
        arrows = list[Path]()
        opened = [_Parquet(shard, self.image, self.label) for shard in shards]
        with progress.bar(Console(stderr=True), rate="images") as bar:
            task = bar.add_task("Copying images", total=sum(one.count for one in opened))
            for number, (shard, one) in enumerate(zip(shards, opened, strict=True)):
                arrows.append(arrow_cache.copied(shard, one.image, lambda count: bar.advance(task, count)))
                labels += one.labels()
                ids += [printable(f"{shard.stem}/{row:06d}") for row in range(one.count)]
                splits += [shard.split] * one.count
                files += [number] * one.count
                rows += range(one.count)
                stamps += [shard.stamp] * one.count
        kept = np.array([row for row, label in enumerate(labels) if label], np.int64)
        if not len(kept):
            raise UserError(f"config.data.path={self.data.path!r} has no labels: name only files whose rows have a class.")
        return Listing(
            source=self.data.path,
            ids=[ids[row] for row in kept],
            reader=ArrowReader(arrows, np.array(files)[kept], np.array(rows)[kept]),
            classes=[labels[row] for row in kept],
            splits=[splits[row] for row in kept],
            mtimes_ns=np.array(stamps, np.int64)[kept],
            quarantine=[(name, "unlabeled", "its label is hidden") for name, label in zip(ids, labels, strict=True) if not label],
            cached_as=f"hf {os.path.abspath(os.path.expanduser(root))}",
        )


class _Parquet:
    """What is in a parquet file: its number of rows, and the columns of images and of classes."""

    def __init__(self, shard: ShardFile, image: str, label: str):
        try:
            with pq.ParquetFile(shard.path) as opened:
                self.count, schema = opened.metadata.num_rows, opened.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{shard.path} can't be read as parquet ({error}): download it anew, or take it away.") from error
        self._path, self._features = shard.path, _features(schema)
        images = [name for name, kind in self._features.items() if kind.get("_type") == "Image"] or [
            field.name for field in schema if holds_images(field.type)
        ]
        classes = [name for name, kind in self._features.items() if kind.get("_type") == "ClassLabel"]
        self.image = _chosen(shard, image, images, schema.names, "image")
        self._label = _chosen(shard, label, classes or [name for name in _LABELS if name in schema.names], schema.names, "label")

    def labels(self) -> list[str]:
        """The class of each row; "" where it is hidden."""
        values = pq.read_table(self._path, columns=[self._label]).column(0).to_pylist()
        names = self._features.get(self._label, {}).get("names")
        if names is None:
            return ["" if value is None else str(value).strip() for value in values]
        return [names[value] if value is not None and value >= 0 else "" for value in values]


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this type holds image files, as `datasets` writes them."""
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _features(schema: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
    """What `datasets` has written of the columns; empty where the file is not of its making."""
    try:
        features: dict[str, Any] = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: kind for name, kind in features.items() if isinstance(kind, dict)}


def _chosen(shard: ShardFile, asked: str, found: list[str], names: list[str], what: str) -> str:
    if asked in names:
        return asked
    if len(found) == 1 and not asked:
        return found[0]
    which = f"no column {asked!r}" if asked else f"several columns that may be the {what} ({', '.join(found)})" if found else f"no {what}"
    raise UserError(
        f"{shard.name} has {which}; its columns: {', '.join(names)}. Choose one, such as --set "
        f"\"data.source_args={what}='{(found or names)[0]}'\"."
    )


def _downloaded(url: str) -> str:
    """The folder of a data set's parquet files in the hub's cache, which the hub's client fills."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    match = _ADDRESS.fullmatch(url.rstrip("/"))
    if match is None:
        raise UserError(f"{url!r} is no address of a data set: write hf://datasets/OWNER/NAME, and perhaps a folder or @revision after it.")
    name, revision, below = match.groups()
    patterns = [below] if below and below.endswith(PARQUET) else [f"{below}/*.parquet" if below else "*.parquet"]
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(f"{url} is not on the hub, or is not yours to read: check its name, or log in with `hf auth login`.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{url} can't be downloaded ({str(error).splitlines()[0]}): give the same command again to continue.") from error
    return os.path.join(folder, below) if below else folder
