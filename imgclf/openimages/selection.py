"""Which photos and boxes belong to the asked classes, decided before any photo is fetched.

A selection is a folder: `selection.json` (what was asked), `boxes.parquet` (a row per box; where labels of whole images were asked for, a
row per photo, whose box is all of it) and `images.parquet` (a row per photo: URLs, licence, author, title, size, MD5, rotation).
"""

import contextlib
import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgclf import files
from imgclf.errors import UserError, nearest
from imgclf.openimages import releases
from imgclf.openimages.attribution import licence_name
from imgclf.openimages.classes import Classes, UnknownClassError, load_all_classes, load_classes
from imgclf.openimages.metadata import Metadata

ID = re.compile(r"[0-9a-f]{16}")
_BOX_NAMES = {"XMin": "x_min", "XMax": "x_max", "YMin": "y_min", "YMax": "y_max"}
FLAG_NAMES = {
    "occluded": "IsOccluded", "truncated": "IsTruncated", "group_of": "IsGroupOf", "depiction": "IsDepiction", "inside": "IsInside",
}  # fmt: skip
_IMAGE_NAMES = {
    "ImageID": "image_id", "OriginalURL": "original_url", "OriginalLandingURL": "landing_url", "License": "licence",
    "AuthorProfileURL": "author_url", "Author": "author", "Title": "title", "OriginalSize": "original_size", "OriginalMD5": "original_md5",
    "Thumbnail300KURL": "thumbnail_url", "Rotation": "rotation",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Filters:
    """What a box must be like.

    Attributes:
      flags: of occluded, truncated, group_of, depiction, inside: True = only these, False = none of these; absent = any.
      keep_unknown: whether a box whose flag is unknown (-1) passes a filter on that flag.
      min_size: least width and height of a box, as a share of the photo's.
      licences: names such as "CC BY 2.0"; () = any.
      per_class: at most so many boxes (or photos) of each class, drawn with `seed`; 0 = all.
      seed: decides which boxes `per_class` draws.
    """

    flags: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    keep_unknown: bool = True
    min_size: float = 0.0
    licences: Sequence[str] = ()
    per_class: int = 0
    seed: int = 0

    def check(self) -> None:
        """Raises a UserError for a value that can't be meant."""
        for name in self.flags:
            if name not in FLAG_NAMES:
                raise UserError(f"Boxes have no flag {name!r}; {nearest(name, FLAG_NAMES)}")
        if not 0 <= self.min_size <= 1 or self.per_class < 0:
            raise UserError("--min-size must lie within 0 and 1, and --per-class be at least 0.")


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
      boxes: a row per box: image_id, split, class_name, label, label_name, number (of the box in its photo), x_min, x_max, y_min, y_max (in
        shares of the photo as it is stored), the five flags, source.
      images: a row per photo: image_id, split, original_url, landing_url, licence, author_url, author, title (entities decoded),
        original_size (bytes; 0 = unknown), original_md5 (base64), thumbnail_url, rotation (degrees counter-clockwise).
      notes: sentences on what was left out, and why.
      request: what was asked, as in selection.json.
    """

    boxes: pd.DataFrame
    images: pd.DataFrame
    notes: tuple[str, ...]
    request: dict[str, Any]

    def counts(self) -> pd.DataFrame:
        """Counts boxes and photos: columns class_name, split, boxes, photos."""
        grouped = self.boxes.groupby(["class_name", "split"], sort=True)
        return grouped["image_id"].agg(boxes="size", photos="nunique").reset_index()

    def save(self, folder: Path) -> None:
        """Writes the selection into `folder`; the files take the places of older ones once all of them are written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                about, images, boxes = (
                    stack.enter_context(files.replacing(folder / name)) for name in ("selection.json", "images.parquet", "boxes.parquet")
                )
                self.boxes.to_parquet(boxes, index=False, compression="zstd")
                self.images.to_parquet(images, index=False, compression="zstd")
                about.write_text(json.dumps({**self.request, "notes": self.notes}, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{folder} can't be written ({error.strerror or error}): make room, or choose another folder.") from None


def load_selection(folder: Path) -> Selection:
    """Reads what `Selection.save` wrote.

    Raises:
      UserError: if there is no selection in the folder, or its ids are none.
    """
    try:
        boxes, images = (pd.read_parquet(folder / f"{name}.parquet") for name in ("boxes", "images"))
        request = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f'{folder} holds no selection: make one with `imgclf openimages select "Hamburger" --out {folder}`.') from None
    except (OSError, ValueError) as error:
        raise UserError(f"The selection in {folder} can't be read ({error}): select again with --out {folder}.") from None
    check_ids(images["image_id"], str(folder / "images.parquet"))
    check_ids(boxes["image_id"], str(folder / "boxes.parquet"))
    return Selection(boxes, images, tuple(request.pop("notes", ())), request)


def select(
    names: Sequence[str],
    metadata: Metadata,
    *,
    splits: Sequence[str] = releases.SPLITS,
    filters: Filters | None = None,
    image_labels: bool = False,
    negatives: bool = False,
) -> Selection:
    """Finds the boxes of classes, or whole photos by their human-verified labels.

    A class includes its descendants; where a class and one of its ancestors are both asked for, the more specific one gets the box.

    Args:
      names: of classes, any case, singular or plural; or labels such as "/m/0cdn1".
      metadata: of the version, from where it is to be fetched.
      splits: of train, validation and test.
      filters: what a box must be like.
      image_labels: finds whole photos by their labels, instead of boxes; a photo with several of the classes is left out.
      negatives: with image_labels, adds a class of photos that people have verified to show none of the classes.

    Raises:
      UserError: for an unknown class, one without boxes, or when nothing matches.
    """
    filters = filters or Filters()
    filters.check()
    splits = list(dict.fromkeys(releases.check_split(split) for split in splits))
    if not names or not splits:
        raise UserError('Name at least one class and one split, such as `imgclf openimages select "Hamburger" --split train`.')
    if negatives and not image_labels:
        raise UserError("Only labels of whole images say what a photo does not show: add --image-labels to --negatives.")
    classes, asked = _asked(names, metadata, image_labels)
    boxable = set(asked) <= set(load_classes(metadata).names)
    owner, torn = classes.assign(asked)
    notes = [
        f"{classes.names[label]} is under {' and '.join(classes.names[one] for one in claims)} alike, so that it is left out; ask for it "
        "by name to give it a class of its own."
        for label, claims in torn.items()
    ]
    parts = []
    for split in splits:
        if image_labels:
            labels = metadata.labels(split, set(owner).union(*map(classes.ancestors, asked)), boxable=boxable).to_pandas()
            parts.append(_photos(labels, split, classes, owner, asked if negatives else (), notes))
        else:
            parts.append(_boxes(metadata.boxes(split, owner).to_pandas(), split, classes, owner, notes))
    found = pd.concat(parts, ignore_index=True)
    if found.empty:
        raise _nothing_found(metadata, [classes.names[label] for label in asked], splits, image_labels)
    check_ids(found["image_id"], f"the tables of {metadata.base_url}")
    kept = _filtered(found, filters)
    images = _images(metadata, kept, boxable or not image_labels)
    kept, images = _licensed(kept, images, filters.licences, notes)
    kept = _quota(kept, filters)
    absent = [classes.names[label] for label in asked if classes.names[label] not in set(kept["class_name"])]
    if absent:
        notes.append(f"Nothing of {', '.join(map(repr, absent))} is left: try other splits, or fewer filters.")
    images = images[images["image_id"].isin(set(kept["image_id"]))].reset_index(drop=True)
    request = {
        "classes": [classes.names[label] for label in asked],
        "labels": list(asked),
        "version": metadata.version,
        "base_url": metadata.base_url,
        "splits": splits,
        "image_labels": image_labels,
        "negatives": negatives,
        "filters": dataclasses.asdict(filters),
    }
    return Selection(kept.reset_index(drop=True), images, tuple(notes), request)


def _nothing_found(metadata: Metadata, names: Sequence[str], splits: Sequence[str], image_labels: bool) -> UserError:
    shown = ", ".join(map(repr, names))
    if image_labels:
        return UserError(f"No photo of {', '.join(splits)} has a human-verified label {shown}; try other splits or classes.")
    hint = "a class may have image-level labels only: try --image-labels, or other splits."
    return UserError(f"{metadata.version} has no box of {shown} in {', '.join(splits)}; {hint}")


def check_ids(ids: pd.Series, where: str) -> None:
    """Raises a UserError unless all ids are 16 hexadecimal digits: they become names of files."""
    wrong = ids[~ids.astype(str).str.fullmatch(ID.pattern)]
    if len(wrong):
        raise UserError(f"{where}: {wrong.iloc[0]!r} is no ImageID (16 hexadecimal digits): fetch or select anew.")


def _asked(names: Sequence[str], metadata: Metadata, image_labels: bool) -> tuple[Classes, dict[str, None]]:
    """Returns the classes to look among, and the labels that the names stand for."""
    classes = load_classes(metadata)
    try:
        return classes, dict.fromkeys(classes.find(name) for name in names)
    except UnknownClassError as error:
        wider = load_all_classes(metadata)
        try:
            asked = dict.fromkeys(wider.find(name) for name in names)
        except UnknownClassError:
            raise error from None
        if not image_labels:
            known = wider.names[wider.find(error.name)]
            raise UserError(
                f"{known!r} has no boxes in Open Images, only image-level labels: add --image-labels for whole photos."
            ) from None
        return wider, asked


def _boxes(table: pd.DataFrame, split: str, classes: Classes, owner: dict[str, str], notes: list[str]) -> pd.DataFrame:
    table = table.rename(columns=_BOX_NAMES | {flag: name for name, flag in FLAG_NAMES.items()})
    table = table.rename(columns={"ImageID": "image_id", "LabelName": "label", "Source": "source"})
    coordinates = table[list(_BOX_NAMES.values())]
    sound = coordinates.notna().all(axis=1) & (table["x_min"] < table["x_max"]) & (table["y_min"] < table["y_max"])
    if not sound.all():
        notes.append(f"{int((~sound).sum()):,} boxes of {split} have no area and are left out.")
    table = table[sound]
    # Numbered by place, so that the order of the file's rows does not matter.
    table = table.sort_values(["image_id", "x_min", "y_min", "x_max", "y_max", "label"], kind="stable", ignore_index=True)
    return _named(table, split, classes, owner)


def _photos(
    table: pd.DataFrame, split: str, classes: Classes, owner: dict[str, str], absent_from: Collection[str], notes: list[str]
) -> pd.DataFrame:
    """Returns photos that show one of the classes and, where `absent_from` names any, photos verified to show none of those."""
    there = table[(table["Confidence"] == 1) & table["LabelName"].isin(list(owner))]
    shown = there.assign(asked=there["LabelName"].map(owner)).drop_duplicates(["ImageID", "asked"])
    twice = shown["ImageID"].duplicated(keep=False)
    if twice.any():
        notes.append(f"{shown.loc[twice, 'ImageID'].nunique():,} photos of {split} show several of the classes and are left out.")
    single = shown[~twice]
    rows = pd.DataFrame({"image_id": single["ImageID"], "label": single["LabelName"], "source": single["Source"]})
    rows = _named(rows, split, classes, owner)
    if absent_from:
        absent = table[table["Confidence"] == 0]
        # What shows no food shows no hamburger.
        lacks = [set(absent.loc[absent["LabelName"].isin(list({label} | classes.ancestors(label))), "ImageID"]) for label in absent_from]
        clear = sorted(set.intersection(*lacks) - set(shown["ImageID"]))
        name = f"not {classes.names[next(iter(absent_from))]}" if len(absent_from) == 1 else "none of these"
        none = pd.DataFrame({"image_id": clear, "label": "", "source": "verification"})
        rows = pd.concat([rows, none.assign(split=split, class_name=name, label_name="", number=0)], ignore_index=True)
    whole = {"x_min": 0.0, "x_max": 1.0, "y_min": 0.0, "y_max": 1.0}
    return rows.assign(**whole, **dict.fromkeys(FLAG_NAMES, np.int8(-1)))


def _named(table: pd.DataFrame, split: str, classes: Classes, owner: dict[str, str]) -> pd.DataFrame:
    class_names = {label: classes.names[one] for label, one in owner.items()}
    return table.assign(
        split=split,
        class_name=table["label"].map(class_names),
        label_name=table["label"].map(classes.names),
        number=table.groupby("image_id").cumcount(),
    )


def _filtered(found: pd.DataFrame, filters: Filters) -> pd.DataFrame:
    """Applies the filters one after the other; the error names the one that leaves nothing."""
    steps = []
    for name, wanted in filters.flags.items():
        values = found[name]
        steps.append((f"{name}={'yes' if wanted else 'no'}", (values == int(wanted)) | ((values == -1) & filters.keep_unknown)))
    if filters.min_size > 0:
        large = (found["x_max"] - found["x_min"] >= filters.min_size) & (found["y_max"] - found["y_min"] >= filters.min_size)
        steps.append((f"a size of at least {filters.min_size:g}", large))
    good = np.ones(len(found), bool)
    for name, passes in steps:
        good &= passes.to_numpy()
        if not good.any():
            raise UserError(f"{len(found):,} boxes were found, but none passes all filters: {name} leaves none; ask for less.")
    return found[good]


def _images(metadata: Metadata, boxes: pd.DataFrame, boxable: bool) -> pd.DataFrame:
    tables = []
    for split, rows in boxes.groupby("split", sort=False):
        table = metadata.images(str(split), set(rows["image_id"]), boxable=boxable).to_pandas()
        tables.append(table[list(_IMAGE_NAMES)].rename(columns=_IMAGE_NAMES).assign(split=split))
    images = pd.concat(tables, ignore_index=True).drop_duplicates("image_id").sort_values("image_id", ignore_index=True)
    for name in ("author", "title"):
        images[name] = images[name].fillna("").map(html.unescape)
    images["original_size"] = images["original_size"].fillna(0).astype(np.int64)
    images["rotation"] = images["rotation"].fillna(0.0)
    return images


def _licensed(boxes: pd.DataFrame, images: pd.DataFrame, licences: Sequence[str], notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leaves out photos of other licences, and those that the image list lacks, since their licence and author are not known."""
    unknown = ~boxes["image_id"].isin(set(images["image_id"]))
    if unknown.any():
        notes.append(f"{boxes.loc[unknown, 'image_id'].nunique():,} photos are not in the image list (no known licence): left out.")
    if licences:
        names = images["licence"].map(licence_name)
        wanted = {licence.lower() for licence in licences}
        for licence in licences:
            if licence.lower() not in {name.lower() for name in names}:
                raise UserError(f"No photo found has the licence {licence!r}; {nearest(licence, set(names))}")
        images = images[names.str.lower().isin(wanted)]
    kept = boxes[boxes["image_id"].isin(set(images["image_id"]))]
    if kept.empty:
        raise UserError(f"None of the {boxes['image_id'].nunique():,} photos found is in the image list: check the base URL.")
    return kept, images


def _quota(boxes: pd.DataFrame, filters: Filters) -> pd.DataFrame:
    """Keeps at most `per_class` of each class, in the order of a hash: the same ones whatever else is selected."""
    if filters.per_class <= 0:
        return boxes
    names = boxes["image_id"] + boxes[["x_min", "y_min", "x_max"]].map(" {:.6f}".format).sum(axis=1)
    keys = [hashlib.blake2b(f"{filters.seed} {name}".encode(), digest_size=8).hexdigest() for name in names]
    order = boxes.assign(_key=keys).sort_values(["_key", "image_id", "number"])
    chosen = order.groupby("class_name", sort=False).head(filters.per_class).index
    return boxes.loc[boxes.index.isin(chosen)]
