"""The stages of training made ready to run: each with its optimizer and its compiled step, and the way from one to the next."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from imgclf.config import Config
from imgclf.models import layer_groups
from imgclf.models.network import Network
from imgclf.training import freeze, remat, scalars, sharding
from imgclf.training.layout import Layout
from imgclf.training.optimizer import create_optimizer
from imgclf.training.scalars import Scalars
from imgclf.training.state import TrainState, Tree, path_name, split_model
from imgclf.training.step import Metrics, StateShardings, StepProgram, TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer over one set of parameters, for steps start < step <= stop.

    Until its first step nothing of it is on a device, so that its program can also be made for a mesh of described devices.
    """

    start: int
    stop: int
    program: StepProgram
    compiled: TrainStep
    scalars: Scalars
    layout: Layout

    def step(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """One training step; takes over the memory of `state`."""
        return self.compiled(state, batch, self.scalars_on_devices)

    @functools.cached_property
    def scalars_on_devices(self) -> Scalars:
        """The numbers as the compiled step takes them: put on the devices once, and not again for each step."""
        return sharding.replicate(self.scalars, self.layout.mesh)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        every = self.program.optimizer.accumulate
        by_step = np.asarray(self.scalars.learning_rate)
        return float(str(by_step[min(step // every * every, len(by_step) - 1)]))  # 0.001, not the float32's 0.0010000000474974513

    def first_state(self, params: Tree, batch_stats: Tree) -> TrainState:
        """The state before the first step of a training that begins with this phase, on the devices."""
        params, batch_stats = self.layout.place((params, batch_stats))  # at first, so that what the optimizer makes of them lies likewise
        state = TrainState(step=jnp.zeros((), jnp.int32), params=params, batch_stats=batch_stats, opt_state=self._first_opt_state(params))
        return self.layout.place(state)

    def begin(self, state: TrainState) -> TrainState:
        """Takes over the state of the phase before: what the optimizer keeps of a parameter that trains on stays, what is new is fresh."""

        def carry_over(state: TrainState) -> TrainState:
            before = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)}
            fresh = self._first_opt_state(state.params)
            opt_state = jax.tree_util.tree_map_with_path(lambda path, leaf: before.get(path_name(path), leaf), fresh)
            return dataclasses.replace(state, opt_state=opt_state)

        return jax.jit(carry_over, out_shardings=self.layout.shardings(jax.eval_shape(carry_over, state)))(state)

    def like(self, state: TrainState) -> TrainState:
        """Shapes, dtypes and shardings of this phase's states, given a state of any phase."""
        opt_state = jax.eval_shape(self._first_opt_state, state.params)
        return self.layout.like(dataclasses.replace(state, opt_state=opt_state))

    def _first_opt_state(self, params: Tree) -> optax.OptState:
        optimizer = self.program.optimizer
        return optimizer.init(self.program.learned(params), self.scalars.at(self.start, optimizer.accumulate))


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

    Raises:
      UserError: for an unknown optimizer, arguments that it doesn't take, or a table that doesn't fit.
    """
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    if weights is None:
        weights = np.ones(max(2, model.head.logits.out_features), np.float32)
    numbers = scalars.create(config, schedule, total_steps, weights)
    layout = Layout.create(config.mesh, params, mesh)
    depths = layer_groups.depths(model.backbone) if config.optimizer.layer_decay != 1 else None
    phases = []
    for stage in freezing.stages:
        gains = freeze.norm_gains(model, stage.frozen_norms) if config.optimizer.undo_norm_gain else None
        program = StepProgram(
            graphdef=freeze.graphdef_of(model, stage.frozen_norms),
            mean=tuple(config.data.mean),
            std=tuple(config.data.std),
            optimizer=create_optimizer(config, params, since=stage.since, depths=depths, norm_gains=gains),
            trainable=tuple(sorted(stage.since)),
            recomputed=remat.resolve(config.train.remat, model),
        )
        compiled = make_train_step(program, layout, _shardings(program, layout, model, numbers))
        phases.append(Phase(stage.start, stage.stop, program, compiled, numbers, layout))
    return tuple(phases)


def _shardings(program: StepProgram, layout: Layout, model: Network, numbers: Scalars) -> StateShardings | None:
    """Those of the program's states, where any of it is split."""
    if not layout.splits:
        return None
    _, params, batch_stats = split_model(model)

    def first_state(params: Tree, batch_stats: Tree) -> TrainState:
        opt_state = program.optimizer.init(program.learned(params), numbers.at(0, program.optimizer.accumulate))
        return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state)

    return StateShardings.of(layout.shardings(jax.eval_shape(first_state, params, batch_stats)))


def at(phases: Sequence[Phase], step: int) -> int:
    """The place of the phase whose state a checkpoint of this step holds: at a boundary, of the one that ends there."""
    return next(i for i, phase in enumerate(phases) if step <= phase.stop)
