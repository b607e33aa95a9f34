"""The sources "csv", "tfds" and "digits": what each says of its images before any is decoded."""

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from imgclf.config.fields import DataConfig
from imgclf.data.folders import SPLIT_NAMES, Files, Listing, existing, printable, walk
from imgclf.data.readers import ArrayReader, FileReader, TfdsReader
from imgclf.errors import UserError, nearest


def list_csv(data: DataConfig) -> Listing:
    """Lists the images named in a .csv, .tsv (also .gz) or .parquet file, with the columns of `data.columns`.

    Paths are relative to `data.root`, else to the file's own folder; absolute ones stay. A path that is no file is taken for a stem (a path
    without extension, or a bare file name without extension) and looked for among the images under the root. Labels are strings: 1 is "1",
    and NA is a class. A row that repeats another is dropped and counted in `ignored`.

    Raises:
      UserError: naming the rows, for a missing column, path or label, an unknown split, and one image under two labels, splits or groups.
    """
    file = existing(data.path, "data.path")
    if os.path.isdir(file):
        raise UserError(f"config.data.path={data.path!r} is a folder: set config.data.source=folder, or name a CSV or parquet file.")
    root = existing(data.root, "data.root") if data.root else os.path.dirname(file)
    table, first = read_table(file)
    if not len(table):
        raise UserError(f"{file} has no rows: list an image and its label per row.")
    names = data.columns
    paths = _column(table, names.path, "path", file, first)
    labels = _column(table, names.label, "label", file, first)
    splits = _splits(table, names.split, file, first)
    groups = _text(table[names.group]).to_list() if names.group in table else [""] * len(table)

    found, sizes, mtimes, reasons = _find(root, paths)
    quarantine, ignored = [], Counter()
    kept: dict[str, int] = {}
    for row, path in enumerate(found):
        if reasons[row]:
            quarantine.append((printable(path), *reasons[row]))
        elif path not in kept:
            kept[path] = row
        else:
            other = kept[path]
            for values, what in ((labels, names.label), (splits, names.split), (groups, names.group)):
                if values[other] != values[row]:
                    raise UserError(
                        f"{file}: {_rows([other + first, row + first])} give {printable(path)} two values of {what!r}, "
                        f"{values[other]!r} and {values[row]!r}: keep one row per image."
                    )
            ignored["rows that repeat another"] += 1
    if not kept:
        raise UserError(
            f"None of the {len(table)} images in {file} is there; the first was looked for as {os.path.join(root, found[0])}: set "
            "config.data.root to the folder that the paths are relative to."
        )
    rows = np.fromiter(kept.values(), np.int64, len(kept))
    return Listing(
        source=root,
        ids=[printable(path) for path in kept],
        reader=FileReader(root, list(kept), sizes[rows], data.max_pixels),
        sizes=sizes[rows],
        mtimes_ns=mtimes[rows],
        classes=[labels[row] for row in rows],
        class_names=tuple(sorted(set(labels))),  # also those whose images are all missing: they are an error, not left out
        splits=[splits[row] for row in rows],
        groups=[groups[row] for row in rows],
        quarantine=quarantine,
        ignored=ignored,
        cached_as=f"{file}\n{root}",
    )


