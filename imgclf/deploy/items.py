"""Which images a call of `predict` is about: whatever Python holds images or their paths in, turned into rows by position.

An index, as a pandas Series has, never matters: the first value is row 0.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from PIL import Image

from imgclf.config.fields import DataConfig
from imgclf.data import images, lists, readers
from imgclf.data.images import ImageError
from imgclf.data.paths import is_folder
from imgclf.data.readers import decoded_as
from imgclf.data.table import Dataset
from imgclf.deploy import inputs
from imgclf.errors import UserError
from imgclf.remote import places, transfer
from imgclf.remote.ahead import WINDOW


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the model is shown of an image, made already: uint8 of `augment.Preprocessing.shape`."""

    pixels: np.ndarray


Item = str | os.PathLike[str] | bytes | np.ndarray | Shown  # a path, the bytes of an image file, or pixels

_TAKEN = (
    "paths, the bytes of image files, Pillow images or uint8 arrays [h, w, 3]; one of them, any number of them in a list, a Series or a "
    "generator, or a DataFrame with a column of paths; a folder, or labeled images from imgclf.load_images"
)


class Items(Protocol):
    """Images by row. Rows are asked for in threads; an ImageError or OSError raised then is why this image can't be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Item: ...


@dataclasses.dataclass(frozen=True)
class LazyItems:
    """Items that are made when they are asked for."""

    count: int
    make: Callable[[int], Item]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int, /) -> Item:
        return self.make(row)


class NamedItems(Items, Protocol):
    """Images by row, with what the predictions call each of them."""

    @property
    def ids(self) -> Sequence[str]:
        """What each image is called; complete once all rows were asked for."""


class HasDataset(Protocol):
    """Labeled images, such as `imgclf.ImageData`."""

    @property
    def dataset(self) -> Dataset: ...


Data = Dataset | HasDataset


def dataset_of(data: Any) -> Dataset | None:
    """The data set that is, or is inside, `data`; None where there is none."""
    found = getattr(data, "dataset", data)
    return found if isinstance(found, Dataset) else None


class Labeled:
    """The images of a data set, decoded as those of the run, by the ids that they have there."""

    def __init__(self, dataset: Dataset, decoding: images.Decoding):
        self.ids: list[str] = dataset.table["id"].tolist()
        self._reader = decoded_as(dataset.reader, decoding)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int, /) -> np.ndarray:
        return self._reader[row]

    def ahead(self, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        """See the function of this name."""
        return readers.ahead(self._reader, rows)


class Objects:
    """Images that a program holds in memory, or whose paths it holds."""

    def __init__(self, items: Sequence[Any], decoding: images.Decoding, ids: Sequence[str] | None = None, root: str = ""):
        """
        Args:
          items: asked by position, each once; they are checked then.
          decoding: how the run's images become pixels.
          ids: what the images are called; None = a path as it is given, the file's name that a Pillow image knows, else the position.
          root: the folder that relative paths are in.
        """
        self._items, self._decoding, self._named, self._root = items, decoding, ids is not None, root
        self.ids: list[str] = list(map(str, range(len(items)) if ids is None else ids))
        self._lock = threading.Lock()  # one Pillow image or open file may stand in several rows, and they can't be read by two threads

    def __len__(self) -> int:
        return len(self._items)

    def url(self, row: int) -> str:
        """Where an item lies, if it is a URL; "" where it is none, or is known only once it is asked for."""
        item = self._items[row] if isinstance(self._items, list | tuple) else None
        place = places.join(self._root, item) if isinstance(item, str) and item.strip() else ""
        return place if places.is_url(place) else ""

    def __getitem__(self, row: int, /) -> Item:
        item = self._items[row]
        if not self._named and (name := _name(item)):
            self.ids[row] = name
        if isinstance(item, str | os.PathLike):
            if not (path := os.fsdecode(item)).strip():
                raise ImageError("missing", "no path")
            return places.join(self._root, path if places.is_url(path) else os.path.expanduser(path))
        with self._lock:
            return _read(item, self._decoding)


def take(sources: Any, config: DataConfig, *, column: str = "", root: str | os.PathLike[str] = "") -> NamedItems:
    """Turns whatever holds images into rows, in the order in which it holds them.

    Args:
      sources: see `Classifier.predict`.
      config: of the run, by which its own tables are understood.
      column, root: see `Classifier.predict`.

    Raises:
      UserError: if this is nothing that holds images.
    """
    folder = os.path.expanduser(os.fsdecode(root))
    if folder and not is_folder(folder):
        raise UserError(f"root={folder!r} is no folder: name the one that the paths are relative to.")
    if (dataset := dataset_of(sources)) is not None:
        return Labeled(dataset, images.Decoding.of(config))
    if isinstance(sources, str | os.PathLike):
        path = places.join(folder, os.path.expanduser(os.fsdecode(sources)))
        is_list = path.lower().endswith(inputs.LISTS) and (places.is_url(path) or os.path.exists(path))
        is_image = places.is_url(path) and path.lower().endswith(tuple(images.EXTENSIONS))  # not worth a request
        if is_list or (not is_image and is_folder(path)):
            return inputs.find([path], column=column, usual=config.columns.path, root=folder)
    if isinstance(sources, pd.DataFrame):
        return _of_table(sources, config, column, folder)
    return Objects(_listed(sources), images.Decoding.of(config), root=folder)


def ahead(sources: Items, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """While the block runs, those of these images that lie at URLs are fetched ahead."""
    if isinstance(sources, Labeled):
        return sources.ahead(rows)
    if not isinstance(sources, Objects | inputs.Inputs):
        return contextlib.nullcontext()
    urls = [url for row in rows if (url := sources.url(row))]
    return WINDOW.announced([(url, functools.partial(transfer.read, url), -1) for url in urls]) if urls else contextlib.nullcontext()


def pixels(item: str | os.PathLike[str] | bytes | np.ndarray, decoding: images.Decoding, least: tuple[int, int] | None) -> np.ndarray:
    """uint8 [h, w, 3] of an image; large JPEGs are decoded at a reduced scale of at least (height, width) `least`, where that is given.

    Raises:
      ImageError: if it is no whole image of a known format, or too large.
      OSError: if there is no such file.
    """
    if isinstance(item, np.ndarray):
        return images.pixels_of(item, decoding)
    if isinstance(item, str) and places.is_url(item):
        item = WINDOW.take(item) or transfer.read(item)
    if not isinstance(item, bytes):
        if not stat.S_ISREG(os.stat(item).st_mode):  # reading a pipe would wait for ever
            raise ImageError("unreadable", "a folder" if os.path.isdir(item) else "not a regular file")
        with open(item, "rb") as file:
            item = file.read()
    return images.decode(item, min_size=least, decoding=decoding)


def is_many(sources: NamedItems) -> bool:
    """Whether these are the images of a folder or of a list file: nobody has looked at each, so that a bad one is to be expected."""
    return isinstance(sources, inputs.Inputs)


def by_position(values: object) -> list[Any]:
    """The values of a list, tuple, array, Series, Index, set, generator, … in their order, without their index.

    Raises:
      UserError: if these are no values in a row.
    """
    if isinstance(values, np.ndarray):
        return list(np.atleast_1d(values).tolist())
    if isinstance(values, pd.Series | pd.Index):
        return list(values.tolist())
    if isinstance(values, str | bytes | Mapping | pd.DataFrame) or not isinstance(values, Iterable):
        raise UserError(f"A value of type {type(values).__name__} stands where several are needed: give a list, an array or a Series.")
    return list(values)


def _listed(sources: Any) -> Sequence[Any]:
    """What `sources` holds, by position."""
    if isinstance(sources, str | os.PathLike | bytes | bytearray | memoryview | Image.Image) or hasattr(sources, "read"):
        return [sources]
    if isinstance(sources, Mapping):
        raise UserError(f"predict takes no {type(sources).__name__}: give its values, as in predict(images.values()), or a DataFrame.")
    if isinstance(sources, pd.Series | pd.Index):
        return sources.tolist()
    if hasattr(sources, "__array__") and not isinstance(sources, pd.api.extensions.ExtensionArray):
        return _of_array(_as_array(sources))
    if type(sources) in (list, tuple, collections.deque):
        return list(sources)
    if isinstance(sources, Sequence) or (hasattr(sources, "__getitem__") and hasattr(sources, "__len__")):
        return sources  # it may read its images when it is asked for them
    if not isinstance(sources, Iterable):
        raise UserError(f"predict takes no {type(sources).__name__}: give {_TAKEN}.")
    return list(sources)


def _of_array(array: np.ndarray) -> Sequence[Any]:
    if array.dtype.kind in "OU":  # paths or other objects
        if array.ndim > 1:
            raise UserError(f"An array of {list(array.shape)} objects is no row of images: give one dimension, as by array.ravel().")
        return array.reshape(-1).tolist()
    return list(array) if array.ndim == 4 else [array]


def _of_table(table: pd.DataFrame, config: DataConfig, column: str, root: str) -> Objects:
    """The images of a DataFrame: a list's, or one of the run's own tables."""
    if set(table.index.names) - {None} - set(table.columns):
        table = table.reset_index()
    candidates = [column] if column else [config.columns.path, "path", "id", *(table.columns if table.shape[1] == 1 else ())]
    name = next((candidate for candidate in candidates if candidate in table), None)
    columns = ", ".join(map(repr, table.columns))
    if name is None:
        wanted = repr(column) if column else "of paths ('path' or 'id')"
        raise UserError(f"The DataFrame has no column {wanted}: give column= with one of {columns}.")
    if list(table.columns).count(name) > 1:
        raise UserError(f"The DataFrame has several columns {name!r}: rename all but one of them.")
    items = table[name].tolist()
    if name == "id" and not root:  # a data set's table says where its images are, and a run's predictions.csv is of the run's images
        folders = table["source"].tolist() if "source" in table else None
        items = [_of_id(item, config, folders[row] if folders else None) for row, item in enumerate(items)]
    if root and items and all(isinstance(item, str) for item in items):  # backslashes and stems, as in a list that trains
        items = lists.locate(os.path.abspath(root), [item.strip() for item in items]).paths
    named = "id" if list(table.columns).count("id") == 1 else name
    known = table[named].notna().all() and (named == "id" or all(isinstance(value, str | os.PathLike) for value in table[named]))
    return Objects(items, images.Decoding.of(config), list(map(str, table[named])) if known else None, root)


def _of_id(item: Any, config: DataConfig, folder: str | None) -> Any:
    """The path that an id stands for."""
    if not isinstance(item, str) or not item:
        return item
    path = os.path.join(os.path.expanduser(_source_of(config) if folder is None else folder), item)
    return path if folder is not None or os.path.exists(path) else item


def _source_of(config: DataConfig) -> str:
    """The folder that the run's ids are relative to; "" where its images are in none."""
    if config.source == "folder":
        return config.path
    return config.root or os.path.dirname(config.path) if config.source == "csv" else ""


