"""The stages of training made ready to run: each with its optimizer and its compiled step, and the way from one to the next."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf.config import Config
from imgclf.models import layer_groups
from imgclf.models.network import Network
from imgclf.training import freeze, optimizer, scalars, sharding
from imgclf.training.scalars import Scalars
from imgclf.training.state import TrainState, Tree, create_state, path_name, select
from imgclf.training.step import Metrics, TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer over one set of parameters, for steps start < step <= stop."""

    start: int
    stop: int
    trainable: frozenset[str]  # names of the parameters that train
    tx: optax.GradientTransformation
    compiled: TrainStep
    scalars: Scalars
    mesh: Mesh

    def step(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """One training step; takes over the memory of `state`."""
        return self.compiled(state, batch, self.scalars)

    def first_state(self, params: Tree, batch_stats: Tree) -> TrainState:
        """The state before the first step of a training that begins with this phase."""
        return create_state(params, batch_stats, self.tx, self.trainable)

    def begin(self, state: TrainState) -> TrainState:
        """Takes over the state of the phase before: what the optimizer keeps of a parameter that trains on stays, what is new is fresh."""

        def carry_over(state: TrainState) -> TrainState:
            before = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)}
            fresh = self.tx.init(select(state.params, self.trainable))
            opt_state = jax.tree_util.tree_map_with_path(lambda path, leaf: before.get(path_name(path), leaf), fresh)
            return dataclasses.replace(state, opt_state=opt_state)

        return jax.jit(carry_over, out_shardings=NamedSharding(self.mesh, PartitionSpec()))(state)

    def like(self, state: TrainState) -> TrainState:
        """Shapes, dtypes and shardings of this phase's states, given a state of any phase."""
        opt_state = jax.eval_shape(lambda params: self.tx.init(select(params, self.trainable)), state.params)
        replicated = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), dataclasses.replace(state, opt_state=opt_state)
        )


def create(
    config: Config,
    model: Network,
    freezing: freeze.Freezing,
    schedule: optax.Schedule,
    total_steps: int,
    weights: np.ndarray | None,
    mesh: Mesh,
) -> tuple[Phase, ...]:
    """Returns the phases of a training.

    Args:
      config: the whole config.
      model: what is trained; of its parameters only the names and shapes count.
      freezing: its stages.
      schedule: learning rate by step.
      total_steps: of the training.
      weights: of the classes in the loss, float32 [C] or None.
      mesh: of all devices.
    """
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    if weights is None:
        weights = np.ones(max(2, model.head.logits.out_features), np.float32)
    cycled = optimizer.cycled_momentum(config, total_steps)
    numbers = sharding.replicate(scalars.create(config, schedule, total_steps, weights, cycled and cycled[1]), mesh)
    depths = layer_groups.depths(model.backbone) if config.optimizer.layer_decay != 1 else None
    phases = []
    for stage in freezing.stages:
        tx = optimizer.create_optimizer(config, schedule, params, total_steps=total_steps, since=stage.since, depths=depths)
        compiled = make_train_step(config, freeze.graphdef_of(model, stage.frozen_norms), mesh, stage.since, depths)
        phases.append(Phase(stage.start, stage.stop, frozenset(stage.since), tx, compiled, numbers, mesh))
    return tuple(phases)


def at(phases: Sequence[Phase], step: int) -> int:
    """The place of the phase whose state a checkpoint of this step holds: at a boundary, of the one that ends there."""
    return next(i for i, phase in enumerate(phases) if step <= phase.stop)
