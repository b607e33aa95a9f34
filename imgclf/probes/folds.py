"""The folds of cross-validation: each class evenly, each group whole, and small classes in as many folds as they have groups."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from imgclf.data.splits import stratify


def assign_folds(
    labels: np.ndarray, groups: Sequence[str] | np.ndarray | None, folds: int, seed: int, class_names: Sequence[str], hint: str
) -> np.ndarray:
    """Deals rows into folds, each class evenly, each group into one of them; the result does not depend on the order of the rows.

    A class of two groups or more, but fewer than folds, is held out in so many folds: the others are not made larger for its sake, which
    would train every fold's head on fewer images than the final one.

    Args:
      labels: int [N].
      groups: N names; None = every row by itself.
      folds: how many; no more than groups.
      seed: another seed deals otherwise.
      class_names: for the error.
      hint: the way out that the error names, after "add images, remove the class, or".

    Returns:
      int64 [N].

    Raises:
      UserError: for a class of one member (group), and for groups of several classes that can't be dealt.
    """
    ids = np.array([str(row) for row in range(len(labels))], object)
    groups = ids if groups is None else np.array([str(group) for group in groups], object)
    number, names = pd.factorize(groups, sort=True)
    pairs = np.unique(np.stack([labels, number]), axis=1)
    early = _of_small_classes(pairs, len(names), folds)
    fold = np.full(len(labels), -1, np.int64)
    if early.any():
        fold[early[number]] = _spread(pairs, early, folds, seed)[number[early[number]]]
    rest = np.flatnonzero(~early[number])
    if len(rest):
        table = pd.DataFrame({"id": ids[rest], "label": labels[rest], "group": groups[rest], "sha256": ids[rest]}, dtype=object)
        parts = {f"fold {part}": 1 / folds for part in range(folds)}
        drawn = stratify(table, class_names, parts, seed, hint)
        fold[rest] = [int(name.removeprefix("fold ")) for name in drawn]
    return fold


def possible_folds(labels: np.ndarray, groups: np.ndarray, asked: int) -> int:
    """The number of folds that can be dealt, at least 2: what is asked for, or the number of groups in classes of two or more.

    Args:
      labels, groups: int [N].
      asked: how many are wanted.
    """
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    several = np.bincount(pairs[0])[pairs[0]] > 1
    return int(max(2, min(asked, len(np.unique(pairs[1, several])))))


def _of_small_classes(pairs: np.ndarray, count: int, folds: int) -> np.ndarray:
    """Which groups hold a class that has two or more of them, but fewer than folds beside those that are dealt for another's sake.

    Args:
      pairs: int [2, P], the classes of each group: its label and its number.
      count: of the groups.
      folds: how many.

    Returns:
      bool [count].
    """
    early = np.zeros(count, bool)
    while True:
        left = np.bincount(pairs[0, ~early[pairs[1]]], minlength=int(pairs[0].max()) + 1)
        whole = np.bincount(pairs[0], minlength=len(left))
        small = (left > 0) & (left < folds) & (whole > 1)
        if not small.any():
            return early
        early[pairs[1, small[pairs[0]]]] = True


def _spread(pairs: np.ndarray, early: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deals groups one after another, class by class, each to the fold that has fewest of its classes, then fewest of all.

    Returns:
      int64 [groups]; −1 for those that are not `early`.
    """
    dealt, load = np.zeros((int(pairs[0].max()) + 1, folds)), np.zeros(folds)
    fold, order = np.full(len(early), -1, np.int64), np.random.default_rng(seed).permutation(pairs.shape[1])
    for group in pairs[1, order[np.argsort(pairs[0, order], kind="stable")]].tolist():
        if early[group] and fold[group] < 0:
            classes = pairs[0, pairs[1] == group]
            fold[group] = np.lexsort((load, dealt[classes].sum(0)))[0]
            dealt[classes, fold[group]] += 1
            load[fold[group]] += 1
    return fold
