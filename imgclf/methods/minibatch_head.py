"""A head trained in minibatches on cached features: the usual loop over a classifier without a backbone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.models.network import Network
from imgclf.probes.cross_validation import Scaling
from imgclf.training import freeze, loop, optimizer, phases, sharding
from imgclf.training import step as step_lib
from imgclf.training.state import Tree, split_model


class Vectors(nnx.Module):
    """In place of a backbone whose maps are the cached features."""

    def __init__(self, features: int):
        self.features = features

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        return image


def prepare(
    config: Config, dataset: Dataset, model: Network, weight: np.ndarray | None, console: Console
) -> Callable[[np.ndarray, Path], loop.Fit]:
    """Returns `fit(features, folder)`, which trains the model's head by `config.train` and `config.optimizer`, as `loop.fit` does.

    `features` are float32 [N, V, D] of all rows of the table, the plain view first; training shows another view in each epoch. The
    parameters and statistics that it returns are the head's, `{"head": …}`, for plain features also where `probe.standardize` is set.

    Raises:
      UserError: for an optimizer or a plan that doesn't fit.
    """
    config = config.copy_and_resolve_references()
    # The vectors pass through `normalize` unchanged; what names layers of the backbone means nothing here.
    config.data.mean, config.data.std = (0.0,), (1 / 255,)
    config.freeze.preset, config.freeze.stages, config.optimizer.layer_decay = "none", (), 1.0
    config.augment.mixup = config.augment.cutmix = 0.0  # they mix pixels
    config.loader.workers = config.loader.threads = 0  # a batch takes less time than handing it from thread to thread
    config.train.checkpoint_every = "100%"  # train.checkpoint_seconds remains: an epoch takes less time than a checkpoint
    mesh = sharding.create_mesh()
    per_epoch = pipeline.steps_per_epoch(dataset, config)
    total = loop.Plan.from_config(config, per_epoch).total
    schedule = optimizer.create_schedule(config, total, per_epoch)
    headed = Network(Vectors(model.backbone.features), model.head)
    freezing = freeze.plan(config, headed, total, per_epoch)
    stages = phases.create(config, headed, freezing, schedule, total, weight, mesh)
    graphdef, params, batch_stats = split_model(headed)
    eval_step = step_lib.make_eval_step(config, graphdef, mesh)

    def fit(features: np.ndarray, folder: Path) -> loop.Fit:
        train = (dataset.table["split"] == "train").to_numpy()
        scaling = Scaling.of(features[train].reshape(-1, features.shape[-1])) if config.probe.standardize else None
        vectors = (features - scaling.mean) / scaling.deviation if scaling else features
        fields = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)}
        seen = pipeline.VectorDataset(**fields, vectors=vectors)
        start = jax.device_get((params, batch_stats))  # the steps take over the memory of their state, which is the model's here
        state = sharding.replicate(stages[0].first_state(*start), mesh)
        fitted = loop.fit(config, seen, state, stages, eval_step, schedule, mesh, folder, console)
        return dataclasses.replace(fitted, params=_for_plain(fitted.params, scaling)) if scaling else fitted

    return fit


def _for_plain(params: Tree, scaling: Scaling) -> Tree:
    """Folds the standardisation into the first dense layer."""
    head = dict(params["head"])
    first = "dense0" if "dense0" in head else "logits"
    kernel = head[first]["kernel"] / scaling.deviation[:, None]
    bias = head[first]["bias"] - scaling.mean.astype(np.float64) @ kernel
    head[first] = {"kernel": kernel, "bias": bias.astype(np.float32)}
    return params | {"head": head}
