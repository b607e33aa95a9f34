"""The example table: one row per usable image, from any source, verified."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.config.fields import DataConfig
from imgclf.data import class_names, label_patch, main_guard, sources, value_range
from imgclf.data.background import Unverified
from imgclf.data.columns import Coded, Texts, constant
from imgclf.data.images import Decoding, ValueRange
from imgclf.data.readers import FileReader, ImageReader, Reader, decoded_as, take
from imgclf.data.sources import Listing
from imgclf.data.verify import cache_file, verify
from imgclf.errors import UserError
from imgclf.runtime import hosts

BACKGROUND_FROM = 200_000  # images from which on config.data.verify="auto" verifies in the background


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A verified data set.

    Attributes:
      table: a row per usable image. id (str, unique, relative to the source, so it outlives a move of the folder), source (str), class_name
        (str), label (int32), split ("train" | "val" | "test" | "" before assignment), group (str; "" = none: the image is its own), sha256
        (str, of the file's bytes or of the pixels), width, height (int32, oriented), phash (int64: 64 bits, see `perceptual_hash`).
        With a patch of labels also original_class (str), the source's. Where shots of one scene were looked for, or the source names them,
        also scene (str; "" = none): the shots of a scene stay on one side of drawn splits and folds (`splits.groups_of`).
      class_names: sorted; label indexes it.
      quarantine: the images left out: id, reason, detail. The reasons: truncated, damaged, empty, not_an_image, unsupported,
        too_many_pixels, unreadable, missing, ambiguous (a stem of several files), unlabeled (beside the class folders).
      ignored: files that are no images, and rows that repeat another: kind → count.
      reader: the images, by row of the table.
      notes: sentences that the user should know of how the data were read, such as which folders were taken for splits.
      value_range: as `config.data.value_range`, with what was decided for images of more than 8 bits.
      unverified: the files of a data set that is verified in the background; None = every image is verified. Such a table has a row per
        listed file; sha256 is "", width, height and phash are 0, and it has also file_size (int64, bytes).
    """

    table: pd.DataFrame
    class_names: tuple[str, ...]
    quarantine: pd.DataFrame
    ignored: dict[str, int]
    reader: ImageReader
    notes: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    value_range: ValueRange = dataclasses.field(default=(), kw_only=True)
    unverified: Unverified | None = dataclasses.field(default=None, kw_only=True)


def load_dataset(config: Config) -> Dataset:
    """Lists and verifies the images of `config.data`; splits are as the source gives them, or "", labels with `data.label_patch` applied.

    Args:
      config: the whole config.

    Raises:
      UserError: if the source is not there or not understood, or has fewer than two classes, or a class without a usable image; if the
        patch of labels does not fit it.
    """
    main_guard.leave_workers()
    data = config.data
    listing = _named(hosts.current().first(sources.create(data).listing), data)
    decoding = Decoding.of(data, listing.value_range)
    if listing.classes is not None:  # before the hours that a large set takes to verify
        _check_classes(listing, Counter(Coded.of(listing.classes).counts()), [])
    if in_background(config, listing):
        return _unverified(listing, data, decoding)
    if listing.indexed:  # a kept listing does not know of files that were overwritten in place
        first = config.copy_and_resolve_references()
        first.data.verify = "first"
        return load_dataset(first)
    result = _inspected(listing, data)
    reasons, details = result["reason"].tolist(), result["detail"].tolist()
    rows = np.array([row for row, reason in enumerate(reasons) if not reason], np.int64)
    bad = [(listing.ids[row], reason, details[row]) for row, reason in enumerate(reasons) if reason]
    if listing.classes is None:
        stored = result["label"].to_numpy()
        if (hidden := int((stored[rows] < 0).sum())) > 0:
            raise UserError(f"{listing.source} hides the labels of {hidden} images: name only splits with labels in config.data.tfds.")
        classes = [listing.class_names[label] if label >= 0 else "" for label in stored]
    else:
        classes = list(listing.classes)
    kept = [classes[row] for row in rows]
    _check_classes(listing, Counter(kept), bad)
    names = tuple(sorted(set(listing.class_names)))
    index = {name: label for label, name in enumerate(names)}
    table = pd.DataFrame(
        {
            "id": pd.Series([listing.ids[row] for row in rows.tolist()], dtype="str"),
            "source": pd.Series([listing.source] * len(rows), dtype="str"),
            "class_name": pd.Series(kept, dtype="str"),
            "label": np.array([index[name] for name in kept], np.int32),
            "split": pd.Series([listing.splits[row] for row in rows.tolist()], dtype="str"),
            "group": pd.Series([listing.groups[row] for row in rows.tolist()], dtype="str"),
            "sha256": result["sha256"].iloc[rows].astype("str").reset_index(drop=True),
            "width": result["width"].to_numpy()[rows],
            "height": result["height"].to_numpy()[rows],
            "phash": result["phash"].to_numpy()[rows],
        }
    )
    if listing.scenes is not None:
        table.insert(list(table.columns).index("sha256"), "scene", pd.Series([listing.scenes[row] for row in rows.tolist()], dtype="str"))
    if data.label_patch:
        table = label_patch.apply(table, names, data.label_patch)
    quarantine = pd.DataFrame(sorted(listing.quarantine + bad), columns=["id", "reason", "detail"], dtype="str")
    decoding, notes = _ranges(decoding, table["id"], result.iloc[rows])
    return Dataset(
        table,
        names,
        quarantine,
        dict(sorted(listing.ignored.items())),
        take(_reader(listing, decoding, result), rows),
        notes=(*listing.notes, *notes),
        value_range=decoding.value_range or decoding.kinds,
    )


