"""The source "folder": a folder per class, with or without folders for train, val and test above or below them.

Which of these layouts a folder has is recognised from its structure: the same class folders under several top folders are splits of one
data set, whatever they are called exactly. Where the structure and the names do not agree, the user is asked by an error.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from imgclf import formatting
from imgclf.data import class_names, listing_index
from imgclf.data.columns import Coded, Texts
from imgclf.data.paths import Files, counts, existing, is_folder, printable, walk
from imgclf.data.readers import FileReader
from imgclf.data.sources.base import SPLIT_WORDS, Listing, Source
from imgclf.errors import UserError

_WORDS = SPLIT_WORDS | {"eval": ("eval", "evaluation")}  # test, or val beside a test
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words}
_JOINED = re.compile(rf"({'|'.join(sorted(_ROLE_OF, key=len, reverse=True))})(set|data|images?|imgs?|split)?")  # trainset, testdata
_MOST_SPLITS = 10  # more folders than that are no splits, unless one is named like one
_BESIDE_SPLITS = "beside the split folders"
_SHARED = 2  # class folders that two tops have in common before they look like splits


class Role(NamedTuple):
    """What a folder's name says of its use."""

    name: str  # train | val | test | eval | ""
    certain: bool  # the name says nothing else


class Layout(NamedTuple):
    """Where the class folders are, and what splits they are in."""

    parts: dict[str, str]  # the folder that class folders lie in ("" = the root) → its split ("" = none)
    split_below: bool = False  # the folder below a class folder names the split


class Folder(Source):
    """`config.data.path/CLASS/…`, or `…/train/CLASS/…` beside other splits, or `…/CLASS/train/…`; deeper folders belong to their class."""

    def check(self) -> None:
        """Raises a UserError where there is no such folder."""
        if not self.data.path:
            raise UserError("config.data.source='folder' needs config.data.path: train by folder:PATH, or give --set data.path=PATH.")
        root = existing(self.data.path, "data.path")
        if not is_folder(root):
            raise UserError(f"config.data.path={self.data.path!r} is a file: set config.data.source=csv to read a table, or name a folder.")

    def listing(self) -> Listing:
        """Lists the images with the names of their class folders.

        Raises:
          UserError: if there is no image, an image's class can't be told, or the layout is not certain.
        """
        root = existing(self.data.path, "data.path")
        kept = listing_index.place(root, self.data.layout)
        if self.data.verify != "first" and (known := listing_index.load(kept, root)) is not None:
            return known
        begun = listing_index.now_ns()
        files = walk(root)
        if not files.paths and not files.quarantine:
            others = f" (ignored: {counts(files.ignored)})" if files.ignored else ""
            raise UserError(f"{root} holds no image{others}: put a folder of images per class into it.")
        tree = _Tree(root, files)
        layout = _layout(tree, self.data.layout)
        listing = _listed(tree, layout)
        if len(listing.ids) >= listing_index.LEAST and files.visited_mtimes_ns:
            listing_index.save(kept, listing, files, begun)
        return listing


