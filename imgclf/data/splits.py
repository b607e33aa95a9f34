"""Who trains, who validates, who tests: the split of an example table into train, val and test.

A *unit* is what must not be torn apart: all rows of one `group` (a row without one is its own group), all shots of one `scene` where the
table has that column, and, where imgclf draws the split by class, all rows of equal `sha256`, so that exact copies never straddle. Units
are drawn in the order of a hash of their name and the split's seed: the result depends neither on the order of the rows nor on a random
generator's version.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.config.fields import SplitConfig
from imgclf.data.readers import take
from imgclf.data.scenes import components
from imgclf.data.table import Dataset
from imgclf.errors import UserError

SPLITS = ("train", "val", "test")


def subset(dataset: Dataset, rows: Sequence[int] | np.ndarray) -> Dataset:
    """Returns the data set of these rows (numbers in `dataset.table`), in this order; classes, labels and quarantine stay as they are."""
    rows = np.asarray(rows, np.int64)
    return dataclasses.replace(dataset, table=dataset.table.iloc[rows].reset_index(drop=True), reader=take(dataset.reader, rows))


def assign_splits(dataset: Dataset, config: Config) -> Dataset:
    """Puts every row into train, val or test by `config.data.split.method`.

    given: as the source says. A missing val is carved out of train (stratified, whole units, share val / (train + val) of
      `fractions`; none where that is 0); a missing test stays missing. Rows without a split among rows with one are an error, because
      both guesses (train, or leave out) would quietly change what the numbers mean.
    stratified: per class, `fractions` of its rows, rounded by largest remainder; exact where units are single rows, else as near as
      whole units allow (largest first, each where it is missed most). Every class is in every split whose fraction isn't 0.
    hash: by blake2b of (seed, group or id) alone, so an example stays where it is when others come or go, or the folder moves. The
      price: fractions hold only on average, and exact copies may fall on both sides (the audit then drops those in training).
    kfold: the units of each class are dealt into `folds` parts, part `fold` is test, and val is carved out of the rest as above. The
      parts don't depend on `fold`: over all folds every row is in test exactly once.
    auto: given where any row has a split, else stratified.

    All but given disregard the splits of the source.

    Raises:
      UserError: no train split or only some rows with a split (given), a class with too few units for its splits or folds, or a
        class without any training example.
    """
    split = config.data.split
    table = dataset.table
    method = split.method
    if method == "auto":
        method = "given" if (table["split"] != "").any() else "stratified"
    labels = table["label"].to_numpy(np.int64)
    _, val, test = split.fractions
    names = dataset.class_names

    if method == "given":
        given = table["split"].to_numpy(object)
        _check_given(table, given)
        assigned = given.copy()
        if "val" not in given and val > 0:
            rows = np.flatnonzero(given == "train")
            assigned[rows] = _carve_val(_units(table.iloc[rows]), labels[rows], split, names)
    elif method == "hash":
        position = _digests(groups_of(table), str(split.seed)) / 2.0**64
        assigned = np.where(position < val, "val", np.where(position < val + test, "test", "train"))
    elif method == "stratified":
        shares = dict(zip(SPLITS, split.fractions, strict=True))
        assigned = stratify(table, names, shares, split.seed, "set a fraction to 0, as in config.data.split.fractions=(0.8, 0, 0.2)")
    else:
        parts = [f"fold {fold}" for fold in range(split.folds)]
        units = _units(table)
        hint = "lower config.data.split.folds"
        fold = _draw(units, labels, [1 / split.folds] * split.folds, str(split.seed), names, parts, hint)
        assigned = np.where(fold == split.fold, "test", "train").astype(object)
        if val > 0:
            rows = np.flatnonzero(fold != split.fold)
            assigned[rows] = _carve_val(units[rows], labels[rows], split, names)

    _check_train(assigned, labels, split, method, names)
    return dataclasses.replace(dataset, table=table.assign(split=assigned.astype(str)))


def stratify(table: pd.DataFrame, names: Sequence[str], shares: Mapping[str, float], seed: int, hint: str) -> np.ndarray:
    """Draws a stratified split as `assign_splits` does, under any names.

    Args:
      table: columns id, label, group and sha256 are read.
      names: of the classes.
      shares: part → share, summing to 1; parts of share 0 get nothing.
      hint: the way out that an error names, after "add images, remove the class, or".

    Returns:
      The name of each row's part, str [n].

    Raises:
      UserError: for a class with too few units to be in every part.
    """
    wanted = [part for part, share in shares.items() if share > 0]
    labels = table["label"].to_numpy(np.int64)
    return np.array(wanted)[_draw(_units(table), labels, [shares[part] for part in wanted], str(seed), names, wanted, hint)]


def limit_per_class(dataset: Dataset, config: Config) -> Dataset:
    """Leaves at most `config.data.per_class` training images of each class; 0 = all. Other splits stay as they are.

    They are the first in an order that is a hash of the split's seed and the image's id: a smaller number's images are among a larger
    one's, whatever else is in the data.
    """
    if not config.data.per_class:
        return dataset
    table = dataset.table
    train = np.flatnonzero((table["split"] == "train").to_numpy())
    train = train[np.argsort(_digests(table["id"].to_numpy(object)[train], f"{config.data.split.seed}/per_class"), kind="stable")]
    place = table.iloc[train].groupby("label").cumcount().to_numpy()
    keep = np.ones(len(table), bool)
    keep[train[place >= config.data.per_class]] = False
    return subset(dataset, np.flatnonzero(keep))


def _check_given(table: pd.DataFrame, given: np.ndarray) -> None:
    unknown = sorted(set(given) - {*SPLITS, ""})
    if unknown:
        raise UserError(f"Split {unknown[0]!r} is none of train, val, test; rename it in the source.")
    without = np.flatnonzero(given == "")
    if len(without) == len(given):
        raise UserError("config.data.split.method='given', but the data gives no splits; use 'stratified', 'hash' or 'kfold'.")
    if len(without):
        example = table["id"].iloc[without[0]]
        raise UserError(
            f"{len(without)} of {len(given)} examples have no split (such as {example!r}) while others do; "
            "fill in their split, remove them, or let imgclf split all by config.data.split.method='stratified'."
        )
    if "train" not in given:
        found = " and ".join(sorted(set(given)))
        raise UserError(
            f"The data gives {found} but no train split; add one, or let imgclf split all by config.data.split.method='stratified'."
        )


def _check_train(assigned: np.ndarray, labels: np.ndarray, split: SplitConfig, method: str, names: Sequence[str]) -> None:
    if method == "hash":  # the other methods fill every split by construction
        for name, fraction in zip(SPLITS, split.fractions, strict=True):
            if fraction > 0 and not (assigned == name).any():
                raise UserError(
                    f"Of {len(assigned)} examples none hashes into {name}; "
                    "use config.data.split.method='stratified', another config.data.split.seed, or more examples."
                )
    absent = np.flatnonzero(np.bincount(labels[assigned == "train"], minlength=len(names)) == 0)
    if len(absent):
        listed = ", ".join(repr(names[label]) for label in absent[:5]) + (", ..." if len(absent) > 5 else "")
        count = int((labels == absent[0]).sum())
        raise UserError(
            f"No training example of {listed} ({count} in other splits); "
            "add some, remove the class, or use config.data.split.method='stratified'."
        )


def _carve_val(units: np.ndarray, labels: np.ndarray, split: SplitConfig, names: Sequence[str]) -> np.ndarray:
    train, val, _ = split.fractions
    hint = f"set config.data.split.fractions to ({1 - split.fractions[2]:.4g}, 0, {split.fractions[2]:.4g}), which takes no val from train"
    shares = [train / (train + val), val / (train + val)]
    drawn = _draw(units, labels, shares, f"{split.seed}/val", names, ["train", "val"], hint)
    return np.array(["train", "val"], object)[drawn]


def groups_of(table: pd.DataFrame, *, scenes: bool = True) -> np.ndarray:
    """Returns the name of each row's group, its id where it has none.

    Where the table has the column `scene`, all groups that a scene touches are one group: folds and splits then keep the shots of a scene
    on one side, and a score on the other side tells of new scenes.

    Args:
      table: columns id, group and, if it is there, scene are read.
      scenes: False leaves the shots of a scene apart, as if the column was not there.

    Returns:
      object [n] of str; of groups joined by scenes the smallest name.
    """
    ids = table["id"].to_numpy(object)
    groups = table["group"].to_numpy(object)
    groups = np.where(pd.isna(groups) | (groups == ""), ids, groups)
    if not scenes or "scene" not in table:
        return groups
    return _joined(groups, pd.factorize(table["scene"].replace("", None))[0])


def _units(table: pd.DataFrame) -> np.ndarray:
    """Names the unit of each row: rows joined by a group, a scene or a sha256, directly or through others, share their smallest name."""
    return _joined(groups_of(table), pd.factorize(table["sha256"].replace("", None))[0])  # "" = not known yet


def _joined(groups: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Makes one group of all groups whose rows share a key, directly or through others.

    Args:
      groups: object [n] of str.
      key: int64 [n]; -1 = the row has none.

    Returns:
      object [n] of str: the smallest name among the groups that are joined.
    """
    rows = np.flatnonzero(key >= 0)
    if len(np.unique(key[rows])) == len(rows):
        return groups
    group, names = pd.factorize(groups, sort=True)
    size = len(names) + int(key.max()) + 1
    component = components(np.stack([group[rows], len(names) + key[rows]], axis=1), size)
    numbers, first = np.unique(component[: len(names)], return_index=True)  # names are sorted, so the first is the smallest
    return names[first][np.searchsorted(numbers, component[group])]


