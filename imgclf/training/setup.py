"""All that a training needs beside the parameters that it starts from, checked and made ready."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from imgclf import models
from imgclf.config import Config, durations
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.models.network import Network
from imgclf.training import best, freeze, phases, schedules
from imgclf.training.evaluate import Evaluator
from imgclf.training.freeze import Freezing
from imgclf.training.phases import Phase
from imgclf.training.plan import TrainingPlan
from imgclf.training.state import split_model
from imgclf.training.step import make_eval_step


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """A training that can begin.

    Attributes:
      config: the whole config, resolved.
      dataset: what is trained on, with its splits.
      plan: its durations.
      freezing: what trains when.
      phases: the stages of `freezing` with their optimizers and compiled steps.
      evaluator: runs the model over a split.
      mesh: of all devices.
      soft_targets: float32 [N, C], by row of the table: the part of each label that a teacher gives; None = there is no teacher.
    """

    config: Config
    dataset: Dataset
    plan: TrainingPlan
    freezing: Freezing
    phases: tuple[Phase, ...]
    evaluator: Evaluator
    mesh: Mesh
    soft_targets: np.ndarray | None = None

    @classmethod
    def create(cls, config: Config, dataset: Dataset, model: Network, weights: np.ndarray | None, mesh: Mesh) -> "TrainingSetup":
        """Makes every check that needs no work, and what the steps are compiled from.

        Args:
          config: the whole config, resolved.
          dataset: with its splits.
          model: what is trained; its parameters count only for what `freeze` says of BatchNorm's statistics.
          weights: of the classes in the loss, float32 [C] or None.
          mesh: of all devices.

        Raises:
          UserError: for durations, a schedule, freezing, an optimizer or a size of training images that don't fit, and for what needs a
            val split where there is none.
        """
        check_train_size(config, model)
        per_epoch = pipeline.steps_per_epoch(dataset, config)
        plan = TrainingPlan.create(config, per_epoch)
        schedule = schedules.create_schedule(config, plan.total, per_epoch)
        freezing = freeze.create_freezing(config, model, plan.total, per_epoch)
        best.check(config, bool((dataset.table["split"] == "val").any()))
        graphdef, _, _ = split_model(model)  # before `phases` freezes statistics in it, which evaluation doesn't ask for
        stages = phases.create(config, model, freezing, schedule, plan.total, weights, mesh)
        evaluator = Evaluator(config, dataset, make_eval_step(config, graphdef, mesh), mesh)
        setup = cls(config, dataset, plan, freezing, stages, evaluator, mesh)
        if not config.train.stop_after:
            return setup
        field = "config.train.stop_after"
        end = durations.steps(config.train.stop_after, steps_per_epoch=per_epoch, total_steps=plan.total, field=field)
        return setup.ended_after(min(plan.total, end))

    def on(self, dataset: Dataset) -> "TrainingSetup":
        """The same training on other data of the same splits."""
        return dataclasses.replace(self, dataset=dataset, evaluator=dataclasses.replace(self.evaluator, dataset=dataset))

    def ended_after(self, steps: int) -> "TrainingSetup":
        """The same training cut off after so many steps, 0 or more; the schedule of its learning rate stays that of the whole."""
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, total=steps))

    @property
    def has_val(self) -> bool:
        """Whether there are images that choose the model which is kept."""
        return bool((self.dataset.table["split"] == "val").any())


def check_train_size(config: Config, model: Network) -> None:
    """Raises a UserError for training images that leave no maps, or for which the model would have other parameters."""
    if not config.augment.image_size:
        return
    height, width = config.augment.image_size
    size, name = (height, width), config.model.name
    field = f"config.augment.image_size={size}"
    if min(model.backbone.map_size(*size)) < 1:
        raise UserError(f"{field} is too small for config.model.name={name!r}; train on larger images.")
    other = config.copy_and_resolve_references()
    other.data.image_size = size
    of_that_size = models.abstract(other, model.head.logits.out_features)
    shapes, other_shapes = (jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(each, nnx.Param))) for each in (model, of_that_size))
    if shapes != other_shapes:
        raise UserError(f"{field}: {name!r} has parameters for each place of its maps, so that images need one size; leave it at ().")