def _inspected(listing: Listing, data: DataConfig) -> pd.DataFrame:
    """What is known of each image, by decoding it where the source does not bring it along."""
    if listing.inspected is not None:
        return listing.inspected
    cache = cache_file(listing.cached_as, data.max_pixels) if listing.cached_as else None
    return verify(listing.reader, listing.ids, listing.sizes, listing.mtimes_ns, max_pixels=data.max_pixels, cache=cache)


def in_background(config: Config, listing: Listing) -> bool:
    """Whether the images are verified while training goes on, see `config.data.verify`.

    Raises:
      UserError: if that is asked for, and something else needs all images to be verified first.
    """
    data, train = config.data, config.train
    on_images = train.method == "fit" or (train.method == "auto" and config.model.weights == "none")
    needs = {
        f"config.train.method={train.method!r} takes features of all images": not on_images,
        f"config.data.scenes={data.scenes!r} compares all images": data.scenes != "off",
        "config.train.teacher looks at all images before training": bool(train.teacher),
        "config.data.audit='error' compares all images before training": data.audit == "error",
        f"config.data.source={data.source!r} gives no files": not isinstance(listing.reader, FileReader) or listing.classes is None,
    }
    why = next((why for why, holds in needs.items() if holds), "")
    if data.verify == "background" and why:
        raise UserError(f"config.data.verify='background' does not go together with the rest: {why}. Set config.data.verify='first'.")
    return data.verify == "background" or (data.verify == "auto" and not why and len(listing.ids) >= BACKGROUND_FROM)


def _unverified(listing: Listing, data: DataConfig, decoding: Decoding) -> Dataset:
    """The data set as it was listed: nothing is decoded."""
    ids, classes, reader = Texts.of(listing.ids), Coded.of(listing.classes or ()), listing.reader
    assert isinstance(reader, FileReader)
    names, count = tuple(sorted(set(listing.class_names))), len(ids)
    columns = {
        "id": ids.to_pandas(),
        "source": constant(listing.source, count),
        "class_name": classes.to_pandas(),
        "label": classes.positions(names),
        "split": Coded.of(listing.splits).to_pandas(),
        "group": Coded.of(listing.groups).to_pandas(),
        "sha256": constant("", count),
        "width": np.zeros(count, np.int32),
        "height": np.zeros(count, np.int32),
        "phash": np.zeros(count, np.int64),
        "file_size": listing.sizes,
    }
    table = pd.DataFrame(columns, copy=False)
    if data.label_patch:
        table = label_patch.apply(table, names, data.label_patch)
    return Dataset(
        table,
        names,
        pd.DataFrame(sorted(listing.quarantine), columns=["id", "reason", "detail"], dtype="str"),
        dict(sorted(listing.ignored.items())),
        reader.decoded_as(dataclasses.replace(decoding, by_own_values=False)),
        notes=tuple(listing.notes),
        value_range=decoding.value_range or decoding.kinds,
        unverified=Unverified(
            reader, ids, listing.sizes, listing.mtimes_ns, data.max_pixels, cache_file(listing.cached_as, data.max_pixels)
        ),
    )


