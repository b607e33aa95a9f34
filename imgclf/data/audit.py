"""What would make an evaluation dishonest, looked for before training: copies and groups across splits, and one photo under two labels.

Near duplicates are images whose perceptual hashes (imgclf.data.perceptual_hash) differ in at most
`config.data.near_duplicate_bits` of 64 bits. What that finds, measured as pairs of different files within so many bits (all have 32
ones, so distances are even), and the share of altered copies (of every second image) within 4 and 6 bits:

    data               images    pairs within 0, 2, 4, 6, 8, 10 bits    JPEG q 60    half size    quarter, q 75    1 % cropped off
    clothing10            814    0   0   0   0    4   14                1.00 1.00    1.00 1.00     1.00 1.00         .84  .98
    doraemon_walle        318    0   0   0   2    2    3                1.00 1.00     .98  .99      .99  .99         .90  .96
    imagenet_sample       200    0   0   0   0    0    0                1.00 1.00    1.00 1.00      .99 1.00         .93  .99
    cifar10, 32 px      1,000    0   0   0   0    0    0                1.00 1.00    (too small)
    all 2,398           2,398    0   0   0   2    6   18
    digits, 8 px        1,797    0   8 133 810 3,063 8,849              (all are different scans)

Looked at, both pairs at 6 bits are one picture twice (film stills, cropped or regraded; one of them stands in train and in test), all four
at 8 bits are different garments laid out alike, and of the eleven at 10 bits within one data set two show the same thing. So 6 is the
most that costs no innocent example here. Not found by design: flips, rotations, larger crops. Left out, because there the hash says little:

- images below 32 px on a side: of different scans of 8x8 digits 133 pairs lie within 4 bits, and of photos shrunk to 24 and 16 px the
  JPEG q 60 copies are within 4 bits for .94 and .51, from 32 px on for .99;
- plain ones (flat, stripes, plain gradients), whose frequencies are all 0: their hashes are alike for images that are not.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from imgclf.config import Config
from imgclf.data.scenes import components
from imgclf.data.splits import SPLITS, groups_of, subset
from imgclf.data.table import Dataset
from imgclf.errors import UserError

MIN_SIDE = 32  # px
LARGEST_LEAK = 0.2  # share of an evaluation split in training above which nothing is repaired
NAMED_GROUPS = 1000  # in the report; the counts are always complete
NAMED_IDS = 100  # per group
MAX_PAIRS = 20_000_000
CHUNK = 1 << 22  # pairs compared at once: 100 MB
EXACT, NEAR, GROUP = "exact duplicate", "near duplicate", "same group"


@dataclasses.dataclass(frozen=True, eq=False)
class _Relation:
    """Rows that belong together for one reason: those on the same node, and those on two nodes that form a pair."""

    reason: str
    node: np.ndarray  # int64 [n]; -1: this row has no relations
    pairs: np.ndarray  # int64 [m, 2]

    def partners(self, sources: np.ndarray) -> np.ndarray:
        """For each row (int64 [n]) one of the rows in `sources` related to it, the same node's if there is one; -1 where none."""
        size = self.node.max(initial=-1) + 1
        row_of = np.full(size, -1)
        sources = sources[self.node[sources] >= 0]
        row_of[self.node[sources[::-1]]] = sources[::-1]  # of several, the first row stays
        found = row_of.copy()
        for near, far in (self.pairs.T, self.pairs.T[::-1]):
            found[near] = np.where(found[near] < 0, row_of[far], found[near])
        return np.where(self.node >= 0, found[self.node], -1) if size else np.full(len(self.node), -1)

    def clusters(self) -> list[np.ndarray]:
        """Rows connected directly or through others, where these are two or more; in the order of their first row."""
        rows = np.flatnonzero(self.node >= 0)
        if not len(rows):
            return []
        size = self.node.max() + 1
        cluster = components(self.pairs, size)[self.node[rows]]
        several = np.bincount(cluster)[cluster] > 1
        rows, cluster = rows[several], cluster[several]
        order = np.argsort(cluster, kind="stable")
        if not len(order):
            return []
        found = np.split(rows[order], np.flatnonzero(np.diff(cluster[order])) + 1)
        return sorted(found, key=lambda members: members[0])


