"""Which photos of a class are shots of one scene, told from the features of a frozen backbone without any label of scenes.

An absolute distance can't tell: photos of one class are rightly closer in one data set than shots of one scene in another. What tells is a
gap. Between photos taken apart, the nearest one is little nearer than the 15th nearest; a shot has its scene much nearer than what comes
next. So distances are measured in units of local scale (Zelnik-Manor and Perona, "Self-Tuning Spectral Clustering", 2004), here the
distance to the 15th nearest *scene*, and shots are joined by average linkage, whose clusters chains don't grow through whole looks.

The cut is found in three steps, from the data alone:
- It begins at 0.45, or lower where features are so uneven that chance comes near that: the null is the nearest of another class's photos in
  units of the distance to its 15th; the cut stays four standard deviations (of the logarithm) below.
- The more photos have a scene already, the likelier the next pair is one: with every photo in a scene the cut may rise by 0.3.
- Within that range it stands where the fewest joins are, or lower in a clear gap: between shots and other photos no bold cut is needed.
Scenes count once when the scale is measured anew, so that bursts don't shrink their own scale; this repeats until nothing changes.

How well that works on planted bursts, and where it doesn't: experiments/scenes.py.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy

from imgclf.data.capture import BURST_SECONDS, SESSION_SECONDS, Captures
from imgclf.data.scenes import Scenes, bursts, components, leave_small_classes, named

NEIGHBOR = 15  # whose distance is the local scale
NEXT = 4  # scenes beside which a scene must stand out, too
SMALLEST_CLASS = 8  # photos: in a smaller class no neighbour is far enough away to measure by
CUT, RISE = 0.45, 0.3
CLEAR = 0.05  # of the joins at the densest place: what may stand in a clear gap; and the share of photos that must be joined below it
DEVIATIONS = 4.0
ROUNDS = 8
SESSION, CONSECUTIVE = 0.7, 0.85  # what distances are multiplied by within a minute of one camera; for neighbouring numbers
INFORMATIVE = 0.3  # numbers count where the next number's photo is among this share of the nearest ones, on average (0.5 by chance)
KEPT = 256  # nearest photos of its class that are remembered of each photo
_BLOCK = 1024
_SAMPLE = 1000  # photos whose distances to other classes make the null
_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, NEIGHBOR + 1))])


@dataclasses.dataclass(frozen=True)
class _Neighbors:
    """The nearest photos of a class, for each of its photos: places in the class int32 [n, m] and cosine distances float32 [n, m]."""

    places: np.ndarray
    distances: np.ndarray

    @classmethod
    def of(cls, unit: np.ndarray) -> "_Neighbors":
        """Those of features of length 1, float32 [n, D], block by block."""
        count = min(len(unit) - 1, KEPT)
        places, distances = np.zeros((len(unit), count), np.int32), np.zeros((len(unit), count), np.float32)
        for start in range(0, len(unit), _BLOCK):
            block = _distances(unit[start : start + _BLOCK], unit)
            rows = np.arange(len(block))
            block[rows, start + rows] = np.inf
            nearest = np.argpartition(block, count - 1, axis=1)[:, :count]
            order = np.argsort(np.take_along_axis(block, nearest, 1), axis=1, kind="stable")
            places[start : start + len(block)] = nearest = np.take_along_axis(nearest, order, 1)
            distances[start : start + len(block)] = np.take_along_axis(block, nearest, 1)
        return cls(places, distances)

    def scale(self, cluster: np.ndarray, k: int) -> np.ndarray:
        """The distance of each photo to the k-th nearest cluster but its own, float64 [n]; where fewer are remembered, to the farthest."""
        other = cluster[self.places]
        other[other == cluster[:, None]] = -1
        order = np.argsort(other, axis=1, kind="stable")  # within a cluster the nearest comes first, as places are sorted by distance
        sorted_other = np.take_along_axis(other, order, 1)
        first = np.ones(other.shape, bool)
        first[:, 1:] = sorted_other[:, 1:] != sorted_other[:, :-1]
        first &= sorted_other >= 0
        near = np.where(first, np.take_along_axis(self.distances, order, 1), np.inf)
        found = np.partition(near, k - 1, axis=1)[:, k - 1] if k <= near.shape[1] else np.full(len(near), np.inf)
        return np.maximum(np.where(np.isfinite(found), found, self.distances[:, -1]), 1e-6).astype(np.float64)


@dataclasses.dataclass
class _Class:
    """The photos of one class, and their scenes as far as they are known."""

    rows: np.ndarray  # int64 [n]
    unit: np.ndarray  # float32 [n, D], of length 1
    neighbors: _Neighbors
    cluster: np.ndarray  # int64 [n], from 0
    joined: np.ndarray  # int64 [m, 2]: pairs of places that are one scene by their times
    scales: list[tuple[np.ndarray, float]] = dataclasses.field(default_factory=list)  # float64 [n] of each photo, and the power, see _power
    trees: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)  # places, and the joins of their average linkage


def find(features: np.ndarray, labels: np.ndarray, ids: Sequence[str], captures: Captures | None = None, *, least: int = 1) -> Scenes:
    """Finds the shots of one scene within each class.

    Args:
      features: float32 [N, D], pooled features of a frozen backbone.
      labels: int [N].
      ids: unique names of the photos; a scene is called after its smallest.
      captures: capture times and file numbers, or None.
      least: scenes that a class must keep; where it would have fewer, its scenes are taken apart again, and a note says so.

    Returns:
      The scenes; neither the order of the rows nor the scale of the features change them.
    """
    order = np.argsort(np.asarray(ids, object), kind="stable")  # so that equal distances are settled in one way
    labels = np.asarray(labels, np.int64)[order]
    names = np.asarray(ids, object)[order]
    known = Captures.unknown(len(labels)) if captures is None else _taken(captures, order)
    unit = np.asarray(features, np.float32)[order]
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    pairs = bursts(labels, known)
    cluster = components(pairs, len(labels))
    classes = _classes(unit, labels, cluster, pairs)
    numbers = _informative(classes, known)
    start = min(CUT, _null(unit, labels))
    cut = start
    for turn in range(ROUNDS):
        before = [one.cluster for one in classes]
        shares = [np.bincount(one.cluster)[one.cluster] > 1 for one in classes]
        highest = start + RISE * (float(np.mean(np.concatenate(shares))) if shares else 0.0)
        for one in classes:
            _grow(one, highest, known, numbers=numbers, isolated=bool(turn))
        cut = _emptiest(classes, start, highest)
        for one in classes:
            one.cluster = _cut(one, cut)
        if all(np.array_equal(old, one.cluster) for old, one in zip(before, classes, strict=True)):
            break
    by_time = cluster
    for one in classes:
        cluster = cluster.copy()
        cluster[one.rows] = len(labels) + one.rows[np.unique(one.cluster, return_index=True)[1]][one.cluster]
    cluster = np.unique(cluster, return_inverse=True)[1]
    cluster, apart = leave_small_classes(cluster, labels, least)
    return _scenes(_Found(names, labels, unit, cluster, by_time, apart, order), cut, known, numbers=numbers)


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.maximum(np.float32(1) - some @ others.T, np.float32(1e-6))


def _taken(captures: Captures, order: np.ndarray) -> Captures:
    return Captures(*(getattr(captures, field.name)[order] for field in dataclasses.fields(captures)))


def _classes(unit: np.ndarray, labels: np.ndarray, cluster: np.ndarray, pairs: np.ndarray) -> list[_Class]:
    """The classes that are large enough."""
    found = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < SMALLEST_CLASS:
            continue
        own = pairs[labels[pairs[:, 0]] == label]
        places = np.searchsorted(rows, own)
        start = np.unique(cluster[rows], return_inverse=True)[1]
        found.append(_Class(rows, unit[rows], _Neighbors.of(unit[rows]), start, places))
    return found


def _null(unit: np.ndarray, labels: np.ndarray) -> float:
    """How near, in units of the distance to the 15th, the nearest photo of another class hardly ever is."""
    sample = np.unique(np.linspace(0, len(labels) - 1, min(_SAMPLE, len(labels))).astype(np.int64))
    logs = []
    for label in np.unique(labels):
        theirs = np.flatnonzero(labels == label)
        rows = sample[labels[sample] != label]
        if len(theirs) <= NEIGHBOR or not len(rows):
            continue
        nearest = np.partition(_distances(unit[rows], unit[theirs]), [0, NEIGHBOR - 1], axis=1)
        logs.append(np.log(nearest[:, 0] / nearest[:, NEIGHBOR - 1]))
    if not logs:
        return CUT
    values = np.concatenate(logs).astype(np.float64)
    return float(np.exp(values.mean() - DEVIATIONS * values.std()))


def _informative(classes: list[_Class], captures: Captures) -> bool:
    """Whether photos of neighbouring numbers look alike in these data: many sets are numbered throughout, in no order."""
    ranks = []
    for one in classes:
        series, number = captures.series[one.rows], captures.number[one.rows]
        order = np.lexsort((number, series))
        first, second = order[:-1], order[1:]
        next_to = (series[first] >= 0) & (series[first] == series[second]) & (number[second] - number[first] == 1)
        for start in range(0, len(pairs := np.stack([first, second], 1)[next_to]), _BLOCK):
            block = pairs[start : start + _BLOCK]
            distance = _distances(one.unit[block[:, 0]], one.unit)
            nearer = (distance < np.take_along_axis(distance, block[:, 1:], 1)).sum(axis=1) - 1  # itself
            ranks.append(nearer / max(1, len(one.rows) - 2))
    return bool(ranks) and sum(map(len, ranks)) >= SMALLEST_CLASS and float(np.concatenate(ranks).mean()) < INFORMATIVE


def _power(k: int) -> float:
    """What makes ratios to the k-th neighbour's distance comparable with those to the 15th.

    Of points spread evenly in m dimensions, the logarithm of the ratio of the first to the k-th distance is −H(k − 1) / m on average, with
    the harmonic numbers H (after Facco et al., "Estimating the
    intrinsic dimension of datasets by a minimal neighborhood information", 2017).
    """
    return float(_HARMONIC[NEIGHBOR - 1] / _HARMONIC[k - 1])


def _grow(one: _Class, highest: float, captures: Captures, *, numbers: bool, isolated: bool) -> None:
    """Measures the scale of a class anew, and joins its photos by average linkage up to `highest` and a little further.

    A look of some ten photos has its 15th neighbour in another look, by which all of it seems near. So what is joined must be near beside
    the next few scenes, too (`isolated`), once the first round has gathered the shots that would be taken for those.
    """
    one.trees = []
    units = int(one.cluster.max()) + 1
    k = min(NEIGHBOR, units // 2)
    if k < 2:  # so few scenes that none can serve as a measure of the others
        return
    counts = [k, NEXT] if isolated and k > NEXT else [k]
    one.scales = [(one.neighbors.scale(one.cluster, count), _power(count)) for count in counts]
    scale, power = one.scales[0]
    limit = (highest + _WINDOW) ** (1 / power)
    if captures.camera.max(initial=-1) >= 0:
        limit /= SESSION
    if numbers:
        limit /= CONSECUTIVE
    places = one.neighbors.places
    near = one.neighbors.distances < limit * np.sqrt(scale[:, None] * scale[places])
    first, rank = np.nonzero(near)
    pairs = np.concatenate([np.stack([first, places[first, rank]], axis=1), one.joined])
    part = components(pairs, len(one.rows))
    order = np.argsort(part, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
        if len(members) > 1:
            distances = scipy.spatial.distance.squareform(_relative(one, members, captures, numbers=numbers), checks=False)
            one.trees.append((members, scipy.cluster.hierarchy.linkage(distances, "average")))


def _relative(one: _Class, members: np.ndarray, captures: Captures, *, numbers: bool) -> np.ndarray:
    """Distances between some photos of a class in units of their scale, less what times and numbers make of them: float64 [m, m]."""
    distance = _distances(one.unit[members], one.unit[members]).astype(np.float64)
    rows = one.rows[members]
    gaps = captures.gaps(rows[:, None], rows[None])
    distance = np.where(gaps <= SESSION_SECONDS, SESSION * distance, distance)
    if numbers:
        distance = np.where(captures.steps(rows[:, None], rows[None]) <= 1, CONSECUTIVE * distance, distance)
    each = [(distance / np.sqrt(scale[members][:, None] * scale[members])) ** power for scale, power in one.scales]
    relative = np.max(each, axis=0)
    relative[gaps <= BURST_SECONDS] = 0.0
    np.fill_diagonal(relative, 0.0)
    return (relative + relative.T) / 2


_WINDOW = 0.05  # half of it on either side: in what the joins are counted


def _emptiest(classes: list[_Class], start: float, highest: float) -> float:
    """The cut from `start` up to `highest` around which the fewest joins are; of several the lowest.

    Below `start` it stands only where a gap is clear: hardly any joins beside those of the densest place below it.
    """
    heights = np.concatenate([np.zeros(0), *(tree[:, 2] for one in classes for _, tree in one.trees)])

    def joins(cuts: np.ndarray) -> np.ndarray:
        return (np.abs(heights[None] - cuts[:, None]) <= _WINDOW).sum(axis=1)

    low = np.arange(_WINDOW, start, _WINDOW / 2)
    there = joins(low)
    below = (heights[None] < low[:, None]).sum(axis=1)
    photos = sum(len(one.rows) for one in classes)
    gap = (there <= CLEAR * np.maximum.accumulate(there)) & (below >= CLEAR * photos) if len(low) else np.zeros(0, bool)
    cuts = np.concatenate([low[gap], np.linspace(start, highest, 21)])
    return float(cuts[int(np.argmin(joins(cuts)))])


def _cut(one: _Class, cut: float) -> np.ndarray:
    """The clusters of a class that are joined below the cut, and by their times: int64 [n], numbered by their first photo."""
    if not one.trees:
        return one.cluster
    cluster = np.arange(len(one.rows))
    for members, tree in one.trees:
        own = scipy.cluster.hierarchy.fcluster(tree, cut, "distance")
        cluster[members] = members[np.unique(own, return_index=True)[1]][np.unique(own, return_inverse=True)[1]]
    pairs = np.concatenate([np.stack([np.arange(len(cluster)), cluster], axis=1), one.joined])
    return components(pairs, len(cluster))


@dataclasses.dataclass(frozen=True)
class _Found:
    """What is known when all is done, by rows in the order of their ids."""

    ids: np.ndarray
    labels: np.ndarray
    unit: np.ndarray
    cluster: np.ndarray
    by_time: np.ndarray
    apart: np.ndarray  # labels of the classes whose scenes were taken apart
    order: np.ndarray


def _scenes(found: _Found, cut: float, captures: Captures, *, numbers: bool) -> Scenes:
    """Names the scenes, and says of each what joined it."""
    own = named(found.cluster, found.ids.tolist())
    why, distance = dict[str, tuple[str, ...]](), dict[str, float]()
    order = np.argsort(found.cluster, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(found.cluster[order])) + 1):
        if len(rows) < 2:
            continue
        name = str(own[rows[0]])
        apart = _distances(found.unit[rows], found.unit[rows])[np.triu_indices(len(rows), 1)]
        distance[name] = float(apart.mean())
        pairs = np.triu_indices(len(rows), 1)
        gaps, steps = captures.gaps(rows[pairs[0]], rows[pairs[1]]), captures.steps(rows[pairs[0]], rows[pairs[1]])
        reasons = ["similarity"] if len(np.unique(found.by_time[rows])) > 1 else []
        reasons += ["time"] if (gaps <= SESSION_SECONDS).any() else []
        reasons += ["numbers"] if numbers and (steps <= 1).any() else []
        why[name] = tuple(reasons)
    names = np.empty(len(own), object)
    names[found.order] = own
    about = {
        "cut": round(cut, 4),
        "with_time": int((captures.camera >= 0).sum()),
        "numbers": numbers,
        "classes_left_apart": [int(label) for label in found.apart],
    }
    return Scenes(names, why, distance, about)
