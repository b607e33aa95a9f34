"""Runs a model over a split, every example once, and scores it on val while it trains."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.training import sharding
from imgclf.training.layout import Layout
from imgclf.training.state import Tree
from imgclf.training.step import EvalStep, cross_entropy

_BEHIND = 2  # batches that are being computed while the logits of an earlier one come to the host
LARGE = 2**28  # logits of a split, examples times classes, above which they are not held in memory together: 1 GiB


def is_large(examples: int, classes: int) -> bool:
    """Whether the logits of so many examples are worked through a batch at a time."""
    return examples * classes > LARGE


def put_ahead(batches: Iterator[pipeline.Batch], mesh: Mesh, ahead: int) -> Iterator[dict[str, jax.Array]]:
    """Puts up to `ahead` batches on the device before they are asked for; the transfers run beside the computation."""
    return behind((sharding.put_batch(batch, mesh) for batch in batches), ahead)


Item = TypeVar("Item")


def behind(items: Iterator[Item], count: int) -> Iterator[Item]:
    """The same items, each given when `count` more have been asked for, so that what computes them is not waited for."""
    started: collections.deque[Item] = collections.deque()
    for item in items:
        started.append(item)
        if len(started) > count:
            yield started.popleft()
    yield from started


def on_host(parts: list[jax.Array]) -> np.ndarray:
    """Rows out of the parts of `sharding.own_rows`; waits until they are there."""
    return np.concatenate([np.asarray(part) for part in parts])


@functools.cache
def _on_every_host(mesh: Mesh) -> Callable[[tuple[jax.Array, jax.Array]], tuple[jax.Array, jax.Array]]:
    return jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Runs models of one kind over splits of a data set, every example once.

    Attributes:
      config: of the evaluation view and of the loader.
      dataset: with its splits.
      eval_step: the compiled step.
      mesh: of all devices.
    """

    config: Config
    dataset: Dataset
    eval_step: EvalStep
    mesh: Mesh

    def logits(
        self, params: Tree, batch_stats: Tree, split: str, on_batch: Callable[[int], None] = lambda examples: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates every example of a split once.

        Args:
          params, batch_stats: of the model, on the devices.
          split: "train", "val" or "test".
          on_batch: called with the number of examples done after each batch (a progress bar; raising from it stops).

        Returns:
          rows int64 [N] of the data set's table, ascending, and their logits float32 [N, C].
        """
        own = zip(*self._fetched(params, batch_stats, split, on_batch), strict=True)
        all_rows, logits = (sharding.gather(np.concatenate(parts)) for parts in own)  # the hosts talk to each other once
        rows, places = np.unique(all_rows, return_index=True)
        real = rows >= 0
        return rows[real].astype(np.int64), logits[places[real]]

    def place(self, params: Tree, batch_stats: Tree) -> tuple[Tree, Tree]:
        """Puts a model on the devices, laid out as `config.mesh` says."""
        return Layout.create(self.config.mesh, params, self.mesh).place((params, batch_stats))

    def blocks(
        self, params: Tree, batch_stats: Tree, split: str, on_batch: Callable[[int], None] = lambda examples: None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `logits` returns, a batch at a time: for splits whose logits don't fit in memory."""
        for rows, logits in self._fetched(params, batch_stats, split, on_batch, whole=True):
            yield rows[rows >= 0], logits[rows >= 0]

    def _fetched(
        self, params: Tree, batch_stats: Tree, split: str, on_batch: Callable[[int], None], *, whole: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the table, -1 for padding, and their logits, a batch at a time; each is fetched while later ones are computed.

        They are those that this process's devices hold, or with `whole` those of all.
        """
        size, left = self.config.loader.eval_batch_size, int((self.dataset.table["split"] == split).sum())
        with pipeline.eval_batches(self.dataset, self.config, split, own=sharding.own_places(self.mesh, size)) as batches:
            on_devices = put_ahead(batches, self.mesh, self.config.loader.prefetch)
            for rows, logits in behind((self._start(params, batch_stats, batch, whole) for batch in on_devices), _BEHIND):
                yield on_host(rows), on_host(logits)
                on_batch(min(size, left))
                left -= min(size, left)

    def _start(self, params: Tree, batch_stats: Tree, batch: dict[str, jax.Array], whole: bool) -> tuple[list[jax.Array], list[jax.Array]]:
        """Has a batch computed and copied to the host: parts of its rows' numbers and logits."""
        out = self.eval_step(params, batch_stats, batch)
        found = out["index"], out["logits"]
        if whole and jax.process_count() > 1:
            found = _on_every_host(self.mesh)(found)
        rows, logits = map(sharding.own_rows, found)
        return rows, logits

    def only(self, split: str, rows: np.ndarray) -> "Evaluator":
        """This evaluator with no more than these rows (int64) in a split."""
        chosen = np.full(len(self.dataset.table), "", object)
        chosen[rows] = split
        table = self.dataset.table.assign(split=pd.Series(chosen, dtype="str"))
        return dataclasses.replace(self, dataset=dataclasses.replace(self.dataset, table=table))

    def val_metrics(self, params: Tree, batch_stats: Tree, on_batch: Callable[[int], None] = lambda examples: None) -> dict[str, float]:
        """Returns `val_loss` and `val_top1`; arguments as those of `logits`."""
        labels_of, classes = self.dataset.table["label"].to_numpy(), len(self.dataset.class_names)
        if is_large(int((self.dataset.table["split"] == "val").sum()), classes):
            return _val_metrics(self.blocks(params, batch_stats, "val", on_batch), labels_of)
        rows, logits = self.logits(params, batch_stats, "val", on_batch)
        labels = labels_of[rows]
        losses = np.asarray(cross_entropy(logits, labels), np.float64)
        return {"val_loss": float(losses.mean()), "val_top1": float((logits.argmax(-1) == labels).mean())}


def _val_metrics(blocks: Iterator[tuple[np.ndarray, np.ndarray]], labels_of: np.ndarray) -> dict[str, float]:
    losses, right = list[np.ndarray](), list[np.ndarray]()
    for rows, logits in blocks:
        losses.append(np.asarray(cross_entropy(logits, labels_of[rows]), np.float64))
        right.append(logits.argmax(-1) == labels_of[rows])
    return {"val_loss": float(np.concatenate(losses).mean()), "val_top1": float(np.concatenate(right).mean())}