def audit(dataset: Dataset, config: Config) -> tuple[Dataset, dict[str, Any]]:
    """Looks for leaks between splits and acts on them by `config.data.audit`; every row must have its split.

    fix: drops from val what copies a test example, then from train what copies a test or (remaining) val example. "Copies" = same
      sha256, near duplicate, or same group. Label conflicts are reported; those across splits vanish with the copies.
    error: refuses if any copy, group or label conflict stands across splits.
    off: looks and reports, changes nothing.
    Duplicates and label conflicts within one split are only reported, in every mode. Of images that are verified in the background nothing
    is dropped either, as training does not wait for what is found: `looked_at` tells of how many something is known by now.

    Returns:
      The data set, without the dropped rows (renumbered), and the report, ready for JSON:
        mode; looked_at: {images, of}, only of images that are verified in the background;
        near_duplicate_bits; compared: images whose perceptual hash counts; left_out: {small, plain}, see the top of this file;
        exact_duplicates and near_duplicates: {within, across: numbers of groups in one split and in several, groups: [[id, ...], ...],
          those across first}; a near group may hold exact copies, but not only such, and is linked by pairs: its ends may differ more;
        groups_across_splits: [{group, splits: {split: rows}, ids}, ...];
        label_conflicts: [{ids, classes, splits: {split: rows}, reason}, ...], those across splits first;
        in_training: {val, test: {of: rows, copies: rows with a copy in train, before anything is dropped, and these by reason}};
        dropped: [{id, split, reason, duplicate_of}, ...], all of them;
        counts: {groups_across_splits, label_conflicts, dropped}; the lists name at most 1,000 groups and 100 ids each;
        scenes, where the table has that column: {scenes, images: numbers of scenes of several shots and of these, largest: shots of the
          largest one, in_training: {val, test: {of: rows, shots: rows whose scene has a shot in train}}}. Nothing is dropped for it.

    Raises:
      UserError: fix: if more than 20 % of val or test has a copy in train, or dropping would empty a split or take a class's last
        training example; error: as above; any: if near duplicates are too many to list.
    """
    table = dataset.table
    relations, facts = _relations(table, config.data.near_duplicate_bits)
    ids = table["id"].array
    labels = table["label"].to_numpy(np.int64)
    code = pd.Index(SPLITS).get_indexer(pd.Index(table["split"]))
    report: dict[str, Any] = {"mode": config.data.audit, "near_duplicate_bits": config.data.near_duplicate_bits, **facts}

    def crosses(rows: np.ndarray) -> bool:
        return len(np.unique(code[rows])) > 1

    clusters = _clusters(relations)
    crossing = {reason: [rows for rows in found if crosses(rows)] for reason, found in clusters.items()}
    for field, reason in (("exact_duplicates", EXACT), ("near_duplicates", NEAR)):
        listed = sorted(clusters[reason], key=lambda rows: not crosses(rows))
        report[field] = {
            "within": len(listed) - len(crossing[reason]),
            "across": len(crossing[reason]),
            "groups": [_names(ids, rows) for rows in listed[:NAMED_GROUPS]],
        }
    groups = groups_of(table, scenes=False) if crossing[GROUP] else np.zeros(0, object)
    report["groups_across_splits"] = [
        {"group": str(groups[rows[0]]), "splits": _splits(code[rows]), "ids": _names(ids, rows)} for rows in crossing[GROUP][:NAMED_GROUPS]
    ]
    conflicts = [(reason, rows) for reason in (EXACT, NEAR) for rows in clusters[reason] if len(np.unique(labels[rows])) > 1]
    conflicts.sort(key=lambda conflict: not crosses(conflict[1]))
    report["label_conflicts"] = [
        {
            "ids": _names(ids, rows),
            "classes": [dataset.class_names[label] for label in np.unique(labels[rows])],
            "splits": _splits(code[rows]),
            "reason": reason,
        }
        for reason, rows in conflicts[:NAMED_GROUPS]
    ]

    report["in_training"] = _in_training(relations, code)
    if "scene" in table:
        report["scenes"] = _scenes(table, code)
    if config.data.audit == "error":
        _refuse_any(crossing, ids, code)
    dropped = {}
    if dataset.unverified is not None:
        report["looked_at"] = {"images": int((table["sha256"] != "").sum()), "of": len(table)}
    elif config.data.audit == "fix":
        _refuse_much(report["in_training"])
        dropped = _copies(relations, code)
    report["dropped"] = [
        {"id": str(ids[row]), "split": SPLITS[code[row]], "reason": reason, "duplicate_of": str(ids[partner])}
        for row, (reason, partner) in sorted(dropped.items())
    ]
    report["counts"] = {"groups_across_splits": len(crossing[GROUP]), "label_conflicts": len(conflicts), "dropped": len(dropped)}
    if dropped:
        keep = np.setdiff1d(np.arange(len(table)), list(dropped))
        _check_kept(dataset, code, labels, keep)
        dataset = subset(dataset, keep)
    return dataset, report


