"""The source "csv": a table of paths and labels, .csv, .tsv or .parquet, with a split, a group and a scene per image if it likes."""

import os
from collections import Counter
from typing import NamedTuple

import numpy as np

from imgclf.data import class_names, lists
from imgclf.data.paths import existing, is_folder, printable
from imgclf.data.readers import FileReader
from imgclf.data.sources.base import SPLIT_WORDS, Listing, Source
from imgclf.errors import UserError

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}


class _Columns(NamedTuple):
    """What the table says, a text per row."""

    paths: list[str]
    labels: list[str]
    splits: list[str]
    groups: list[str]
    scenes: list[str] | None  # None = there is no such column


class Csv(Source):
    """The images named in `config.data.path`, with the columns of `config.data.columns`."""

    def check(self) -> None:
        """Raises a UserError where there is no such file."""
        if not self.data.path:
            raise UserError("config.data.source='csv' needs config.data.path: train by csv:PATH, or give --set data.path=PATH.")
        file = existing(self.data.path, "data.path")
        if is_folder(file):
            raise UserError(
                f"config.data.path={self.data.path!r} is a folder: set config.data.source=folder, or name a CSV or parquet file."
            )
        if self.data.root:
            existing(self.data.root, "data.root")

    def listing(self) -> Listing:
        """Lists the images.

        Paths are relative to `data.root`, else to the file's own folder; absolute ones and URLs stay. A path that is no file is taken for
        a stem (see `lists.locate`). Labels are strings: 1 is "1", and NA is a class. A row that repeats another is dropped and counted in
        `ignored`.

        Raises:
          UserError: naming the rows, for a missing column, path or label, an unknown split, and one image under two labels, splits,
            groups or scenes.
        """
        file = existing(self.data.path, "data.path")
        root = existing(self.data.root, "data.root") if self.data.root else lists.folder_of(file)
        listed = lists.read(file)
        columns = self._columns(listed, root)
        located = lists.locate(root, columns.paths)
        quarantine = [(printable(path), *reason) for path, reason in zip(located.paths, located.reasons, strict=True) if reason[0]]
        rows, repeated = self._distinct(listed, located, columns)
        if not len(rows):
            raise lists.none_found(listed, root, located, "config.data.root")
        paths = [located.paths[row] for row in rows]
        ignored = Counter({"rows that repeat another": repeated, "blank rows": listed.blank})
        return Listing(
            source=root,
            ids=[printable(path) for path in paths],
            reader=FileReader(root, paths, located.sizes[rows]),
            sizes=located.sizes[rows],
            mtimes_ns=located.mtimes_ns[rows],
            classes=[class_names.canonical(columns.labels[row]) for row in rows],
            # also those whose images are all missing: they are an error, not left out
            class_names=tuple(sorted(set(map(class_names.canonical, columns.labels)))),
            splits=[columns.splits[row] for row in rows],
            groups=[columns.groups[row] for row in rows],
            scenes=None if columns.scenes is None else [columns.scenes[row] for row in rows],
            quarantine=quarantine,
            ignored=+ignored,
            notes=[*listed.notes, *class_names.joined(columns.labels)],
            cached_as=f"{file}\n{root}",
        )

    def _columns(self, listed: lists.ImageList, root: str) -> _Columns:
        names = self.data.columns
        lists.check_header(listed, root, (names.path, names.label))
        paths, labels = (
            listed.column(name, f"config.data.columns.{field}") for field, name in (("path", names.path), ("label", names.label))
        )
        for values, name, field in ((paths, names.path, "path"), (labels, names.label, "label")):
            missing = [row for row, value in enumerate(values) if not value]
            if missing:
                raise UserError(f"{listed.file}: no {field} in {listed.rows(missing)}; fill column {name!r}, or leave these rows out.")
        groups = lists.text(listed.table[names.group]).tolist() if names.group in listed.table else [""] * len(paths)
        scenes = lists.text(listed.table[names.scene]).tolist() if names.scene in listed.table else None
        from imgclf.data.scenes import TABLE  # and SciPy's graphs: after the mistakes in a path

        if scenes is None and os.path.basename(listed.file) == TABLE:
            raise UserError(
                f"{listed.file} has no column {names.scene!r}, by which the shots of a scene are told: put it back (`imgclf data scenes` "
                "writes it), name it in config.data.columns.scene, or give the table another name if it is to say nothing of scenes."
            )
        return _Columns(paths, class_names.numbers(labels), _splits(listed, names.split), groups, scenes)

    def _distinct(self, listed: lists.ImageList, located: lists.Located, columns: _Columns) -> tuple[np.ndarray, int]:
        """The rows that were found, one per image, and the number of those that repeat another."""
        names, kept, repeated = self.data.columns, dict[str, int](), 0
        for row, path in enumerate(located.paths):
            if located.reasons[row][0]:
                continue
            other = kept.setdefault(path, row)
            if other == row:
                continue
            said = ((columns.labels, names.label), (columns.splits, names.split), (columns.groups, names.group))
            for values, what in (*said, (columns.scenes or [""] * len(located.paths), names.scene)):
                if values[other] != values[row]:
                    raise UserError(
                        f"{listed.file}: {listed.rows([other, row])} give {printable(path)} two values of {what!r}, "
                        f"{values[other]!r} and {values[row]!r}: keep one row per image."
                    )
            repeated += 1
        return np.fromiter(kept.values(), np.int64, len(kept)), repeated


def _splits(listed: lists.ImageList, name: str) -> list[str]:
    if name not in listed.table:
        return [""] * len(listed.table)
    given = lists.text(listed.table[name]).str.lower()
    if (given == "").all():
        return given.tolist()
    wrong = np.flatnonzero(~given.isin(list(_SPLIT_OF)))
    if len(wrong):
        raise UserError(
            f"{listed.file}: column {name!r} has {given.iloc[wrong[0]]!r} in {listed.rows(wrong)}; write train, val or test in every row, "
            "or leave the column out."
        )
    return given.map(_SPLIT_OF).tolist()
