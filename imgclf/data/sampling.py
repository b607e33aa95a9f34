"""Who stands at which place of the training stream: a pure function of (seed, place), for any number of hosts, threads and restarts.

An epoch has as many places as there are training examples. `natural` fills them with a permutation. `balanced` gives every class as many,
`sqrt` in proportion to the square root of its size; within a class no example comes again before all have come, across epochs. Balancing
by sampling shows rare classes more often, with other augmentations each time; `train.class_weights` instead weighs their losses. To do
both corrects twice.
"""

import dataclasses
import itertools

import numpy as np

from imgclf.data.augment.draws import view_rng


@dataclasses.dataclass(repr=False)
class Sampler:
    """Maps places of the stream to examples and back.

    Attributes:
      seed: `config.seed`.
      labels: int64 [N], of the training examples.
      rule: natural | balanced | sqrt.
    """

    seed: int
    labels: np.ndarray
    rule: str

    def __post_init__(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # two epochs: batches run across their border
        if self.rule != "natural":
            self._by_label = np.argsort(self.labels, kind="stable")
            sizes = np.bincount(self.labels)
            self._classes = np.flatnonzero(sizes)
            self._starts, self._sizes = (np.cumsum(sizes) - sizes)[self._classes], sizes[self._classes]
            weights = np.ones(len(self._sizes)) if self.rule == "balanced" else np.sqrt(self._sizes)
            # Whole numbers, as floats would round another way in late epochs.
            self._bounds = [0, *np.cumsum(np.rint(weights * 2**20).astype(np.int64)).tolist()]

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples of an epoch in their order, and how often each has been shown before: int64 [N] each."""
        kept = self._kept.get(number)
        if kept is None:
            kept = self._epoch(number)
            self._kept = {**dict(list(self._kept.items())[-1:]), number: kept}
        return kept

    def place(self, example: int, shown: int) -> int:
        """Returns the place in the stream at which an example stands after it has been shown so many times."""
        count = len(self.labels)
        if self.rule == "natural":
            number = shown
        else:
            rank = int(np.searchsorted(self._classes, self.labels[example]))
            cycle = self._order(int(self._classes[rank]), shown, int(self._sizes[rank]))
            position = shown * int(self._sizes[rank]) + int(np.flatnonzero(self._members(rank)[cycle] == example)[0])
            total, share = self._bounds[-1], self._bounds[rank + 1] - self._bounds[rank]
            number = max(0, position * total // (count * share) - 2)
            while self._taken(number + 1)[rank] <= position:
                number += 1
        examples, times = self.epoch(number)
        return number * count + int(np.flatnonzero((examples == example) & (times == shown))[0])

    def _epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.labels)
        order = _permutation(self.seed, "\0order", number, count)
        if self.rule == "natural":
            return order, np.broadcast_to(np.int64(number), count)
        examples, shown = [], []
        for rank, (start, stop) in enumerate(zip(self._taken(number), self._taken(number + 1), strict=True)):
            size = int(self._sizes[rank])
            cycles, places = np.divmod(np.arange(start, stop), size)
            orders = {cycle: self._order(int(self._classes[rank]), cycle, size) for cycle in np.unique(cycles).tolist()}
            members = self._members(rank)
            for cycle, permutation in orders.items():
                examples.append(members[permutation[places[cycles == cycle]]])
            shown.append(cycles)
        return np.concatenate(examples)[order], np.concatenate(shown)[order]

    def _members(self, rank: int) -> np.ndarray:
        """The examples of a class."""
        return self._by_label[self._starts[rank] : self._starts[rank] + self._sizes[rank]]

    def _order(self, label: int, cycle: int, size: int) -> np.ndarray:
        return _permutation(self.seed, f"\0order of class {label}", cycle, size)

    def _taken(self, epochs: int) -> list[int]:
        """How many places each class has had after so many epochs; as near its share as whole numbers allow, and all of them in all."""
        places, total = epochs * len(self.labels), self._bounds[-1]
        reached = [places * bound // total for bound in self._bounds]
        return [after - before for before, after in itertools.pairwise(reached)]


def _permutation(seed: int, name: str, number: int, count: int) -> np.ndarray:
    """A permutation; sorts raw bits, whose stream numpy guarantees, unlike that of `Generator.permutation`."""
    bits = view_rng(seed, name, number).bit_generator.random_raw(count)
    return np.argsort(bits, kind="stable")
