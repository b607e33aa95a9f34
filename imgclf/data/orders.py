"""Which example stands at which place of a stream of batches."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from imgclf.data import sampling
from imgclf.data.columns import shared


@dataclasses.dataclass(repr=False, eq=False)  # grain prints what it maps
class TrainOrder:
    """Which example, in which epoch, stands at each place of the endless stream."""

    rows: np.ndarray  # int64 [N]
    sampler: sampling.Sampler
    size: int  # of the global batch
    own: np.ndarray  # int64 [b], the places in it that this process supplies

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        places = step * self.size + self.own
        passes, places = np.divmod(places, len(self.rows))
        rows, epochs = np.empty_like(places), np.empty_like(places)
        for number in np.unique(passes):
            here = passes == number
            positions, shown = self.sampler.epoch(int(number))
            rows[here], epochs[here] = self.rows[positions[places[here]]], shown[places[here]]
        return rows, epochs

    def shared(self) -> "TrainOrder":
        """The same order, whose columns worker processes map instead of getting copies."""
        sampler = dataclasses.replace(self.sampler, labels=shared(self.sampler.labels))
        return dataclasses.replace(self, rows=shared(self.rows), sampler=sampler)

    def after(self, row: int) -> Iterator[int]:
        """The other training rows, from the one that follows `row` in the table on, in a circle."""
        place = int(np.searchsorted(self.rows, row))
        for offset in range(1, len(self.rows)):
            yield int(self.rows[(place + offset) % len(self.rows)])


@dataclasses.dataclass(repr=False, eq=False)  # grain prints what it maps
class EvalOrder:
    """The rows in order, then -1."""

    rows: np.ndarray
    size: int  # of the global batch
    own: np.ndarray  # int64 [b], the places in it that this process supplies

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        places = step * self.size + self.own
        rows = np.where(places < len(self.rows), self.rows[np.minimum(places, len(self.rows) - 1)], -1)
        return rows, np.zeros_like(places)


@dataclasses.dataclass(repr=False, eq=False)  # grain prints what it maps
class ListedOrder:
    """The rows and epochs that were asked for, then -1."""

    rows: np.ndarray
    epochs: np.ndarray
    size: int

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        here = slice(step * self.size, (step + 1) * self.size)
        missing = (0, self.size - len(self.rows[here]))
        return np.pad(self.rows[here], missing, constant_values=-1), np.pad(self.epochs[here], missing)


Order = TrainOrder | EvalOrder | ListedOrder
