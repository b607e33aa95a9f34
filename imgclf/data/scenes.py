"""Shots of one scene: a burst, or several photos of one object in one setting. What was found, and what capture times alone tell.

Where such shots stand on both sides of a split, the score tells how well a known scene is recognised again, not how well a new one is.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.data.capture import BURST_SECONDS, Captures
from imgclf.data.table import Dataset

TABLE = "scenes.csv"  # what a search leaves for people to correct


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The scenes of a data set.

    Attributes:
      names: object [n] of str, for the table's column `scene`; "" = the photo stands alone.
      why: scene → what joined its shots, such as ("similarity", "time").
      distance: scene → mean cosine distance between the features of its shots; empty without features.
      about: ready for JSON, for audit.json: signals, and what was decided by the data.
      notes: sentences that the user should know.
    """

    names: np.ndarray
    why: dict[str, tuple[str, ...]]
    distance: dict[str, float] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def sentence(self) -> str:
        """What was found, for the console: "Found 41 scenes of 2 to 9 shots among 318 photos …"."""
        sizes = pd.Series(self.names[self.names != ""]).value_counts()
        photos = formatting.count(len(self.names), "photo")
        if not len(sizes):
            if self.about.get("features", True):
                return f"Found no scenes of several shots among {photos}."
            return f"Capture times tell of no scenes of several shots among {photos}; imgclf data scenes --weights NAME looks at them, too."
        smallest, largest = int(sizes.min()), int(sizes.max())
        shots = f"{smallest} shots" if smallest == largest else f"{smallest} to {largest} shots"
        together = f"{int(sizes.sum()):,} of them" if sizes.sum() < len(self.names) else "all of them"
        stay = "its shots stay" if len(sizes) == 1 else "the shots of each stay"
        return f"Found {formatting.count(len(sizes), 'scene')} of {shots} among {photos} ({together}); {stay} on one side."


def given(names: Sequence[str] | np.ndarray) -> Scenes:
    """Scenes that the data name themselves, such as a CSV's column."""
    counts = pd.Series(np.asarray(names, object)).value_counts()
    several = counts.index[(counts > 1) & (counts.index != "")]
    kept = np.where(pd.Series(np.asarray(names, object)).isin(several), np.asarray(names, object), "")
    return Scenes(kept, {str(name): ("given",) for name in several}, {}, {"given": True})


FindScenes = Callable[[Dataset], Scenes]


def with_scenes(dataset: Dataset, names: Sequence[str] | np.ndarray) -> Dataset:
    """The data set with the column `scene`."""
    table = dataset.table.drop(columns="scene", errors="ignore")
    table.insert(list(table.columns).index("group") + 1, "scene", pd.Series(np.asarray(names, object), dtype="str", index=table.index))
    return dataclasses.replace(dataset, table=table)


def bursts(labels: np.ndarray, captures: Captures) -> np.ndarray:
    """Joins photos of one class that one camera took within `BURST_SECONDS` of each other, one after another.

    Args:
      labels: int [n].
      captures: of the same photos.

    Returns:
      int64 [m, 2]: pairs of rows that follow one another in a burst.
    """
    rows = np.flatnonzero(captures.camera >= 0)
    rows = rows[np.lexsort((captures.seconds[rows], captures.camera[rows], labels[rows]))]
    before, after = rows[:-1], rows[1:]
    joined = (labels[before] == labels[after]) & (captures.gaps(before, after) <= BURST_SECONDS)
    return np.stack([before[joined], after[joined]], axis=1)


def components(pairs: np.ndarray, count: int) -> np.ndarray:
    """Numbers what pairs (int64 [m, 2]) connect, directly or through others: int64 [count]."""
    if not len(pairs):
        return np.arange(count)
    from scipy import sparse  # slow to import, and seldom needed
    from scipy.sparse.csgraph import connected_components

    graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def named(cluster: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Names each cluster of several rows by its smallest id, so that neither the rows' order nor other photos change it.

    Args:
      cluster: int64 [n], from 0.
      ids: of the rows.

    Returns:
      object [n] of str; "" for a row that is alone in its cluster.
    """
    order = np.argsort(np.asarray(ids, object), kind="stable")
    _, first, inverse = np.unique(cluster[order], return_index=True, return_inverse=True)
    names = np.empty(len(cluster), object)
    names[order] = np.asarray(ids, object)[order][first][inverse]
    names[np.bincount(cluster)[cluster] < 2] = ""
    return names


def leave_small_classes(cluster: np.ndarray, labels: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes the scenes of a class apart again where the class would have too few scenes to be divided at all.

    Args:
      cluster: int64 [n], from 0.
      labels: int [n].
      least: scenes (single photos count as one) that a class must keep.

    Returns:
      The clusters, and the labels of the classes that were taken apart.
    """
    scenes = np.unique(np.stack([labels, cluster]), axis=1)[0]
    of_class = np.bincount(scenes, minlength=int(labels.max(initial=-1)) + 1)
    photos = np.bincount(labels, minlength=len(of_class))
    apart = np.flatnonzero((of_class < least) & (of_class < photos))
    rows = np.isin(labels, apart)
    return np.where(rows, cluster.max(initial=-1) + 1 + np.arange(len(cluster)), cluster), apart
