"""Labeled images in Python: what `imgclf.load_images` returns. JAX is not imported here, so that looking at images stays quick."""

import collections
import dataclasses
import difflib
import html
import numbers
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import files, formatting
from imgclf.config.fields import DataConfig
from imgclf.data import audit, splits
from imgclf.data.prepare import load_path
from imgclf.data.table import Dataset
from imgclf.deploy.items import by_position
from imgclf.errors import UserError, nearest
from imgclf.remote import places
from imgclf.reporting import explore, notebook, pages

Selection = str | Iterable[str] | Iterable[bool] | Callable[[pd.DataFrame], Any]


def load_images(path: str | os.PathLike, *, verbose: bool = True, **fields: Any) -> "ImageData":
    """Reads labeled images: a folder with a folder per class, searched to any depth, or a table that lists them.

        data = imgclf.load_images("image")  # image/cat/1.jpg, image/dog/deep/er/2.png: the label is the folder's name
        data = imgclf.load_images("labels.csv", columns={"label": "species"})  # columns path and label; optional split, group

    Every file is decoded once, and what was learnt is cached. What can't be used is skipped and listed with its reason in
    `data.skipped`; nothing is replaced. Folders train, val (valid) and test above the class folders become `data.table["split"]`.

    Args:
      path: a folder, or a .csv, .tsv or .parquet file; or the URL of either, such as s3://bucket/photos.
      verbose: tells how many were found and skipped.
      fields: of `config.data`, such as root (the folder that a table's paths are relative to), columns, max_pixels, label_patch.

    Returns:
      The images, in the order of their ids; printed, they say how many of which class there are, and what was skipped.

    Raises:
      UserError: if there is nothing there, the labels can't be told, or there is one class only.

    Example:
      >>> data = imgclf.load_images("photos", verbose=False)
      >>> data
      75 images of 3 classes: blue 20, green 25, red 30
      skipped: 1 file (1 truncated); see data.skipped
      ignored: 1 .DS_Store
      >>> imgclf.load_images("photos/red", verbose=False)
      Traceback (most recent call last):
      imgclf.errors.UserError: ...photos/red holds one class only, 'deep'; a classifier needs two: add a folder for another class.
    """
    data = ImageData(*load_path(_place_of(path), **fields))
    _tell(verbose, repr(data))
    return data


def _place_of(path: object) -> str | Path:
    if isinstance(path, str) and places.is_url(path):
        return path
    return files.path_of(path, "a folder of images, or a table that lists them,")