def _name(item: object) -> str:
    """What an image is called by itself; "" where it has no name."""
    if isinstance(item, str | os.PathLike):
        return os.fsdecode(item)
    name = getattr(item, "filename", "") if isinstance(item, Image.Image) else getattr(item, "name", "") if hasattr(item, "read") else ""
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


def _read(item: Any, decoding: images.Decoding) -> bytes | np.ndarray:
    """The bytes or pixels of what is no path.

    Raises:
      ImageError: if it is no image.
    """
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if isinstance(item, Image.Image):
        return images.pixels_of_picture(item, decoding)
    if hasattr(item, "read"):
        if getattr(item, "seekable", lambda: False)():
            item.seek(0)  # where it was written just now, it stands at its end
        data = item.read()
        if not isinstance(data, bytes):
            raise ImageError("not_an_image", "a file opened as text: open it with mode 'rb'")
        return data
    if item is None or item is pd.NA or item is pd.NaT or (isinstance(item, float) and item != item):
        raise ImageError("missing", "no path")
    if hasattr(item, "__array__"):
        return _pixels(_as_array(item), decoding)
    raise ImageError("not_an_image", f"of type {type(item).__name__}; give a path, bytes, a Pillow image or an array")


def _as_array(value: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on a device, or one that needs its gradient
        raise UserError(f"The {type(value).__name__} can't be read as an array ({error}): give a NumPy array.") from error


def _pixels(array: np.ndarray, decoding: images.Decoding) -> np.ndarray:
    """uint8 [h, w, 3] of an array.

    Raises:
      ImageError: for another type or shape; what the values mean is never guessed.
    """
    known = decoding.value_range or any(array.dtype.name == kind for kind, _, _ in decoding.kinds)  # from the run's own images
    if array.dtype != np.uint8 and not known:
        way = {"f": "(255 * array).round().astype('uint8') if they are from 0 to 1", "b": "255 * array.astype('uint8')"}
        told = way.get(array.dtype.kind, "array.astype('uint8') if they are from 0 to 255")
        raise ImageError("unsupported", f"an array of {array.dtype}, whose values might mean anything; give uint8, such as {told}")
    if array.ndim == 3 and array.shape[2] == 4 and array.dtype == np.uint8:
        return images.pixels_of_picture(Image.fromarray(array))  # with transparency
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        channels_first = array.shape[0] in (1, 3, 4)
        told = "channels come last: array.transpose(1, 2, 0)" if channels_first else "several grey images are [n, h, w, 1]"
        raise ImageError("unsupported", f"an array of shape {list(array.shape)}, not [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]; {told}")
    return images.pixels_of(array, decoding)
