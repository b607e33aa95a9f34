"""Runs a model over a split, every example once."""

import collections
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.training import sharding
from imgclf.training.state import Tree
from imgclf.training.step import EvalStep


def put_ahead(batches: Iterator[pipeline.Batch], mesh: Mesh, ahead: int) -> Iterator[dict[str, jax.Array]]:
    """Puts up to `ahead` batches on the device before they are asked for; the transfers run beside the computation."""
    ready: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in batches:
        ready.append(sharding.put_batch(batch, mesh))
        if len(ready) > ahead:
            yield ready.popleft()
    yield from ready


def evaluate_split(
    eval_step: EvalStep,
    params: Tree,
    batch_stats: Tree,
    dataset: Dataset,
    config: Config,
    split: str,
    mesh: Mesh,
    on_batch: Callable[[int], None] = lambda examples: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluates every example of a split once.

    Args:
      on_batch: called with the number of examples done after each batch (a progress bar; raising from it stops).

    Returns:
      rows int64 [N] of the data set's table, ascending, and their logits float32 [N, C].
    """
    rows: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    with pipeline.eval_batches(dataset, config, split, shard=jax.process_index(), shards=jax.process_count()) as batches:
        for batch in put_ahead(iter(batches), mesh, config.loader.prefetch):
            out = jax.device_get(eval_step(params, batch_stats, batch))
            rows.append(out["index"][out["mask"]])
            logits.append(out["logits"][out["mask"]])
            on_batch(len(rows[-1]))
    all_rows = np.concatenate(rows).astype(np.int64)
    order = np.argsort(all_rows, kind="stable")
    return all_rows[order], np.concatenate(logits)[order]