def _ranges(decoding: Decoding, ids: pd.Series, inspected: pd.DataFrame) -> tuple[Decoding, list[str]]:
    """Decides what is black and white in images of more than 8 bits, a kind at a time, and says so."""
    if decoding.value_range is not None:
        return decoding, []
    known = {kind for kind, _, _ in decoding.kinds}
    rows, notes = list(decoding.kinds), []
    kinds, lows, highs = (inspected[name].to_numpy() for name in ("kind", "low", "high"))
    for kind in sorted(set(kinds) - known - {""}):
        here = np.flatnonzero(kinds == kind)
        black, white = value_range.decide(kind, float(lows[here].min()), float(highs[here].max()))
        rows.append((kind, black, white))
        notes.append(value_range.told(kind, black, white, lows[here], highs[here], ids.iloc[here].tolist()))
    return dataclasses.replace(decoding, kinds=tuple(rows)), notes


def _reader(listing: Listing, decoding: Decoding, inspected: pd.DataFrame) -> Reader:
    reader = listing.reader.decoded_as(decoding)
    noisy = inspected["noisy"].to_numpy(bool)
    reader.noisy = noisy if noisy.any() else None
    return reader


def decoded_by(dataset: Dataset, data: DataConfig) -> Dataset:
    """The data set with its images decoded as `config.data` says; where that names no value range, by what was found of these images."""
    found = dataclasses.replace(Decoding.of(data, dataset.value_range), by_own_values=dataset.unverified is None)
    reader = decoded_as(dataset.reader, found)
    return dataclasses.replace(dataset, reader=reader, value_range=found.value_range or found.kinds)


def _named(listing: Listing, data: DataConfig) -> Listing:
    """Gives each class one spelling, renames and merges classes as `data.class_map` says, and tells of those that look alike."""
    own = [class_names.canonical(name) for name in listing.class_names]
    renamed = {} if listing.renamed else class_names.mapping(data.class_map, own)
    listing.class_names = tuple(renamed.get(name, name) for name in own)
    if listing.classes is not None:
        classes = Coded.of(listing.classes)
        spelled = {name: class_names.canonical(name) for name in classes.names}
        listing.classes = classes.renamed({name: renamed.get(spelling, spelling) for name, spelling in spelled.items()})
    if "" in listing.class_names:
        raise UserError(f"{listing.source} has a class without a name: name it.")
    if similar := class_names.alike(listing.class_names):
        listing.notes.append(similar)
    return listing


def _check_classes(listing: Listing, counts: Counter, bad: list[tuple[str, str, str]]) -> None:
    """At least two classes, each with an image."""
    empty = [name for name in listing.class_names if not counts[name]]
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        out = listing.quarantine + bad
        why = f" ({len(out)} images were left out, such as {out[0][0]}: {out[0][1]}, {out[0][2]})" if out else ""
        has = "class has" if len(empty) == 1 else "classes have"
        raise UserError(f"{listing.source}: {len(empty)} {has} no usable image, {shown}{why}: add images, or remove its folder or rows.")
    check_two_classes(listing.source, sorted(set(listing.class_names)))


def check_two_classes(source: str, names: Sequence[str]) -> None:
    """Raises a UserError unless there are at least two classes."""
    if len(names) < 2:
        only = f" only, {names[0]!r}" if names else " less"
        raise UserError(f"{source} has one class{only}; a classifier needs two: add images of another class.")
