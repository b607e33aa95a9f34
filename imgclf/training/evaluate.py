"""Runs a model over a split, every example once, and scores it on val while it trains."""

import collections
import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.training import sharding
from imgclf.training.layout import Layout
from imgclf.training.state import Tree
from imgclf.training.step import EvalStep, cross_entropy

LARGE = 2**28  # logits of a split, examples times classes, above which they are not held in memory together: 1 GiB


def is_large(examples: int, classes: int) -> bool:
    """Whether the logits of so many examples are worked through a batch at a time."""
    return examples * classes > LARGE


def put_ahead(batches: Iterator[pipeline.Batch], mesh: Mesh, ahead: int) -> Iterator[dict[str, jax.Array]]:
    """Puts up to `ahead` batches on the device before they are asked for; the transfers run beside the computation."""
    ready: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in batches:
        ready.append(sharding.put_batch(batch, mesh))
        if len(ready) > ahead:
            yield ready.popleft()
    yield from ready


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
        rows, logits = zip(*self.blocks(params, batch_stats, split, on_batch), strict=True)
        all_rows = np.concatenate(rows).astype(np.int64)
        order = np.argsort(all_rows, kind="stable")
        return all_rows[order], np.concatenate(logits)[order]

    def place(self, params: Tree, batch_stats: Tree) -> tuple[Tree, Tree]:
        """Puts a model on the devices, laid out as `config.mesh` says."""
        return Layout.create(self.config.mesh, params, self.mesh).place((params, batch_stats))

    def blocks(
        self, params: Tree, batch_stats: Tree, split: str, on_batch: Callable[[int], None] = lambda examples: None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `logits` returns, a batch at a time: for splits whose logits don't fit in memory."""
        own = sharding.own_places(self.mesh, self.config.loader.eval_batch_size)
        with pipeline.eval_batches(self.dataset, self.config, split, own=own) as batches:
            for batch in put_ahead(iter(batches), self.mesh, self.config.loader.prefetch):
                out = jax.device_get(self.eval_step(params, batch_stats, batch))
                rows = out["index"][out["mask"]]
                yield rows, out["logits"][out["mask"]]
                on_batch(len(rows))

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
