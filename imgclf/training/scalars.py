"""The numbers of a training that its compiled step takes as arguments: runs that differ only in them share one compilation.

Learning rates by step and whatever shapes them, weight decay, momentum, clipping, the average's decay, label smoothing, class weights and
the seed. Whether there is any decay, clipping or average at all belongs to the program (`step.StepProgram`).
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imgclf.config import Config, parse_arguments
from imgclf.training import mixing, optimizer_names, schedules

Number = jax.Array | np.ndarray | np.float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scalars:
    """The numbers of a training, or, of what `at` returns, those of a step. All float32 but the key; 0-d where no shape is given.

    Those of a training stay with the host, in numpy's arrays, until a step is called: a program may be made for devices that aren't here.
    """

    learning_rate: Number  # [T] by step; at a step 0-d
    momentum: Number | None  # likewise; None where the optimizer takes none, or has its own
    weight_decay: Number
    clip_norm: Number
    ema: Number
    label_smoothing: Number
    class_weights: Number  # [C]
    mixing: Mapping[str, Number] | None  # what `mixing.draw` takes; None = nothing is mixed
    dropout_key: jax.Array | np.ndarray  # its data, uint32

    def at(self, step: jax.Array | int, every: int) -> "Scalars":
        """Those of a step, counted in batches from 0; an update that `every` batches add up to has the rate of the first of them."""
        first = step // every * every

        def now(by_step: Number) -> Number:
            if isinstance(first, int) and isinstance(by_step, np.ndarray):
                return by_step[min(first, len(by_step) - 1), ...]  # by NumPy, which needs no program
            values = jnp.asarray(by_step)
            return values[jnp.minimum(first, len(values) - 1)]

        return dataclasses.replace(
            self, learning_rate=now(self.learning_rate), momentum=None if self.momentum is None else now(self.momentum)
        )


def create(config: Config, schedule: optax.Schedule, total_steps: int, class_weights: np.ndarray) -> Scalars:
    """Takes the numbers out of a config.

    Args:
      config: the whole config.
      schedule: learning rate by step.
      total_steps: of the training.
      class_weights: float32 [C].
    """
    return Scalars(
        learning_rate=_by_step(schedule, total_steps),
        momentum=_momentum(config, total_steps),
        weight_decay=np.float32(config.optimizer.weight_decay),
        clip_norm=np.float32(config.train.clip_norm),
        ema=np.float32(config.train.ema),
        label_smoothing=np.float32(config.train.label_smoothing),
        class_weights=np.asarray(class_weights, np.float32),
        mixing=mixing.parameters(config),
        dropout_key=np.asarray(jax.random.key_data(jax.random.key(config.seed))),
    )


def momentum_argument(config: Config) -> str:
    """The argument of the optimizer that `Scalars.momentum` is for; "" = there is none.

    That is `momentum` where `config.optimizer.args` gives it as a number to an optimizer of optax's; and with one_cycle, which moves it
    against the learning rate, sgd's `momentum` or another's `b1`, unless the args give it.
    """
    options = config.optimizer
    given = parse_arguments(options.args, "optimizer.args")
    cycled = "momentum" if options.name == "sgd" else "b1"
    if options.schedule.name == "one_cycle" and cycled not in given and cycled in optimizer_names.parameters_of(_make(config)):
        return cycled
    number = given.get("momentum")
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return "momentum" if is_number and ":" not in options.name else ""


def _momentum(config: Config, total_steps: int) -> np.ndarray | None:
    name = momentum_argument(config)
    given = parse_arguments(config.optimizer.args, "optimizer.args")
    if not name:
        return None
    return _by_step(optax.constant_schedule(given[name]) if name in given else schedules.cycled_momentum(total_steps), total_steps)


def _make(config: Config) -> optimizer_names.Make:
    return optimizer_names.find(config.optimizer.name)


def _by_step(schedule: optax.Schedule, total_steps: int) -> np.ndarray:
    """A schedule's values, float32; their number is a power of two, so that few lengths of training mean few compilations."""
    length = 1 << max(10, (total_steps - 1).bit_length())
    # compiled as one: op by op, the two dozen of a schedule's are as many programs to look for, a third of a second at each start
    return np.asarray(jax.jit(jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32)))(jnp.arange(length)))
