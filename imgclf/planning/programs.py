"""The programs of a training for a mesh of described devices: the very functions that training runs, with shapes in place of arrays.

Nothing is allocated: the network and its state are made under `jax.eval_shape`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf import models
from imgclf.config import Config
from imgclf.data import augment
from imgclf.models import forms
from imgclf.probes import features
from imgclf.training import freeze, phases, schedules
from imgclf.training.layout import Layout
from imgclf.training.plan import TrainingPlan
from imgclf.training.sharding import batch_sharding
from imgclf.training.state import TrainState, split_model
from imgclf.training.step import make_eval_step

TRAIN, EVAL, FEATURES = "train", "eval", "features"
NAMES = (TRAIN, EVAL, FEATURES)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function under `jax.jit` and the shapes that it is called with.

    Attributes:
      name: one of `NAMES`.
      function: what `jax.jit` has returned.
      arguments: trees of `jax.ShapeDtypeStruct` with shardings.
      batch: images of the global batch.
      mesh: of the devices that it is for.
      donatable: how many arrays of the first argument ought to give their memory to the result.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    batch: int
    mesh: Mesh
    donatable: int = 0

    def traced(self) -> Any:
        """The program as JAX has traced it for the mesh's devices, `jax.stages.Traced`."""
        with forms.on_devices_of(self.mesh):
            return self.function.trace(*self.arguments)


def names(config: Config) -> tuple[str, ...]:
    """The programs that a training by this resolved config runs."""
    method = config.train.method
    return tuple(name for name, used in ((TRAIN, method != "probe"), (EVAL, True), (FEATURES, method != "fit")) if used)


def create(name: str, config: Config, num_classes: int, train_images: int, mesh: Mesh) -> Program:
    """Makes one of the programs.

    Args:
      name: one of `NAMES`.
      config: the whole config, resolved.
      num_classes: of the data.
      train_images: how many images are trained on: how long a training is, is the length of its schedules.
      mesh: of the devices that it is for.

    Raises:
      UserError: for durations, freezing, an optimizer or images that don't fit.
    """
    with forms.on_devices_of(mesh):
        model = models.abstract(config, num_classes)
    if name == TRAIN:
        return _train(config, model, train_images, mesh)
    graphdef, params, batch_stats = split_model(model)
    state = Layout.create(config.mesh, params, mesh).like((params, batch_stats))
    if name == FEATURES:
        forward = features.forward_of(graphdef, tuple(config.data.mean), tuple(config.data.std))
        return Program(
            name, forward, (*state, _batch(config, mesh, num_classes, evaluated=True, only=("image",))), config.loader.eval_batch_size, mesh
        )
    step = make_eval_step(config, graphdef, mesh)
    return Program(name, step, (*state, _batch(config, mesh, num_classes, evaluated=True)), config.loader.eval_batch_size, mesh)


def training_plan(config: Config, train_images: int) -> TrainingPlan:
    """The durations of a training on so many images, in steps."""
    return TrainingPlan.create(config, train_images / config.loader.batch_size)


def _train(config: Config, model: Any, train_images: int, mesh: Mesh) -> Program:
    plan = training_plan(config, train_images)
    schedule = schedules.create_schedule(config, plan.total, plan.per_epoch)
    freezing = freeze.create_freezing(config, model, plan.total, plan.per_epoch)
    _, params, batch_stats = split_model(model)
    stages = phases.create(config, model, freezing, schedule, plan.total, None, mesh)
    longest = max(stages, key=lambda stage: stage.stop - stage.start)
    start = jax.eval_shape(lambda: TrainState(jnp.zeros((), jnp.int32), params={}, batch_stats={}, opt_state=None))
    start = dataclasses.replace(start, params=params, batch_stats=batch_stats)
    state, numbers = longest.like(start), _whole(longest.scalars, mesh)
    arguments = (state, _batch(config, mesh, model.head.logits.out_features, evaluated=False), numbers)
    return Program(TRAIN, longest.compiled, arguments, config.loader.batch_size, mesh, len(jax.tree.leaves(state)))


def _whole(tree: Any, mesh: Mesh) -> Any:
    """The tree with shapes in place of arrays and numbers, all of it on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=sharding), tree)


def _batch(config: Config, mesh: Mesh, num_classes: int, *, evaluated: bool, only: tuple[str, ...] = ()) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch, as the pipeline makes them for training or evaluation."""
    size = config.loader.eval_batch_size if evaluated else config.loader.batch_size
    sides = config.data.image_size if evaluated else config.augment.image_size or config.data.image_size
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {"image": ((*sides, 3), np.uint8), "label": ((), np.int32)}
    views = len(augment.Preprocessing.of(config).evaluation)
    if evaluated:
        shapes |= {"index": ((), np.int32), "mask": ((), np.bool_)}
        if views > 1 and not only:
            shapes["image"] = ((views, *sides, 3), np.uint8)
    else:
        if augment.color.is_on(config.augment):
            shapes["color"] = ((3, 4), np.float32)
        if boxes := augment.erase.boxes_per_image(config.augment):
            shapes["erase"] = ((boxes, 4), np.int32)
            if config.augment.erase_fill == "noise":
                shapes["erase_seed"] = ((), np.uint32)
        if config.train.teacher:
            shapes["soft_label"] = ((num_classes,), np.float32)
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding)
        for name, (shape, dtype) in shapes.items()
        if not only or name in only
    }
