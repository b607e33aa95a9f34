"""The training images that a network finds most like an image: those whose features have the smallest angle to its own."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console

from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.evaluation.open_set import references
from imgclf.explanation.explained import Explained
from imgclf.probes.features import extract

_ENTRIES = 2**22  # of the table of similarities that is in memory at once


class Nearest(NamedTuple):
    """The nearest of some images.

    Attributes:
      rows: int64 [q, k], of the features that were searched, the nearest first; of equally near ones the lower row first.
      similarity: float32 [q, k], cosines, from −1 to 1.
    """

    rows: np.ndarray
    similarity: np.ndarray


def nearest(features: np.ndarray, query: np.ndarray, k: int, *, without: Sequence[np.ndarray] | None = None) -> Nearest:
    """Finds the nearest of all features, exactly, by the cosine.

    Args:
      features: float32 [N, D], such as those of the training images.
      query: float32 [q, D].
      k: how many; where there are fewer, all.
      without: for each query, the rows (int) that are passed over, such as those of the image itself; where fewer than k others are left,
        they come last, with a similarity of −inf.
    """
    unit, asked = _unit(features), _unit(query)
    k = min(k, len(unit))
    rows, similarity = np.zeros((len(asked), k), np.int64), np.zeros((len(asked), k), np.float32)
    step = max(1, _ENTRIES // max(1, len(unit)))
    for start in range(0, len(asked), step):
        found = asked[start : start + step] @ unit.T
        for own, left_out in zip(found, without[start : start + step] if without is not None else (), strict=False):
            own[left_out] = -np.inf
        # All that are as near as the k-th are candidates, so that ties are broken by the row and not by the partition.
        least = np.partition(found, len(unit) - k, axis=1)[:, len(unit) - k] if k else np.zeros(len(found))
        for place, (own, bound) in enumerate(zip(found, least, strict=True), start):
            candidates = np.flatnonzero(own >= bound)
            chosen = candidates[np.argsort(-own[candidates], kind="stable")[:k]]
            rows[place], similarity[place] = chosen, own[chosen]
    return Nearest(rows, similarity)


class Neighbour(NamedTuple):
    """A training image that is near another: its row of `References.dataset`, its id and class, and the cosine of the features."""

    row: int
    id: str
    class_name: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class References:
    """Training images to compare others with.

    Attributes:
      dataset: these images, in the order of the features; `dataset.reader` gives their pixels.
      features: float32 [N, D].
      of: how many training images there are in all.
    """

    dataset: Dataset
    features: np.ndarray
    of: int

    @classmethod
    def create(cls, model: Explained, dataset: Dataset, *, most: int | None = None, console: Console | None = None) -> "References":
        """Takes the training images of a run.

        Args:
          model: the trained network.
          dataset: the run's, with its splits; where there is no training split, all of it.
          most: of them are taken, by the hash of their names; None = all.
          console: shows the progress of features that the cache lacks.

        Raises:
          UserError: as `features.extract` does.
        """
        rows = np.flatnonzero((dataset.table["split"] == "train").to_numpy())
        rows = rows if len(rows) else np.arange(len(dataset.table))
        count = len(rows)
        if most is not None:
            rows = rows[references(dataset.table["id"].to_numpy()[rows], most)]
        taken = subset(dataset, rows)
        return cls(taken, np.asarray(extract(model.config, model.network, taken, console=console)), count)

    def nearest(self, query: np.ndarray, k: int, sha256: Sequence[str] = ()) -> list[list[Neighbour]]:
        """The nearest training images of each query, float32 [q, D]; an image is no neighbour of itself, where its `sha256` is given."""
        contents = self.dataset.table["sha256"].to_numpy(object)
        found = nearest(self.features, query, k, without=[np.flatnonzero(contents == own) for own in sha256] if sha256 else None)
        ids, classes = (self.dataset.table[name].tolist() for name in ("id", "class_name"))
        return [
            [
                Neighbour(int(row), ids[row], classes[row], float(cosine))
                for row, cosine in zip(rows, similarity, strict=True)
                if cosine > -np.inf
            ]
            for rows, similarity in zip(*found, strict=True)
        ]


def _unit(features: np.ndarray) -> np.ndarray:
    """Vectors of length 1; zeros stay zeros."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-12))