def list_digits() -> Listing:
    """Lists scikit-learn's 1,797 scans of handwritten digits, 8x8 (UCI "Optical Recognition of Handwritten Digits", test part)."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    arrays = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    count = len(arrays)
    return Listing(
        source="digits",
        ids=[f"digits/{row:04d}" for row in range(count)],
        reader=ArrayReader(arrays),
        sizes=np.zeros(count, np.int64),
        mtimes_ns=np.zeros(count, np.int64),
        classes=[str(label) for label in digits.target],
        class_names=tuple("0123456789"),
        splits=[""] * count,
        groups=[""] * count,
        quarantine=[],
        ignored=Counter(),
        cached_as="",
    )


def list_tfds(data: DataConfig) -> Listing:
    """Lists the records of `tfds.data_source` (ArrayRecord files, no tensorflow); TFDS prepares the data set where it is not there yet.

    An id is the record's split, file and place in it, so it does not depend on how splits are sliced.

    Raises:
      UserError: if TFDS does not have the data set, or it is no classification of images, or splits overlap.
    """
    import tensorflow_datasets as tfds  # slow to import
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if not data.tfds.name:
        raise UserError("config.data.tfds.name is empty: set it to a TFDS data set, such as 'beans'.")
    folder = os.path.abspath(os.path.expanduser(data.tfds.data_dir)) if data.tfds.data_dir else None
    wanted = {split: spec for split in ("train", "val", "test") if (spec := data.tfds[split])}
    if not wanted:
        raise UserError("config.data.tfds names no split: set config.data.tfds.train and config.data.tfds.test.")
    try:
        # Prepares the data set where it is not there yet, and checks the splits' names.
        info = tfds.data_source(data.tfds.name, split=list(wanted.values()), data_dir=folder)[0].dataset_info
        image_key, label_key = _tfds_keys(info, tfds.features)
    except DatasetNotFoundError as error:
        place = f"in {folder or 'its default folder'}; {nearest(data.tfds.name, tfds.list_builders(with_community_datasets=False))}"
        raise UserError(f"config.data.tfds.name={data.tfds.name!r}: TFDS finds no such data set {place}") from error
    except UserError:
        raise
    except Exception as error:  # of downloads, disks and each data set's own code
        text = str(error).strip().splitlines()
        raise UserError(
            f"TFDS can't give {data.tfds.name!r} ({type(error).__name__}: {text[0] if text else ''}): check config.data.tfds, or prepare "
            f'it first with tfds.data_source("{data.tfds.name}").'
        ) from error
    ids, sizes, mtimes, splits = [], [], [], []
    for split, spec in wanted.items():
        for part in info.splits[spec].file_instructions:
            status = os.stat(part.filename)
            shard = re.sub(r"\.array_record", "", os.path.basename(part.filename).removeprefix(f"{info.name}-"))
            take = part.examples_in_shard - part.skip if part.take == -1 else part.take
            ids += [f"{shard}/{place}" for place in range(part.skip, part.skip + take)]
            sizes += [status.st_size] * take
            mtimes += [status.st_mtime_ns] * take
            splits += [split] * take
    if len(set(ids)) < len(ids):
        raise UserError(
            f"The TFDS splits {list(wanted.values())} overlap: name parts without common records, such as train[:80%] and train[80%:]."
        )
    return Listing(
        source=f"tfds:{info.full_name}",
        ids=ids,
        reader=TfdsReader(str(info.data_dir), tuple(wanted.values()), image_key, label_key, len(ids), data.max_pixels),
        sizes=np.array(sizes, np.int64),
        mtimes_ns=np.array(mtimes, np.int64),
        classes=None,
        class_names=tuple(info.features[label_key].names),
        splits=splits,
        groups=[""] * len(ids),
        quarantine=[],
        ignored=Counter(),
        cached_as=str(info.data_dir),
    )


def _tfds_keys(info, features) -> tuple[str, str]:
    """The names of the image's and the label's feature: the supervised pair, else the only ones of their kind."""
    if info.supervised_keys and len(info.supervised_keys) == 2 and all(isinstance(key, str) for key in info.supervised_keys):
        pair = info.supervised_keys
        if isinstance(info.features[pair[1]], features.ClassLabel):
            return pair
    image_keys = [key for key, feature in info.features.items() if isinstance(feature, features.Image)]
    label_keys = [key for key, feature in info.features.items() if isinstance(feature, features.ClassLabel)]
    if len(image_keys) != 1 or len(label_keys) != 1:
        raise UserError(
            f"The TFDS data set {info.name!r} is no classification of images: its features are {sorted(info.features)}; choose one with "
            "one image and one class label."
        )
    return image_keys[0], label_keys[0]


def read_table(file: str) -> tuple[pd.DataFrame, int]:
    """Reads a .csv, .tsv (both also .gz; every cell as text) or .parquet file.

    Returns:
      The table, and the number people give its first row: 2 in a text file, whose header is row 1; 1 in parquet.

    Raises:
      UserError: if it can't be read.
    """
    name = file.lower().removesuffix(".gz")
    try:
        if name.endswith((".parquet", ".pq")):
            return pd.read_parquet(file), 1
        if name.endswith((".csv", ".tsv")):
            # Everything as text: 01 is not 1, and a class may be called NA.
            separator = "\t" if name.endswith(".tsv") else ","
            return pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False), 2
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file} can't be read as a table ({error}): check that it is a UTF-8 CSV or a parquet file.") from error
    raise UserError(f"{file} is no table that can be read: name a .csv, .tsv or .parquet file.")


def _text(values: pd.Series) -> pd.Series:
    """Strings without outer blanks; "" where nothing stands; 1.0 as 1."""
    if pd.api.types.is_float_dtype(values):
        present = values.dropna()
        if (present == present.round()).all():
            values = values.astype("Int64")
    return values.astype(object).where(values.notna(), "").astype(str).str.strip()


def _column(table: pd.DataFrame, name: str, field: str, file: str, first: int) -> list[str]:
    if name not in table:
        raise UserError(
            f"{file} has no column {name!r}: set config.data.columns.{field} to one of its columns ({', '.join(map(repr, table.columns))})."
        )
    values = _text(table[name])
    missing = np.flatnonzero(values == "")
    if len(missing):
        raise UserError(f"{file}: no {field} in {_rows(missing + first)}; fill column {name!r}, or leave these rows out.")
    return values.to_list()


def _splits(table: pd.DataFrame, name: str, file: str, first: int) -> list[str]:
    if name not in table:
        return [""] * len(table)
    given = _text(table[name]).str.lower()
    if (given == "").all():
        return given.to_list()
    wrong = np.flatnonzero(~given.isin(list(SPLIT_NAMES)))
    if len(wrong):
        raise UserError(
            f"{file}: column {name!r} has {given.iloc[wrong[0]]!r} in {_rows(wrong + first)}; write train, val or test in every row, "
            "or leave the column out."
        )
    return given.map(SPLIT_NAMES).to_list()


def _find(root: str, paths: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """Each path relative to the root (as it is where it is not found), its size and mtime_ns, and () or (reason, detail)."""
    found, reasons = [], []
    sizes, mtimes = np.zeros(len(paths), np.int64), np.zeros(len(paths), np.int64)
    stems: dict[str, list[int]] | None = None
    for row, given in enumerate(paths):
        path, reason = _normal(given, root), ()
        full = os.path.join(root, path)
        try:
            status = os.stat(full)
            if not stat.S_ISREG(status.st_mode):
                reason = ("unreadable", "not a regular file")
        except (FileNotFoundError, NotADirectoryError):
            if stems is None:
                files = walk(root)
                stems = _stems(files)
            matches = stems.get(path, [])
            if len(matches) == 1:
                path = files.paths[matches[0]]
                status = os.stat(os.path.join(root, path))
            elif matches:
                reason = ("ambiguous", "stem of " + " and ".join(printable(files.paths[i]) for i in matches[:4]))
            else:
                reason = ("missing", f"no such file under {root}")
        except (OSError, ValueError) as error:  # such as a forbidden folder, a name too long, a NUL in it
            reason = ("unreadable", str(error))
        found.append(path)
        reasons.append(reason)
        if not reason:
            sizes[row], mtimes[row] = status.st_size, status.st_mtime_ns
    return found, sizes, mtimes, reasons


def _normal(path: str, root: str) -> str:
    """One spelling per file: relative to the root where it lies under it, with "/"."""
    full = os.path.normpath(os.path.join(root, path))
    prefix = root.rstrip(os.sep) + os.sep
    if full.startswith(prefix):
        return full.removeprefix(prefix).replace(os.sep, "/")
    return full if os.path.isabs(path) else os.path.normpath(path).replace(os.sep, "/")


def _stems(files: Files) -> dict[str, list[int]]:
    """Rows of `files` by relative path without extension, and by bare name without extension."""
    stems = defaultdict(list)
    for row, path in enumerate(files.paths):
        stem = os.path.splitext(path)[0]
        for key in {stem, stem.rsplit("/", 1)[-1]}:
            stems[key].append(row)
    return stems


def _rows(rows: Iterable[int], limit: int = 5) -> str:
    """`rows 3, 7 and 12`, or `rows 3, 7, 8, 9, 10 and 25 more`."""
    rows = list(rows)
    if len(rows) == 1:
        return f"row {rows[0]}"
    last = str(rows[-1]) if len(rows) <= limit else f"{len(rows) - limit} more"
    return f"rows {', '.join(map(str, rows[: min(limit, len(rows) - (len(rows) <= limit))]))} and {last}"
