"""Evaluation keeps the devices busy: batches come to the host while later ones are computed, and every example counts once."""

import jax
import numpy as np
import pytest
from digits_experiment import digits_config

from imgclf.data import pipeline
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.methods import resolve
from imgclf.training import sharding
from imgclf.training.evaluate import Evaluator

SIZE = 64


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    config = resolve.resolve(digits_config(**{"loader.eval_batch_size": SIZE}), 10)
    dataset, mesh = assign_splits(load_dataset(config), config), sharding.create_mesh()

    @jax.jit
    def step(params, batch_stats, batch):
        del params, batch_stats
        return {"logits": batch["image"][:, 0, :, 0].astype(np.float32), "index": batch["index"]}

    return Evaluator(config, dataset, step, mesh)


def test_logits_are_those_of_each_batch_in_turn(evaluator):
    with pipeline.eval_batches(evaluator.dataset, evaluator.config, "val") as batches:
        found = [(batch["index"][batch["mask"]], batch["image"][batch["mask"], 0, :, 0]) for batch in batches]
    expected_rows, expected = map(np.concatenate, zip(*found, strict=True))
    done: list[int] = []
    rows, logits = evaluator.logits({}, {}, "val", done.append)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(logits, expected.astype(np.float32))
    assert rows.dtype == np.int64
    assert sum(done) == len(rows)
    assert len(done) == len(found)
    blocks = list(evaluator.blocks({}, {}, "val"))
    np.testing.assert_array_equal(np.concatenate([logits for _, logits in blocks]), logits)


def test_no_batch_is_waited_for_before_the_next_ones_have_begun(evaluator):
    begun: list[int] = []

    class Recording(Evaluator):
        def _start(self, *arguments):
            begun.append(len(begun))
            return super()._start(*arguments)

    recording = Recording(evaluator.config, evaluator.dataset, evaluator.eval_step, evaluator.mesh)
    seen: list[int] = []
    recording.logits({}, {}, "train", lambda _: seen.append(len(begun)))
    assert len(seen) > 4
    assert seen[:3] == [3, 4, 5]  # the first is fetched when two more are computing
