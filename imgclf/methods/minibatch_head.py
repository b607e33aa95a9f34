"""A head trained in minibatches on cached features: the usual loop over a classifier without a backbone."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.methods.base import Task
from imgclf.models.backbone import Backbone
from imgclf.models.network import Network
from imgclf.probes.cross_validation import Scaling
from imgclf.probes.features import extract
from imgclf.probes.heads import FeatureLogits
from imgclf.training import loop
from imgclf.training.setup import TrainingSetup
from imgclf.training.state import Tree, split_model
from imgclf.training.trained_model import TrainedModel


class Vectors(Backbone):
    """In place of a backbone whose maps are the cached features."""

    def __init__(self, features: int):
        self.features = features

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        return image


@dataclasses.dataclass(frozen=True)
class MinibatchHead:
    """Trains the head of a probe by `config.train` and `config.optimizer`; `methods.base.Method` for a head alone.

    The parameters and statistics that it returns are the head's, `{"head": …}`, for plain features whatever `probe.scaling` is. A head that
    rescales features itself gets plain ones: the scaling couldn't be folded into a layer behind that.
    """

    task: Task
    headed: Network  # the model's head on vectors
    setup: TrainingSetup

    @classmethod
    def check(cls, task: Task, class_weight: np.ndarray | None) -> "MinibatchHead":
        """Lays out the training of the head.

        Raises:
          UserError: for an optimizer or a plan that doesn't fit.
        """
        headed = Network(Vectors(task.model.backbone.features), task.model.head)
        setup = TrainingSetup.create(_config_of_head(task.config), task.dataset, headed, class_weight, task.mesh)
        return cls(task, headed, setup)

    def train(self, workdir: Path) -> TrainedModel:
        config, model, dataset = self.task.config, self.task.model, self.task.dataset
        features = self._features()
        train = (dataset.table["split"] == "train").to_numpy()
        scaling = None
        if config.probe.scaling != "none" and not model.head.rescales:
            scaling = Scaling.of(features[train].reshape(-1, features.shape[-1]), config.probe.scaling)
        vectors = (features - scaling.mean) / scaling.deviation if scaling else features
        _, params, batch_stats = split_model(self.headed)
        start = jax.device_get((params, batch_stats))  # the steps take over the memory of their state, which is the model's here
        fitted = loop.fit(self.setup.on(_with_vectors(dataset, vectors)), start, workdir, self.task.console)
        head = _for_plain(fitted.params, scaling) if scaling else fitted.params
        about = {"l2": None, "folds": None, "cross_validation": None, "steps": fitted.steps}
        logits_of = FeatureLogits(config, model, dataset, head, fitted.batch_stats)
        return dataclasses.replace(fitted, params=head, about=about, logits_of=logits_of)

    def _features(self) -> np.ndarray:
        """Float32 [N, V, D] of all rows of the table, the plain view first; training shows another view in each epoch."""
        task, config = self.task, self.task.config
        told = config.train.method == "probe"
        features = extract(config, task.model, task.dataset, console=None if told else task.console)[:, None]
        if config.probe.views:
            rows = np.flatnonzero((task.dataset.table["split"] == "train").to_numpy())
            views = extract(config, task.model, task.dataset, rows=rows, views=config.probe.views, console=task.console)
            features = np.repeat(features, views.shape[1], axis=1)  # what is evaluated is never shown but plain
            features[rows] = views
        return features


def _config_of_head(config: Config) -> Config:
    """The config by which the head trains: the vectors pass through `normalize` unchanged, and nothing names layers of a backbone."""
    config = config.copy_and_resolve_references()
    config.data.mean, config.data.std = (0.0,), (1 / 255,)
    config.train.stop_after = ""  # it is meant for the network's training
    config.freeze.preset, config.freeze.stages, config.optimizer.layer_decay = "none", (), 1.0
    config.mesh.rules = config.train.remat = ()
    config.augment.mixup = config.augment.cutmix = 0.0  # they mix pixels
    config.loader.workers = config.loader.threads = 0  # a batch takes less time than handing it from thread to thread
    config.train.checkpoint_every = "100%"  # train.checkpoint_seconds remains: an epoch takes less time than a checkpoint
    return config


def _with_vectors(dataset: Dataset, vectors: np.ndarray) -> pipeline.VectorDataset:
    fields = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)}
    return pipeline.VectorDataset(**fields, vectors=vectors)


def _for_plain(params: Tree, scaling: Scaling) -> Tree:
    """Folds the standardisation into the first dense layer."""
    head = dict(params["head"])
    first = "dense0" if "dense0" in head else "logits"
    kernel = head[first]["kernel"] / scaling.deviation[:, None]
    bias = head[first]["bias"] - scaling.mean.astype(np.float64) @ kernel
    head[first] = {"kernel": kernel, "bias": bias.astype(np.float32)}
    return params | {"head": head}
