"""What a source is, and what it says of its images."""

import abc
import dataclasses
from collections import Counter
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np

from imgclf.config.fields import DataConfig
from imgclf.data.columns import Coded, Texts
from imgclf.data.images import ValueRange
from imgclf.data.readers import Reader
from imgclf.errors import UserError

if TYPE_CHECKING:  # see `columns`
    import pandas as pd

# What people call the splits, in any case.
SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst", "holdout"),
}


@dataclasses.dataclass
class Listing:
    """What a source says of its images before any is decoded; in each sequence there is one item per image.

    Attributes:
      source: where the images are from, such as a folder; for people to read.
      ids: unique, printable names, which stay the same when the data move.
      reader: of the images.
      classes: the class of each image; None: the label is stored with the image, as an index into class_names.
      class_names: each must get an image; () = those in `classes`.
      splits: train | val | test | ""; () = none.
      groups: images of one group stay on one side of a split; "" = none; () = no groups at all.
      scenes: images of one scene likewise, where `config.data.scenes` isn't "off"; "" = a scene of its own; None = the source doesn't know.
      sizes: int64 [n], bytes; with mtimes_ns (int64 [n], nanoseconds) what tells that an image is still the same; empty = zeros.
      quarantine: images that can't be used: id, reason, detail.
      ignored: what is no image: kind → count.
      notes: sentences that the user should know, such as how the splits were told.
      cached_as: names the verification's cache; "" = verified each time.
      inspected: what `verify` would give, where the source keeps that with its images; None = they are verified.
      value_range: of images of more than 8 bits, where the source knows it; () = it is told from the images.
      renamed: whether `config.data.class_map` has been applied already.
      indexed: whether it was kept from an earlier start (`listing_index`), so that files overwritten in place since go unnoticed in it.
    """

    source: str
    ids: Sequence[str]
    reader: Reader
    classes: Sequence[str] | None
    class_names: tuple[str, ...] = ()
    splits: Sequence[str] = ()
    groups: Sequence[str] = ()
    scenes: Sequence[str] | None = None
    sizes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    mtimes_ns: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    quarantine: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    ignored: Counter[str] = dataclasses.field(default_factory=Counter)
    notes: list[str] = dataclasses.field(default_factory=list)
    cached_as: str = ""
    inspected: "pd.DataFrame | None" = None
    value_range: ValueRange = ()
    renamed: bool = False
    indexed: bool = False

    def __post_init__(self) -> None:
        count = len(self.ids)
        self.splits = self.splits or Coded(np.zeros(count, np.int32), [""])
        self.groups = self.groups or Coded(np.zeros(count, np.int32), [""])
        self.sizes = self.sizes if len(self.sizes) else np.zeros(count, np.int64)
        self.mtimes_ns = self.mtimes_ns if len(self.mtimes_ns) else np.zeros(count, np.int64)
        self.class_names = self.class_names or tuple(sorted(Coded.of(self.classes or ()).counts()))
        columns: dict[str, Sized] = {"splits": self.splits, "groups": self.groups, "reader": self.reader}
        columns |= {"sizes": self.sizes, "mtimes_ns": self.mtimes_ns}
        if self.classes is not None:
            columns["classes"] = self.classes
        if self.scenes is not None:
            columns["scenes"] = self.scenes
        for name, column in columns.items():
            if len(column) != count:
                raise UserError(f"The source {self.source} lists {count} ids and {len(column)} {name}: give one per image.")
        if not self.indexed and len(Texts.of(self.ids).to_arrow().unique()) < count:
            twice = next(name for name, times in Counter(self.ids).items() if times > 1)
            raise UserError(f"The source {self.source} lists the id {twice!r} more than once: ids must be unique.")


class Source(abc.ABC):
    """A kind of place that images come from; subclasses list them.

    A subclass may take further arguments with defaults, which users give in `config.data.source_args`.
    """

    def __init__(self, data: DataConfig):
        self.data = data

    def check(self) -> None:
        """Raises a UserError for fields of the config that can't be right; called before anything is read or written."""
        return

    @abc.abstractmethod
    def listing(self) -> Listing:
        """Lists the images.

        Raises:
          UserError: if they are not there, or not understood.
        """