def _digests(keys: np.ndarray, salt: str) -> np.ndarray:
    """blake2b of (salt, key) as uint64 [n]; the same on every platform."""
    prefix = salt.encode() + b"\0"
    joined = b"".join(hashlib.blake2b(prefix + str(key).encode("utf-8", "surrogateescape"), digest_size=8).digest() for key in keys)
    return np.frombuffer(joined, ">u8").astype(np.uint64)


def _targets(counts: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Rows of each class (int [C]) that each part should get: int [C, P], largest remainder, at least 1 where there are enough.

    Equal remainders go to the part that has been short-changed most so far, so that many small classes don't all favour the same.
    """
    wanted = np.asarray(shares, np.float64)
    targets = np.zeros((len(counts), len(shares)), np.int64)
    owed = np.zeros(len(shares))
    for row, count in zip(targets, counts, strict=True):
        ideal = count * wanted
        row[:] = np.floor(ideal + 1e-9)
        order = sorted(range(len(shares)), key=lambda part: (-round(float(ideal[part] - row[part]), 9), -round(float(owed[part]), 9), part))
        row[order[: count - row.sum()]] += 1
        while count >= len(shares) and row.min() == 0:
            row[row.argmax()] -= 1
            row[row.argmin()] += 1
        owed += ideal - row
    return targets


def _draw(
    units: np.ndarray, labels: np.ndarray, shares: Sequence[float], salt: str, names: Sequence[str], parts: Sequence[str], hint: str
) -> np.ndarray:
    """Deals whole units to parts with these shares (summing to 1), per class; returns the part of each row, int64 [n].

    Args:
      units, labels: object [n] of str and int64 [n], of each row.
      parts: their names, `hint`: the way out, both for the error message.

    Raises:
      UserError: if a class has fewer units than there are parts, or units of several classes leave it out of one.
    """
    unit, unit_names = pd.factorize(units, sort=True)
    pairs, rows = np.unique(np.stack([unit, labels]), axis=1, return_counts=True)  # the classes of each unit, unit by unit
    starts = np.searchsorted(pairs[0], np.arange(len(unit_names) + 1))
    units_of_class = np.bincount(pairs[1], minlength=len(names))
    counts = np.bincount(labels, minlength=len(names))
    targets = _targets(counts, shares)
    for label in np.flatnonzero((counts > 0) & (units_of_class < len(shares))).tolist():
        have = _count(counts[label], "example")
        if units_of_class[label] != counts[label]:
            have += f" in {_count(units_of_class[label], 'group')} that must stay whole"
        raise UserError(
            f"Class {names[label]!r} has {have}, too few for {_listed(parts)} to get one each; add images, remove the class, or {hint}."
        )

    part = np.full(len(unit_names), -1)
    left = targets.astype(np.float64)
    sizes = np.bincount(unit, minlength=len(unit_names))
    order = np.argsort(_digests(unit_names, salt), kind="stable")
    large = order[sizes[order] > 1]
    for index in large[np.argsort(-sizes[large], kind="stable")]:
        span = slice(starts[index], starts[index + 1])
        classes, amounts = pairs[1, span], rows[span, None]
        cost = (amounts * (amounts - 2 * left[classes]) / np.maximum(targets[classes], 1)).sum(axis=0)  # rise of the squared error
        part[index] = np.argmin(cost)
        left[classes, part[index]] -= amounts[:, 0]

    small = order[sizes[order] == 1]
    small = small[np.argsort(pairs[1, starts[small]], kind="stable")]  # by class; within it in the order of the hash
    bounds = np.searchsorted(pairs[1, starts[small]], np.arange(len(names) + 1))
    for label in np.flatnonzero(np.diff(bounds)).tolist():
        members = small[bounds[label] : bounds[label + 1]]
        part[members] = np.repeat(np.arange(len(shares)), _fill(np.maximum(left[label], 0), len(members)))

    _complete(part, pairs, starts, len(shares), names, parts, hint)
    return part[unit]


def _fill(need: np.ndarray, count: int) -> np.ndarray:
    """Shares out `count` rows by need (float [P], sum ≥ count): what large units took too much of is missing in proportion elsewhere."""
    ideal = need * (count / need.sum())
    filled = np.floor(ideal + 1e-9).astype(np.int64)
    filled[np.argsort(-(ideal - filled), kind="stable")[: count - filled.sum()]] += 1
    return filled


def _complete(
    part: np.ndarray, pairs: np.ndarray, starts: np.ndarray, count: int, names: Sequence[str], parts: Sequence[str], hint: str
) -> None:
    """Moves units (in place) until every class is in every part; only units of many rows or several classes ever need it."""
    present = np.zeros((len(names), count), np.int64)  # units of each class in each part
    np.add.at(present, (pairs[1], part[pairs[0]]), 1)
    for label, target in np.argwhere((present == 0) & (present.sum(axis=1, keepdims=True) > 0)):
        if present[label, target]:
            continue  # an earlier move brought it
        candidates = pairs[0, pairs[1] == label]
        span = starts[candidates + 1] - starts[candidates]
        for index in candidates[np.argsort(span, kind="stable")]:
            classes = pairs[1, starts[index] : starts[index + 1]]
            if (present[classes, part[index]] > 1).all():
                present[classes, part[index]] -= 1
                present[classes, target] += 1
                part[index] = target
                break
        else:
            raise UserError(
                f"Class {names[label]!r} is missing from {parts[target]}, as groups of several classes must stay whole; "
                f"add images, remove the class, or {hint}."
            )


def _listed(parts: Sequence[str]) -> str:
    return f"{len(parts)} folds" if len(parts) > 3 or parts[0].startswith("fold") else " and ".join(parts)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
