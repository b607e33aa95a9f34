"""The source "webdataset": tar files of samples (0001.jpg, 0001.cls, 0001.json), read in any order by an index that is made once."""

import json
import os
from collections import Counter

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.config.fields import DataConfig
from imgclf.data import shard_names, tar_index
from imgclf.data.formats import EXTENSIONS
from imgclf.data.parts import PartsReader
from imgclf.data.paths import printable
from imgclf.data.shard_names import ShardFile
from imgclf.data.sources.base import Listing, Source
from imgclf.data.tar_index import Member
from imgclf.errors import UserError
from imgclf.remote import places, transfer

TARS = (".tar", ".tar.gz", ".tgz")
_NAMES = "classnames.txt"  # beside the tars, as CLIP's benchmark has it: a class a line, in the order of their numbers
_LABELS = ("cls", "label", "class", "class_name")  # extensions of a sample's files, or keys of its .json


class WebDataset(Source):
    """Tar files in WebDataset's convention, at `config.data.path`: a folder, a file, or a pattern such as `train-{000000..000009}.tar`.

    Args:
      image: the extension of the image, where a sample has several; "" = the only one.
      label: where the class stands: the extension of a file of the sample, or a key of its .json; "" = the usual ones, .cls first.
    """

    def __init__(self, data: DataConfig, image: str = "", label: str = ""):
        super().__init__(data)
        self.image, self.label = image.lower().removeprefix("."), label.removeprefix(".")

    def check(self) -> None:
        """Raises a UserError where no files are named."""
        if not self.data.path:
            raise UserError("config.data.source='webdataset' needs config.data.path: train by webdataset:FOLDER, or name a pattern.")

    def listing(self) -> Listing:
        """Lists the samples. Splits are told from the names of files and folders; an id is a file's name and the image's in it.

        A number in .cls is the class of this name, or that line of classnames.txt beside the files, counted from 0.

        Raises:
          UserError: if there are no tar files, no images in them, no labels, or several images in a sample.
        """
        shards = shard_names.find(self.data.path, TARS)
        names = _class_names(shards[0])
        rows, quarantine, ignored = list[tuple[str, int, int, int, str]](), list[tuple[str, str, str]](), Counter[str]()
        with progress.bar(Console(stderr=True)) as bar:
            for number, shard in enumerate(bar.track(shards, description="Indexing tar files")):
                members, problem = tar_index.members(shard)
                if problem:
                    quarantine.append((printable(shard.name), "truncated", f"{problem}; what stands before that is used"))
                for sample in _samples(members):
                    image = self._image(sample, shard)
                    if image is None:
                        ignored["sample without an image"] += 1
                        continue
                    place = printable(f"{shard.stem}/{image.name}")
                    rows.append((place, number, image.offset, image.size, self._label(sample)))
        if not rows:
            why = "none stands in its tar files"
            if quarantine:
                name, _, problem = quarantine[0]
                why = f"{name} is no tar file, or a damaged one ({problem.partition(';')[0]})"
            raise UserError(
                f"config.data.path={self.data.path!r} holds no images: {why}. Name WebDataset's files, 0001.jpg beside 0001.cls."
            )
        quarantine += [(place, "unlabeled", "no class in the sample") for place, *_, label in rows if not label]
        kept = [row for row in rows if row[-1]]
        if not kept:
            raise UserError(
                f"The samples of {self.data.path!r} have no class (such as {rows[0][0]}): name the extension, or the key of .json, that it "
                "stands under, such as --set \"data.source_args=label='species'\"."
            )
        ids, files, offsets, sizes, labels = zip(*kept, strict=True)
        path = self.data.path if places.is_url(self.data.path) else os.path.abspath(os.path.expanduser(self.data.path))
        return Listing(
            source=path,
            ids=ids,
            reader=PartsReader([tar_index.readable(shard) for shard in shards], np.array(files), np.array(offsets), np.array(sizes)),
            classes=[names.get(label, label) for label in labels],
            splits=[shards[number].split for number in files],
            sizes=np.array(sizes, np.int64),
            mtimes_ns=np.array([shards[number].stamp for number in files], np.int64),
            quarantine=quarantine,
            ignored=ignored,
            cached_as=f"webdataset {path}",
        )

    def _image(self, sample: dict[str, Member], shard: ShardFile) -> Member | None:
        """The member of a sample that is its image; None where it has none."""
        if self.image:
            return sample.get(self.image)
        found = [extension for extension in sample if f".{extension.rpartition('.')[2]}" in EXTENSIONS]
        plain = [extension for extension in found if "." not in extension] or found  # seg.png stands beside jpg
        if len(plain) > 1:
            raise UserError(
                f"{shard.name}: a sample has several images ({sample[plain[0]].name} and {sample[plain[1]].name}): choose one, such as "
                f"--set \"data.source_args=image='{plain[0]}'\"."
            )
        return sample[plain[0]] if plain else None

    def _label(self, sample: dict[str, Member]) -> str:
        wanted = (self.label,) if self.label else _LABELS
        for extension in wanted:
            if extension in sample and sample[extension].text.strip():
                return sample[extension].text.strip()
        try:
            fields = json.loads(sample["json"].text)
        except (KeyError, ValueError):
            return ""
        return next((str(fields[key]) for key in wanted if isinstance(fields, dict) and fields.get(key) not in (None, "")), "")


def _samples(members: list[Member]) -> list[dict[str, Member]]:
    """The files of each sample, by extension: a sample's key is the name up to the first point after the last slash."""
    samples: dict[str, dict[str, Member]] = {}
    for member in members:
        folder, slash, file = member.name.rpartition("/")
        key, _, extension = file.partition(".")
        if key and extension:
            samples.setdefault(folder + slash + key, {})[extension.lower()] = member
    return list(samples.values())


def _class_names(shard: ShardFile) -> dict[str, str]:
    """Number → name, out of classnames.txt in the folder of the files, or the one above it; empty where there is none."""
    folder = places.parent(shard.path) if places.is_url(shard.path) else os.path.dirname(shard.path)
    for place in (folder, places.parent(folder) if places.is_url(folder) else os.path.dirname(folder)):
        try:
            path = places.join(place, _NAMES)
            if places.is_url(path):
                text = transfer.read(path).decode("utf-8", "replace")
            else:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read()
        except (FileNotFoundError, PermissionError):
            continue
        return {str(number): name.strip() for number, name in enumerate(text.splitlines()) if name.strip()}
    return {}
