"""The numbers of a training that its compiled step takes as arguments: runs that differ only in them share one compilation.

Learning rates by step and whatever shapes them, weight decay, momentum, clipping, the average's decay, label smoothing, class weights and
the seed. Whether there is any decay, clipping or average at all belongs to the program, as does everything that no field below names.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from imgclf import config as config_lib
from imgclf.config import Config, parse_arguments
from imgclf.training import mixing

# Fields that the compiled step does not know: it is given their values, or they matter elsewhere.
_NOT_COMPILED = re.compile(
    r"name|seed|data\.(?!mean$|std$).*|loader\..*|probe\..*|eval\..*"
    r"|augment\..*"  # drawn on the host, or an argument too
    r"|train\.(method|duration|label_smoothing|class_weights|log_every|eval_every|checkpoint_.*|best_metric|early_stopping\..*|soup)"
    r"|optimizer\.(learning_rate|schedule\..*)"
)
# It knows whether these are 0, which is what a config without them means; their values it is given.
_ON_OR_OFF = ("train.clip_norm", "train.ema", "optimizer.weight_decay")
_MOMENTUM = re.compile(r"\bmomentum\s*=\s*[\d.eE+-]+")  # in optimizer.args


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scalars:
    """The numbers of a training, or, of what `at` returns, those of a step. All float32 but the key; 0-d where no shape is given."""

    learning_rate: ArrayLike  # [T] by step; at a step 0-d
    cycled_momentum: ArrayLike | None  # likewise, where one_cycle moves the momentum
    momentum: ArrayLike | None  # of optimizer.args
    weight_decay: ArrayLike
    clip_norm: ArrayLike
    ema: ArrayLike
    label_smoothing: ArrayLike
    class_weights: ArrayLike  # [C]
    mixing: dict[str, ArrayLike] | None  # what `mixing.draw` takes; None = nothing is mixed
    dropout_key: ArrayLike  # its data, uint32

    def at(self, step: ArrayLike, every: int) -> "Scalars":
        """Those of a step, counted in batches from 0; an update that `every` batches add up to has the rate of the first of them."""
        first = step // every * every
        rate = self.learning_rate[jnp.minimum(first, len(self.learning_rate) - 1)]
        cycled = self.cycled_momentum
        if cycled is not None:
            cycled = cycled[jnp.minimum(first, len(cycled) - 1)]
        return dataclasses.replace(self, learning_rate=rate, cycled_momentum=cycled)


def create(
    config: Config, schedule: optax.Schedule, total_steps: int, class_weights: np.ndarray, cycled_momentum: optax.Schedule | None = None
) -> Scalars:
    """Takes the numbers out of a config.

    Args:
      config: the whole config.
      schedule: learning rate by step.
      total_steps: of the training.
      class_weights: float32 [C].
      cycled_momentum: by step.
    """
    momentum = parse_arguments(config.optimizer.args, "optimizer.args").get("momentum")
    return Scalars(
        learning_rate=_by_step(schedule, total_steps),
        cycled_momentum=None if cycled_momentum is None else _by_step(cycled_momentum, total_steps),
        momentum=np.float32(momentum) if isinstance(momentum, int | float) and not isinstance(momentum, bool) else None,
        weight_decay=np.float32(config.optimizer.weight_decay),
        clip_norm=np.float32(config.train.clip_norm),
        ema=np.float32(config.train.ema),
        label_smoothing=np.float32(config.train.label_smoothing),
        class_weights=np.asarray(class_weights, np.float32),
        mixing=mixing.parameters(config),
        dropout_key=np.asarray(jax.random.key_data(jax.random.key(config.seed))),
    )


def _by_step(schedule: optax.Schedule, total_steps: int) -> np.ndarray:
    """A schedule's values, float32; their number is a power of two, so that few lengths of training mean few compilations."""
    length = 1 << max(10, (total_steps - 1).bit_length())
    return np.asarray(jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32))(jnp.arange(length)))


def structure(config: Config) -> Config:
    """A copy with the defaults, or 1 for "on", where the compiled step is given the values, so that it can't depend on them."""
    fields, defaults = config_lib.flatten(config), config_lib.flatten(config_lib.default_config())
    own = {name: defaults[name] for name in fields if _NOT_COMPILED.fullmatch(name)}
    own |= {name: float(bool(fields[name])) for name in _ON_OR_OFF}
    own["optimizer.args"] = _MOMENTUM.sub("momentum=1.0", config.optimizer.args)
    own["optimizer.schedule.name"] = "one_cycle" if config.optimizer.schedule.name == "one_cycle" else "constant"
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(own)
    return copy