class ImageData:
    """Labeled images, as a table; never changed in place.

        len(data), data.class_names
        data.table                        # pandas: id, class_name, split, width, height, sha256, …
        data[0], data["cat/1.jpg"]        # pixels, uint8 [h, w, 3]
        data[:10]                         # the first ten, as ImageData
        data.filter("cat")                # one class, or several: ["cat", "dog"]
        data.filter(lambda table: table.width >= 200)
        train, test = data.split(0.8, seed=2)
        data.explore()                    # a page to look at them in the browser

    Args:
      dataset: such as `imgclf.data.table.load_dataset(config)`, which reads every source that a config can name.
      fields: `config.data` as it was read with; None = defaults.

    Example:
      >>> len(data), data.class_names, data.ignored
      (75, ('blue', 'green', 'red'), {'.DS_Store': 1})
      >>> data.table[["id", "class_name", "width", "height"]].iloc[0].to_dict()
      {'id': 'blue/00.png', 'class_name': 'blue', 'width': 64, 'height': 48}
      >>> data.skipped["reason"].tolist()
      ['truncated']
      >>> "blue/00.png" in data, data.dataset.reader[0].shape, data.fields.source
      (True, (48, 64, 3), 'folder')
    """

    def __init__(self, dataset: Dataset, fields: DataConfig | None = None):
        self._dataset = dataset
        self._fields = fields

    @property
    def dataset(self) -> Dataset:
        """What the rest of imgclf works with."""
        return self._dataset

    @property
    def fields(self) -> DataConfig | None:
        """`config.data` by which the images were read; None where they were not read by a config."""
        return self._fields

    @property
    def table(self) -> pd.DataFrame:
        """A row per image, see `imgclf.data.table.Dataset`: id, class_name, label, split, group, sha256, width, height, …

        Written by `data.table.to_csv("images.csv")`, it is read again by
        `load_images("images.csv", root="image", columns={"path": "id", "label": "class_name"})`.
        """
        return self._dataset.table.copy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, sorted; `table["label"]` counts in them."""
        return self._dataset.class_names

    @property
    def skipped(self) -> pd.DataFrame:
        """The image files that could not be used: id, reason, detail."""
        return self._dataset.quarantine.copy()

    @property
    def ignored(self) -> dict[str, int]:
        """Files that are no images, such as .DS_Store, by kind."""
        return dict(self._dataset.ignored)

    def __len__(self) -> int:
        return len(self._dataset.table)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._dataset.reader[row] for row in range(len(self)))

    def __contains__(self, name: object) -> bool:
        """Whether there is an image of this id."""
        return isinstance(name, str | os.PathLike) and os.fsdecode(name) in set(self._dataset.table["id"])

    @overload
    def __getitem__(self, key: SupportsIndex | str | os.PathLike[str]) -> np.ndarray: ...
    @overload
    def __getitem__(self, key: slice | Iterable[Any]) -> "ImageData": ...

    def __getitem__(self, key: Any) -> "np.ndarray | ImageData":
        """One image's pixels, by position or id; or some of the images, by a slice, positions, ids, or True and False for each.

            data[0], data["cat/1.jpg"]    # uint8 [h, w, 3], upright
            data[:10], data[[3, 1, 2]]    # ImageData
            data[data.table.width > 500]  # the same as data.filter

        Args:
          key: a position, which counts from 0 whatever index a Series of them has (negative ones count from the end); an id; a slice; or
            several of these, or True and False for each image.

        Returns:
          Of one image uint8 [height, width, 3], RGB, upright; of several `ImageData`, in the order asked for.

        Raises:
          IndexError: for a position that there is none of, as of a list.
          UserError: for an unknown id, or an image that is asked for twice.

        Example:
          >>> data[0].shape, data["red/00.png"].dtype
          ((48, 64, 3), dtype('uint8'))
          >>> data[:10]
          10 images of 3 classes: blue 10, green 0, red 0
          skipped: 1 file (1 truncated); see data.skipped
          ignored: 1 .DS_Store
        """
        if isinstance(key, bool | np.bool_):
            raise UserError(f"data[{key}] is no position: give True or False for each image, or filter.")
        if isinstance(key, slice):
            return self._take(np.arange(len(self))[key])
        if isinstance(key, str | os.PathLike):
            return self._dataset.reader[self._row(os.fsdecode(key))]
        if hasattr(key, "__index__") and not hasattr(key, "__len__"):
            return self._dataset.reader[range(len(self))[key]]
        values = by_position(key)
        if _all_bool(values):
            return self.filter(values)
        if not values:
            raise UserError("data[…] of no image at all: name a position or an id.")
        if not all(isinstance(value, str) or hasattr(value, "__index__") for value in values):
            raise UserError("data[…] takes a position or an id, a slice, several positions or ids, or True or False for each image.")
        rows = [self._row(value) if isinstance(value, str) else range(len(self))[value] for value in values]
        if len(set(rows)) < len(rows):
            row, times = collections.Counter(rows).most_common(1)[0]
            raise UserError(f"Image {self._dataset.table['id'].iloc[row]!r} stands {times} times in data[…]: name each image once.")
        return self._take(np.array(rows, np.int64))

    def filter(self, by: Selection) -> "ImageData":
        """Some of the images; classes of which none is left are gone.

            data.filter("cat")
            data.filter(["cat", "dog"])
            data.filter(data.table.width >= 200)
            data.filter(lambda table: table.width >= 200)

        Args:
          by: a class; several classes; True or False for each image, by position; or a function of the table that returns one of these.

        Returns:
          The images that fit, in their order.

        Raises:
          UserError: for an unknown class, or if nothing is left.

        Example:
          >>> len(data.filter("red")), len(data.filter(["red", "blue"])), len(data.filter(lambda table: table.id.str.contains("deep")))
          (30, 50, 37)
          >>> data.filter("rad")
          Traceback (most recent call last):
          imgclf.errors.UserError: There is no class 'rad'; did you mean 'red'?...
        """
        table = self._dataset.table
        if callable(by):
            by = by(table.copy())
            if isinstance(by, pd.Series) and not by.index.equals(table.index):
                raise UserError(
                    "The function given to filter changed the order or number of the rows: let it return a value for each, in order."
                )
        values = [by] if isinstance(by, str) else by_position(by)
        if values and all(isinstance(value, str) for value in values):
            for name in values:
                if name not in self.class_names:
                    raise UserError(f"There is no class {name!r}; {nearest(name, self.class_names)}")
            keep = table["class_name"].isin(values).to_numpy()
        elif _all_bool(values) and len(values) == len(table):
            keep = np.array(values, bool)
        else:
            given = f"{len(values)} values" if not values or _all_bool(values) else "values that are neither"
            raise UserError(f"filter needs a class, several, or one True or False for each of {len(table)} images, not {given}.")
        if not keep.any():
            raise UserError(f"None of {formatting.count(len(table), 'image')} fits the filter.")
        return self._take(np.flatnonzero(keep), drop_empty_classes=True)

    def split(self, fraction: float, *, seed: int = 0, near_duplicate_bits: int = 6, verbose: bool = True) -> "tuple[ImageData, ImageData]":
        """Draws two parts, such as 80 % for training and 20 % for testing.

        Each class is divided exactly (its fraction, rounded by largest remainder), whatever the order of the files. Images of one
        `group`, shots of one `scene`, exact copies, and near duplicates stay on one side: sizes are then as near as whole groups allow.
        Shots of one scene are known by the table's column `scene` only, which `imgclf.find_scenes` makes: here is no network to tell them
        by. Splits that the data came with are disregarded.

        Args:
          fraction: of the first part, between 0 and 1.
          seed: another one draws another split.
          near_duplicate_bits: images whose perceptual hashes differ in at most so many of 64 bits count as one picture; -1: none.
          verbose: tells what was done.

        Returns:
          The two parts, with `table["split"]` "train" and "test", and in `group` what was kept together.

        Raises:
          UserError: for a class too small to be in both parts.

        Example:
          >>> train, test = data.split(0.8, seed=2)
          Split 75 images, stratified, seed 2: 60 and 15.
          >>> test.table["class_name"].value_counts().to_dict()
          {'red': 6, 'green': 5, 'blue': 4}
        """
        if not isinstance(fraction, numbers.Real) or isinstance(fraction, bool):
            raise UserError(f"split({fraction!r}) is no number: give the first part's share, such as 0.8.")
        if not 0 < fraction < 1:
            hint = f"did you mean {fraction / 100:g}?" if 1 < fraction < 100 else "give the first part's share, such as 0.8."
            raise UserError(f"split({fraction!r}) is not between 0 and 1; {hint}")
        if not isinstance(near_duplicate_bits, numbers.Integral):
            raise UserError(f"near_duplicate_bits={near_duplicate_bits!r} is no whole number: give -1 to 64; the default is 6.")
        group = audit.groups_with_copies(self._dataset.table, near_duplicate_bits)
        table = self._dataset.table.assign(group=pd.Series(group, dtype="str"))
        hint = "leave it out: data.filter(lambda table: table.class_name != …)"
        sides = splits.stratify(table, self.class_names, {"train": fraction, "test": 1 - fraction}, seed, hint)
        table = table.assign(split=pd.Series(sides, dtype="str"))
        whole = ImageData(dataclasses.replace(self._dataset, table=table), self._fields)
        first, second = (whole._take(np.flatnonzero(sides == side)) for side in ("train", "test"))
        told = f"Split {len(self):,} images, stratified, seed {seed}: {len(first):,} and {len(second):,}"
        unit = pd.Series(splits.groups_of(table), index=table.index)
        together = (group != "") | unit.duplicated(keep=False)
        if together.any():
            groups = formatting.count(unit[together].nunique(), "group")
            kinds = "copies, scenes or of the data" if "scene" in table and (table["scene"] != "").any() else "copies or of the data"
            told += f"; kept whole: {groups} of {kinds} ({formatting.count(int(together.sum()), 'image')})"
        if (self._dataset.table["split"] != "").any():
            told += "; the splits that the data came with are disregarded"
        _tell(verbose, told + ".")
        return first, second

    def explore(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        near_duplicate_bits: int = 6,
        inline: bool = False,
        overwrite: bool = False,
        verbose: bool = True,
    ) -> Path:
        """Writes a page to look at the images in the browser.

        Thumbnails by class; filters by class, split, size and copies; search, sorting; hover enlarges. Exact copies, near duplicates,
        label conflicts and copies across splits are marked. One file that needs no network; 5,000 images stay fluid.

        Args:
          path: of the page; None = explore.html in the current folder, or explore-2.html, … where that shows other images; in a notebook,
            a temporary folder, so that nothing lies about.
          near_duplicate_bits: see `split`.
          inline: whether to show the page below a notebook's cell.
          overwrite: whether to replace what stands at `path`, if it is not an older page of these images (that is always replaced).
          verbose: shows the progress and the path.

        Returns:
          The path of the page.

        Raises:
          UserError: if something else stands at the path, or an image has changed since it was loaded.

        Example:
          >>> page = data.explore("all.html", verbose=False)
          >>> page.name, page.stat().st_size > 10_000
          ('all.html', True)
        """
        console = Console(quiet=not verbose)
        if path is None and (inline or notebook.is_running()):
            path = files.temporary_folder() / "explore.html"
        page = explore.write_page(self._dataset, path, near_duplicate_bits=near_duplicate_bits, overwrite=overwrite, console=console)
        if inline:
            notebook.show(page)
        else:
            _tell(verbose, f"Open {page} in a browser.")
        return page

    def _row(self, name: str) -> int:
        """The row of an id."""
        rows = np.flatnonzero(self._dataset.table["id"] == name)
        if not len(rows):
            close = difflib.get_close_matches(name, self._dataset.table["id"], n=1)
            hint = f"did you mean {close[0]!r}?" if close else "data.table.id lists all."
            raise UserError(f"There is no image {name!r} here; {hint}")
        return int(rows[0])

    def _take(self, rows: np.ndarray, *, drop_empty_classes: bool = False) -> "ImageData":
        part = splits.subset(self._dataset, rows)
        if drop_empty_classes:
            kept, label = np.unique(part.table["label"], return_inverse=True)
            names = tuple(part.class_names[old] for old in kept)
            part = dataclasses.replace(part, table=part.table.assign(label=label.astype(np.int32)), class_names=names)
        return ImageData(part, self._fields)

    def __repr__(self) -> str:
        table, names = self._dataset.table, self.class_names
        counts = table["class_name"].value_counts()
        shown = ", ".join(f"{name} {counts.get(name, 0):,}" for name in names[:10]) + (", …" if len(names) > 10 else "")
        lines = [f"{formatting.count(len(table), 'image')} of {formatting.count(len(names), 'class', 'classes')}: {shown}"]
        given = table["split"].value_counts()
        if any(given.index != ""):
            lines.append("splits: " + ", ".join(f"{name or 'none'} {given[name]:,}" for name in (*splits.SPLITS, "") if name in given))
        if len(self._dataset.quarantine):
            reasons = self._dataset.quarantine["reason"].value_counts()
            told = ", ".join(f"{count} {str(reason).replace('_', ' ')}" for reason, count in reasons.items())
            lines.append(f"skipped: {formatting.count(len(self._dataset.quarantine), 'file')} ({told}); see data.skipped")
        lines.extend(self._dataset.notes)
        if self._dataset.ignored:
            lines.append("ignored: " + ", ".join(f"{count} {kind}" for kind, count in self._dataset.ignored.items()))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks: the text, and a few thumbnails of each of the first classes."""
        table = self._dataset.table
        cells = []
        for label, name in list(enumerate(self.class_names))[:8]:
            rows = np.flatnonzero(table["label"] == label)[:8]
            encoded = pages.thumbnails(self._dataset, rows, 72, Console(quiet=True))
            pictures = "".join(
                f'<img src="data:image/webp;base64,{picture}" title="{html.escape(table["id"].iloc[row])}" style="height:64px;margin:2px">'
                for row, picture in zip(rows, encoded, strict=True)
            )
            cells.append(f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{pictures}</td></tr>")
        return f"<pre>{html.escape(repr(self))}</pre><table>{''.join(cells)}</table>"


def _all_bool(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, bool | np.bool_) for value in values)


def _tell(verbose: bool, text: str) -> None:
    Console(quiet=not verbose).print(text, highlight=False, markup=False, soft_wrap=True)
