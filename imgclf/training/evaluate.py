"""Runs a model over a split, every example once, and scores it on val while it trains."""

import collections
import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.training import sharding
from imgclf.training.layout import Layout
from imgclf.training.state import Tree
from imgclf.training.step import EvalStep, cross_entropy


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
        rows: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        own = sharding.own_places(self.mesh, self.config.loader.eval_batch_size)
        with pipeline.eval_batches(self.dataset, self.config, split, own=own) as batches:
            for batch in put_ahead(iter(batches), self.mesh, self.config.loader.prefetch):
                out = jax.device_get(self.eval_step(params, batch_stats, batch))
                rows.append(out["index"][out["mask"]])
                logits.append(out["logits"][out["mask"]])
                on_batch(len(rows[-1]))
        all_rows = np.concatenate(rows).astype(np.int64)
        order = np.argsort(all_rows, kind="stable")
        return all_rows[order], np.concatenate(logits)[order]

    def place(self, params: Tree, batch_stats: Tree) -> tuple[Tree, Tree]:
        """Puts a model on the devices, laid out as `config.mesh` says."""
        return Layout.create(self.config.mesh, params, self.mesh).place((params, batch_stats))

    def val_metrics(self, params: Tree, batch_stats: Tree, on_batch: Callable[[int], None] = lambda examples: None) -> dict[str, float]:
        """Returns `val_loss` and `val_top1`; arguments as those of `logits`."""
        rows, logits = self.logits(params, batch_stats, "val", on_batch)
        labels = self.dataset.table["label"].to_numpy()[rows]
        losses = np.asarray(cross_entropy(logits, labels), np.float64)
        return {"val_loss": float(losses.mean()), "val_top1": float((logits.argmax(-1) == labels).mean())}
