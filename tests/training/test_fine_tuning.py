"""Fine-tuning of real weights on real pictures; skipped where the shared files are not beside the checkout."""

import jax
import numpy as np
import pytest
from rich.console import Console

from imgclf import models
from imgclf.config import default_config
from imgclf.data import pipeline
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.methods.fit import Fit
from imgclf.models.weights.conversion import flatten
from imgclf.training import freeze, phases, schedules, sharding
from imgclf.training.evaluate import Evaluator, put_ahead
from imgclf.training.state import split_model
from imgclf.training.step import make_eval_step

STEPS = 20


def config_of(shared, name: str, file: str):
    config = default_config()
    config.data.path, config.data.image_size = str(shared / "data/doraemon_walle"), (64, 64)
    config.model.name, config.model.weights = name, f"path:{shared}/weights/{file}"
    config.loader.batch_size = 16
    return resolve.resolve(resolve.check(config), 2)


@pytest.fixture(scope="module")
def small(shared):
    """MobileNetV2 0.35 with its weights, and the pictures."""
    config = config_of(shared, "mobilenet_v2_035", "mobilenet_v2_0.35_224_no_top.keras.h5")
    return config, models.create(config, 2), assign_splits(load_dataset(config), config)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["head", "last_stage", "first_100_layers", "none"])
def test_the_loss_falls_and_what_is_frozen_stays(small, preset):
    """They take long to compile; test_freeze has them on small networks."""
    config, model, dataset = small
    config = config.copy_and_resolve_references()
    config.freeze.preset, config.optimizer.learning_rate = preset, 1e-3 if preset == "head" else 3e-4
    mesh = sharding.create_mesh()
    freezing = freeze.create_freezing(config, model, STEPS, 10.0)
    assert ("20 steps are too few" in freezing.remark) == (preset != "head")  # the file's momentum is 0.999
    (phase,) = phases.create(config, model, freezing, schedules.create_schedule(config, STEPS, 10.0), STEPS, None, mesh)
    graphdef, params, batch_stats = split_model(model)
    state = phase.first_state(*jax.tree.map(np.array, (params, batch_stats)))
    eval_step = make_eval_step(config, graphdef, mesh)

    def val_loss() -> float:
        return Evaluator(config, dataset, eval_step, mesh).val_metrics(state.params, state.batch_stats)["val_loss"]

    before = val_loss()
    with pipeline.train_batches(dataset, config, num_steps=STEPS) as batches:
        for batch in put_ahead(iter(batches), mesh, 1):
            state, _ = phase.step(state, {"image": batch["image"], "label": batch["label"]})
    assert val_loss() < 0.7 * before
    after, stats = flatten(state.params), flatten(state.batch_stats)
    for name, leaf in flatten(params).items():
        assert np.array_equal(after[name], leaf) == (name not in freezing.trainable), name
    for name, leaf in flatten(batch_stats).items():
        assert np.array_equal(stats[name], leaf) == (name.rsplit("/", 1)[0] in freezing.stages[0].frozen_norms), name


def test_weights_with_folded_statistics_are_fine_tuned_with_them_frozen_and_the_run_says_why(shared):
    config = config_of(shared, "mobilenet_v2", "mobilenet_v2_1.0_224.keras.h5")
    config.train.method, config.train.duration = "fit", "2 steps"
    dataset, model = assign_splits(load_dataset(config), config), models.create(config, 2)
    freezing = freeze.create_freezing(config, model, 2, 10.0)
    assert len(freezing.stages[0].frozen_norms) == 52  # all of them, though every parameter trains
    assert len(freezing.trainable) == len(flatten(split_model(model)[1]))
    console = Console(record=True, width=400)
    Fit.check(Task(config, dataset, model, sharding.create_mesh(), console))
    told = "is folded into the kernels (all its means are 0, all variances equal), so that its statistics are kept frozen"
    assert told in console.export_text()
