"""Corrected labels that stand beside the data, so that the source itself is never written to."""

import os

import numpy as np
import pandas as pd

from imgclf.data import class_names as spelling
from imgclf.data.paths import existing
from imgclf.errors import UserError, nearest

COLUMNS = ("id", "label")  # that a patch must have; `given`, where it is there, must be the label that is put right


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Reads a patch: all columns as text, those of `COLUMNS` among them.

    Raises:
      UserError: if there is no such file, or it is no such table.
    """
    file = existing(os.fspath(path), "data.label_patch")
    try:
        patch = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")  # a class may be called NA
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read as a patch of labels ({error}): check that it is a UTF-8 CSV.") from error
    missing = [name for name in COLUMNS if name not in patch]
    if missing:
        raise UserError(f"{file} has no column {missing[0]!r}: a patch of labels needs the columns id and label.")
    return patch.assign(label=patch["label"].map(spelling.canonical))


def decided(path: str) -> pd.DataFrame:
    """The rows of a patch that have a label: what a person has corrected, or confirmed. None, where `path` is ""."""
    if not path:
        return pd.DataFrame(columns=list(COLUMNS), dtype=str)
    patch = read(path)
    return patch[patch["label"] != ""]


def apply(table: pd.DataFrame, class_names: tuple[str, ...], path: str) -> pd.DataFrame:
    """Puts the labels of a patch in place of the source's.

    Args:
      table: the example table, with the source's labels.
      class_names: label indexes it.
      path: `config.data.label_patch`, a CSV with the columns `id` and `label` (a class name). A row with an empty label says nothing, so
        that a patch nobody has edited changes nothing. A column `given` is compared with the source's labels; others are not read.

    Returns:
      The table with `class_name` and `label` corrected, and the source's names in a new column `original_class`.

    Raises:
      UserError: naming the row, for a file that is no such table, an unknown id or class, two labels for one id, a `given` label that the
        source doesn't have, and a class that would be left without an image.
    """
    file, patch = existing(path, "data.label_patch"), read(path)
    index = {name: label for label, name in enumerate(class_names)}
    row_of = {example: row for row, example in enumerate(table["id"])}
    before = table["class_name"].to_numpy(object)
    after, written = before.copy(), dict[str, str]()
    for line, row in enumerate(patch.to_dict("records"), start=2):
        example, label, place = row["id"], row["label"], f"{file}, row {line}"
        if not label:
            continue
        if example not in row_of:
            raise UserError(f"{place}: there is no image {example!r} in the data; {nearest(example, row_of)}")
        if label not in index:
            raise UserError(f"{place}: {label!r} is no class of the data; {nearest(label, index)}")
        if written.setdefault(example, label) != label:
            raise UserError(f"{place}: {example!r} has two labels, {written[example]!r} and {label!r}: keep one.")
        given = row.get("given", "")
        if given and before[row_of[example]] not in (given, label):
            raise UserError(
                f"{place}: {example!r} was {given!r} when the patch was made and is {before[row_of[example]]!r} now: check it, "
                "and take the row out or correct its column given."
            )
        after[row_of[example]] = label
    gone = sorted(set(before) - set(after))
    if gone:
        raise UserError(f"{file} leaves class {gone[0]!r} without an image: keep one, or take the class out of the data.")
    return table.assign(
        class_name=pd.Series(after, dtype="str"),
        label=np.array([index[name] for name in after], np.int32),
        original_class=pd.Series(before, dtype="str"),
    )