def duplicates(table: pd.DataFrame, bits: int) -> dict[str, list[np.ndarray]]:
    """Finds the images of a table that are one picture, whatever their splits and labels.

    Args:
      table: columns id, group, sha256, phash, width and height are read.
      bits: as `config.data.near_duplicate_bits`.

    Returns:
      EXACT and NEAR → clusters: row numbers, int64, two or more each, in the order of their first row. A near cluster may hold exact
      copies, but not only such, and is linked by pairs: its ends may differ more.

    Raises:
      UserError: if near duplicates are too many to list.
    """
    clusters = _clusters(_relations(table, bits)[0])
    return {reason: clusters[reason] for reason in (EXACT, NEAR)}


def groups_with_copies(table: pd.DataFrame, bits: int) -> np.ndarray:
    """Joins groups through exact and near duplicates, so that a split by group keeps all copies of a picture on one side.

    Args:
      table, bits: as for `duplicates`.

    Returns:
      A group for each row, object [n] of str: the smallest name among those joined; "" where a row stands alone. Scenes join nothing here:
      they keep their own column, so that `splits.groups_of` can leave them out again.
    """
    group, names = pd.factorize(groups_of(table, scenes=False), sort=True)
    edges = [np.zeros((0, 2), np.int64)]
    for clusters in duplicates(table, bits).values():
        edges += [np.stack([np.full(len(rows) - 1, group[rows[0]]), group[rows[1:]]], axis=1) for rows in clusters]
    component = components(np.concatenate(edges), len(names))
    smallest = names[np.unique(component, return_index=True)[1]]  # names are sorted
    of_row = component[group]
    return np.where(np.bincount(of_row)[of_row] > 1, smallest[of_row], "")