def split_role(name: str) -> Role:
    """Tells what a folder's name says: `Training` is train for certain; `seg_train` is, where the structure agrees."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip()).lower())
    found = {_ROLE_OF[match[1]] for word in words if (match := _JOINED.fullmatch(word))}
    if len(found) != 1:
        return Role("", False)
    return Role(found.pop(), name.strip().lower() in _ROLE_OF)


class _Tree:
    """The folders under the root, and how many images each holds, directly and in all."""

    def __init__(self, root: str, files: Files):
        self.root, self.files = root, files
        self.children: dict[str, list[str]] = defaultdict(list)
        for folder in files.folders:
            self.children[folder.rpartition("/")[0]].append(folder)
        self.loose: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        held = np.bincount(files.parents, minlength=len(files.visited)).tolist()
        bad = ((name.rpartition("/")[0], 1) for name, _, _ in files.quarantine)
        for folder, count in (*zip(files.visited, held, strict=True), *bad):
            if not count:
                continue
            self.loose[folder] += count
            parents = folder.split("/") if folder else []
            for depth in range(1, len(parents) + 1):
                self.total["/".join(parents[:depth])] += count
        self.tops = sorted(self.children[""])
        self.roles = {top: split_role(top) for top in self.tops}

    def class_folders(self, part: str) -> set[str]:
        """The names of the folders in `part`, as classes are named."""
        return {class_names.canonical(child.rpartition("/")[2]) for child in self.children[part]}

    def unwrapped(self, top: str) -> str:
        """The folder in `top` that holds the class folders: `seg_train/seg_train` where `seg_train` holds nothing but it."""
        part = top
        elsewhere = {name for other in self.tops if other != top and len(self.children[other]) > 1 for name in self.class_folders(other)}
        while self.roles[top].name and not self.loose[part] and len(self.children[part]) == 1:
            (child,) = self.children[part]
            name = child.rpartition("/")[2]
            if class_names.canonical(name) in elsewhere or self.loose[child] or len(self.children[child]) < 2:
                break
            part = child
        return part


def _layout(tree: _Tree, asked: str) -> Layout:
    """Decides between the readings of a folder.

    Raises:
      UserError: where structure and names do not agree, and `config.data.layout` does not say.
    """
    classes = Layout({"": ""})
    if asked == "classes":
        return classes
    inhabited = [top for top in tree.tops if tree.total[top]]
    if asked == "splits":
        return _as_splits(tree, [top for top in inhabited if tree.roles[top].name and tree.children[tree.unwrapped(top)]])
    if not tree.files.paths or not inhabited:
        return classes
    named = [top for top in inhabited if tree.roles[top].certain]
    if len(named) == len(inhabited):
        empty = [top for top in tree.tops if tree.roles[top].certain and top not in inhabited]
        if len(named) + len(empty) > 1 or tree.roles[named[0]].name == "train":
            return _as_splits(tree, named + empty)
    alike = _alike(tree, inhabited)
    if alike:
        inner = set.union(*(tree.class_folders(top) for top in alike))
        if alike == inhabited and all(split_role(name).certain for name in inner) and "train" in {split_role(name).name for name in inner}:
            return Layout({"": ""}, split_below=True)
        roles = {tree.roles[top].name for top in alike}
        if "" not in roles and "train" in roles and len(roles) > 1:
            return _as_splits(tree, [top for top in inhabited if top in alike or tree.roles[top].certain])
        if any(roles) or len(alike) <= _MOST_SPLITS:
            raise UserError(_question(tree, inhabited, alike))
    holders = [top for top in inhabited if tree.roles[top].name and len(tree.children[top]) >= _SHARED and not tree.loose[top]]
    if holders and len(inhabited) > 1 and not any(tree.children[top] for top in inhabited if top not in holders):
        raise UserError(_question(tree, inhabited, holders))
    return classes


def _alike(tree: _Tree, tops: list[str]) -> list[str]:
    """Those of the tops that share class folders, and hold nothing else, with another one."""
    folders = {top: tree.class_folders(part) for top in tops if not tree.loose[part := tree.unwrapped(top)] and tree.children[part]}

    def share(one: str, other: str) -> bool:
        common = len(folders[one] & folders[other])
        named = tree.roles[one].name and tree.roles[other].name
        return common >= (1 if named else _SHARED) and 2 * common >= min(len(folders[one]), len(folders[other]))

    return [top for top in folders if any(share(top, other) for other in folders if other != top)]


def _as_splits(tree: _Tree, tops: list[str]) -> Layout:
    roles = {top: tree.roles[top].name for top in tops}
    if not tops:
        raise UserError(
            f"{tree.root} has no folder that is a split by its name (its folders: {_names(tree.tops)}): name them train, val or test, or "
            "set config.data.layout='classes' if they are the classes."
        )
    later = "val" if "test" in roles.values() else "test"  # what eval stands for
    for top in sorted(tops):
        if not tree.children[top]:
            if tree.loose[top]:
                raise UserError(
                    f"{os.path.join(tree.root, top)} holds {tree.loose[top]} images but no class folders, so their labels are unknown: "
                    "sort them into a folder per class, or leave them out by config.data.layout='splits', and predict them later."
                )
            raise UserError(f"{os.path.join(tree.root, top)} holds no image: fill it, or remove it.")
    return Layout({tree.unwrapped(top): later if role == "eval" else role for top, role in roles.items()})


def _question(tree: _Tree, inhabited: list[str], alike: list[str]) -> str:
    """Asks which reading is meant."""
    below = sorted(set.union(*(tree.class_folders(tree.unwrapped(top)) for top in alike)))
    unnamed = [top for top in alike if not tree.roles[top].name]
    rename = f" after renaming {_names(unnamed)} to train, val or test" if unnamed else ""
    return (
        f"{tree.root} can be read in two ways: {_names(inhabited)} are the classes (config.data.layout='classes'), or {_names(alike)} are "
        f"splits of the classes {_names(below)} (config.data.layout='splits'{rename}). Which is it?"
    )


def _listed(tree: _Tree, layout: Layout) -> Listing:
    files, root = tree.files, tree.root
    class_folders = [child for part in layout.parts for child in tree.children[part]]
    names = {folder: class_names.canonical(folder.rpartition("/")[2]) for folder in class_folders}
    if not class_folders:
        raise UserError(
            f"{root} holds images ({len(files.paths)}) but no class folders: sort them into a folder per class, or list them in a "
            "CSV file with the columns path and label, and name that file instead (as a config: csv:FILE)."
        )
    if len(set(names.values())) == 1:
        raise UserError(_single_class(tree, class_folders))
    placed = [_place(folder, layout) for folder in files.visited]
    kept = np.array([place.out == "" for place in placed], bool)[files.parents] if len(files.paths) else np.zeros(0, bool)
    left_out = Counter[str]()
    for row in np.flatnonzero(~kept).tolist():
        out = placed[files.parents[row]].out
        files.quarantine.append((printable(files.paths[row]), "unlabeled", out))
        left_out[files.paths[row].split("/")[0] if out == _BESIDE_SPLITS else ""] += 1
    notes = [f"{formatting.count(count, 'image')} in {top} left out: beside the split folders." for top, count in left_out.items() if top]
    # Class folders may hold folders only, or nothing: classes without an image are found when all is verified.
    rows = np.flatnonzero(kept)
    paths = files.paths if kept.all() else [files.paths[row] for row in rows.tolist()]
    texts, parents = Texts.of(paths), files.parents[rows]
    labels = [printable(names[place.class_folder]) if place.class_folder in names else "" for place in placed]
    return Listing(
        source=root,
        ids=texts if texts.is_ascii else Texts.of([printable(file) for file in paths]),
        reader=FileReader(root, texts, files.sizes[rows]),
        sizes=files.sizes[rows],
        mtimes_ns=files.mtimes_ns[rows],
        classes=_of_folders(labels, parents),
        class_names=tuple(printable(name) for name in sorted(set(names.values()))),
        splits=_of_folders([place.split for place in placed], parents),
        quarantine=files.quarantine,
        ignored=files.ignored,
        notes=[*_told(layout), *notes, *files.notes, *class_names.joined(folder.rpartition("/")[2] for folder in class_folders)],
        cached_as=root,
    )


class _Place(NamedTuple):
    """What the images of one folder are."""

    class_folder: str  # the folder that names their class
    split: str
    out: str  # why they are left out; "" = they are not


def _place(folder: str, layout: Layout) -> _Place:
    part = next((part for part in layout.parts if f"{folder}/".startswith(f"{part}/" if part else "")), None)
    if part is None:
        return _Place("", "", _BESIDE_SPLITS)
    inner = folder[len(part) + 1 if part else 0 :].split("/")
    split = layout.parts[part]
    if layout.split_below:
        split = split_role(inner[1]).name if len(inner) > 1 else "?"
        split = "test" if split == "eval" else split
    if not inner[0] or split == "?":
        return _Place("", "", "beside the class folders, not in one")
    return _Place(f"{part}/{inner[0]}" if part else inner[0], split, "")


def _of_folders(values: list[str], parents: np.ndarray) -> Coded:
    """The value of each file's folder (`parents`, int32 [n]), as codes."""
    coded = Coded.of(values)
    return Coded(coded.codes[parents], coded.names)


def _told(layout: Layout) -> list[str]:
    """How the splits were told, where that is not plain from the names."""
    if layout.split_below:
        return ["The folders below the class folders were taken for splits."]
    if all(part.lower() in ("train", "val", "valid", "validation", "test") for part in layout.parts if part):
        return []
    return [f"Folders taken for splits: {_mapping(layout.parts)}."]


def _mapping(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{part} is {split}" for part, split in parts.items())


def _single_class(tree: _Tree, class_folders: list[str]) -> str:
    only = class_folders[0]
    inner = tree.children[only]
    hint = ""
    if len(class_folders) == 1 and len(inner) > 1:
        hint = f" (or did you mean {os.path.join(tree.root, only)}, which holds {len(inner)} folders?)"
    return f"{tree.root} holds one class only, {os.path.basename(only)!r}; a classifier needs two: add a folder for another class{hint}."


def _names(folders: Iterable[str], limit: int = 6) -> str:
    shown = list(folders)
    return ", ".join(map(repr, shown[:limit])) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