def near_pairs(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Finds all pairs of distinct 64-bit hashes that differ in at most `bits` bits.

    The bits are dealt to bits // 2 + 1 bands, so that in one of them a pair differs in at most one bit; per band, hashes of equal and
    of one-bit-flipped value are compared in full (multi-index hashing, Norouzi et al. 2012). Bands take every k-th bit, since neighbours
    in a hash go together. Measured for 1.2 million hashes, random and strongly correlated: 5 s at 4 bits, 12 to 17 s at 6, on one core
    and in 0.5 GB.

    Args:
      hashes: uint64 [n], all different.
      bits: 0..16.

    Returns:
      int64 [m, 2], indices i < j, sorted, each pair once.

    Raises:
      UserError: if there are more than 20 million pairs.
    """
    bands = bits // 2 + 1
    found, total = [np.zeros((0, 2), np.int64)], 0
    for band in range(bands):
        places = range(band, 64, bands)
        key = np.zeros(len(hashes), np.uint64)
        for to, place in enumerate(places):
            key |= ((hashes >> np.uint64(place)) & np.uint64(1)) << np.uint64(to)
        order = np.argsort(key, kind="stable")
        key = key[order]
        for flip in range(-1 if bits else 0, len(places) if bits else 0):
            if flip < 0:  # equal keys: each with those after it
                first, start = order, np.arange(1, len(key) + 1)
                stop = np.searchsorted(key, key, side="right")
            else:  # only from 0 to 1: the other direction is the same pair
                zero = (key >> np.uint64(flip)) & np.uint64(1) == 0
                probe = key[zero] | (np.uint64(1) << np.uint64(flip))
                first = order[zero]
                start, stop = np.searchsorted(key, probe), np.searchsorted(key, probe, side="right")
            for left, right in _ranges(first, start, stop):
                right = order[right]
                close = np.bitwise_count(hashes[left] ^ hashes[right]) <= bits
                pairs = np.sort(np.stack([left[close], right[close]], axis=1), axis=1)
                found.append(pairs)
                total += len(pairs)
                if total > MAX_PAIRS:
                    raise UserError(
                        f"More than {MAX_PAIRS:,} pairs of images are within config.data.near_duplicate_bits={bits}; "
                        "lower it (-1 looks for exact copies only)."
                    )
    return np.unique(np.concatenate(found), axis=0)


def _ranges(first: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (first[i], k) for all k in [start[i], stop[i]), as index arrays of about CHUNK pairs, however large one range is."""
    some = stop > start
    first, start, stop = first[some], start[some], stop[some]
    while len(first):
        count = np.minimum(stop - start, CHUNK)
        last = max(1, int(np.searchsorted(np.cumsum(count), CHUNK, side="right")))
        head = count[:last]
        ends = np.cumsum(head)
        yield np.repeat(first[:last], head), np.arange(ends[-1]) + np.repeat(start[:last] - (ends - head), head)
        start[:last] += head
        rest = 0 if start[0] < stop[0] else last  # only a range above CHUNK, which then stands alone, has a rest
        first, start, stop = first[rest:], start[rest:], stop[rest:]


def _relations(table: pd.DataFrame, bits: int) -> tuple[list[_Relation], dict[str, Any]]:
    """Finds which rows are related, strongest reason first; and what the report says of the comparison."""
    none = np.zeros((0, 2), np.int64)
    known = (table["sha256"] != "").to_numpy(bool)  # all, but of images that are verified in the background
    sha256 = np.where(known, pd.factorize(table["sha256"])[0], -1)
    alone = bool((table["group"] == "").all())
    group = np.full(len(table), -1) if alone else pd.factorize(groups_of(table, scenes=False))[0]
    hashes = table["phash"].to_numpy(np.int64).view(np.uint64)
    small = known & (table[["width", "height"]].to_numpy(np.int64).min(axis=1) < MIN_SIDE)
    plain = known & ~small & (np.abs(np.bitwise_count(hashes).astype(int) - 32) > 8)  # an image with structure has 32 ones
    usable = known & ~small & ~plain & (bits >= 0)
    node, pairs = np.full(len(table), -1), none
    if usable.any():
        values, node[usable] = np.unique(hashes[usable], return_inverse=True)
        pairs = near_pairs(values, bits)
    facts = {"compared": int(usable.sum()), "left_out": {"small": int(small.sum()), "plain": int(plain.sum())}}
    return [_Relation(EXACT, sha256, none), _Relation(NEAR, node, pairs), _Relation(GROUP, group, none)], facts


def _clusters(relations: list[_Relation]) -> dict[str, list[np.ndarray]]:
    clusters = {relation.reason: relation.clusters() for relation in relations}
    exact = relations[0].node
    clusters[NEAR] = [rows for rows in clusters[NEAR] if len(np.unique(exact[rows])) > 1]
    return clusters


def _in_training(relations: list[_Relation], code: np.ndarray) -> dict[str, dict[str, int]]:
    counts = {}
    train = np.flatnonzero(code == SPLITS.index("train"))
    partners = [relation.partners(train) >= 0 for relation in relations]
    for name in ("val", "test"):
        rows = code == SPLITS.index(name)
        if not rows.any():
            continue
        counts[name] = {"of": int(rows.sum()), "copies": int((rows & np.any(partners, axis=0)).sum())}
        for relation, found in zip(relations, partners, strict=True):
            counts[name][relation.reason] = int((rows & found).sum())
            rows = rows & ~found
    return counts


def _scenes(table: pd.DataFrame, code: np.ndarray) -> dict[str, Any]:
    """Counts the scenes of several shots, and the evaluation images that are shots of a scene which training has, too."""
    scene, names = pd.factorize(table["scene"].replace("", None))
    sizes = np.bincount(scene[scene >= 0], minlength=len(names))
    shots = (scene >= 0) & (sizes[scene] > 1 if len(names) else False)
    trained = np.isin(scene, scene[shots & (code == SPLITS.index("train"))])
    counts = {}
    for name in ("val", "test"):
        rows = code == SPLITS.index(name)
        if rows.any():
            counts[name] = {"of": int(rows.sum()), "shots": int((rows & shots & trained).sum())}
    several = sizes[sizes > 1]
    return {"scenes": len(several), "images": int(several.sum()), "largest": int(several.max(initial=0)), "in_training": counts}


def _copies(relations: list[_Relation], code: np.ndarray) -> dict[int, tuple[str, int]]:
    """Finds the rows to drop: {row: (reason, row that it copies)}; val rows first, so that what copies only those may stay."""
    dropped: dict[int, tuple[str, int]] = {}
    gone = np.zeros(len(code), bool)
    train, val, test = range(3)
    for target, evaluated in ((val, (test,)), (train, (test, val))):
        for relation in relations:
            for name in evaluated:
                partner = relation.partners(np.flatnonzero((code == name) & ~gone))
                for row in np.flatnonzero((code == target) & ~gone & (partner >= 0)):
                    dropped[int(row)] = (relation.reason, int(partner[row]))
                    gone[row] = True
    return dropped


def _refuse_much(in_training: dict[str, dict[str, int]]) -> None:
    for name, counts in in_training.items():
        copies, of = counts["copies"], counts["of"]
        if copies > LARGEST_LEAK * of:
            kinds = ", ".join(f"{reason}: {counts[reason]}" for reason in (EXACT, NEAR, GROUP) if counts[reason])
            raise UserError(
                f"{copies} of {of} {name} examples ({copies / of:.0%}) are also in training ({kinds}), "
                f"more than the {LARGEST_LEAK:.0%} that are repaired by dropping them there; repair the splits, draw new ones by "
                "config.data.split.method='stratified' with copies in a common group, lower config.data.near_duplicate_bits if these "
                "near duplicates are different photos, or go on regardless by config.data.audit='off'."
            )


def _refuse_any(crossing: dict[str, list[np.ndarray]], ids: ExtensionArray | np.ndarray, code: np.ndarray) -> None:
    found = {reason: clusters for reason, clusters in crossing.items() if clusters}
    if not found:
        return
    told = []
    for reason, clusters in found.items():
        first = clusters[0]
        ends = first[[0, int(np.argmax(code[first] != code[first[0]]))]]
        example = " and ".join(f"{ids[row]!r} ({SPLITS[code[row]]})" for row in ends)
        told.append(f"{reason}: {len(clusters)}, such as {example}")
    raise UserError(
        f"config.data.audit='error' and examples stand on several sides of the split ({'; '.join(told)}); "
        "repair the splits, or set config.data.audit to 'fix', which drops them from training, or 'off'."
    )


def _check_kept(dataset: Dataset, code: np.ndarray, labels: np.ndarray, keep: np.ndarray) -> None:
    way_out = "repair the splits, lower config.data.near_duplicate_bits, or go on regardless by config.data.audit='off'."
    for index, name in enumerate(SPLITS):
        if (code == index).any() and not (code[keep] == index).any():
            raise UserError(f"All examples of {name} copy examples of other splits, so none is left; {way_out}")
    left = labels[keep][code[keep] == SPLITS.index("train")]
    lost = np.setdiff1d(labels[code == SPLITS.index("train")], left)
    if len(lost):
        raise UserError(f"All training examples of class {dataset.class_names[lost[0]]!r} copy evaluation examples; {way_out}")


def _names(ids: ExtensionArray | np.ndarray, rows: np.ndarray) -> list[str]:
    return [str(name) for name in ids[rows[:NAMED_IDS]]]


def _splits(codes: np.ndarray) -> dict[str, int]:
    return {name: int((codes == index).sum()) for index, name in enumerate(SPLITS) if (codes == index).any()}
