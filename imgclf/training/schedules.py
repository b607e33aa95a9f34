"""The learning rate and the momentum over the steps of a training."""

import optax
from jax.typing import ArrayLike

from imgclf.config import Config, durations
from imgclf.errors import UserError

# fastai's fit_one_cycle: share of the steps that rise, lr / start, lr / end, momentum at both ends and in between
_CYCLE_RISES, _CYCLE_START, _CYCLE_END, _CYCLE_MOMENTUM = 0.25, 25.0, 1e5, (0.95, 0.85)


def create_schedule(config: Config, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Returns the learning rate as a function of the step (batches seen), from `config.optimizer`.

    `time` is Keras's `decay` argument: lr / (1 + rate · step). `exponential` is smooth: lr · rate^(step / every).
    The warm-up is part of `total_steps`; the schedule proper starts after it, `step`'s boundaries count from the first step.
    `one_cycle` is fastai's (https://docs.fast.ai/callback.schedule.html; Smith and Topin, 2017): up from lr / 25 over the first quarter,
    down to lr / 1e5, along cosines.

    Raises:
      UserError: for a warm-up that is as long as the training.
    """
    options = config.optimizer.schedule
    peak = config.optimizer.learning_rate

    def to_steps(duration: str, field: str) -> float:
        name = f"config.optimizer.schedule.{field}"
        return durations.length(duration, steps_per_epoch=steps_per_epoch, total_steps=total_steps, field=name)

    warmup = int(to_steps(options.warmup, "warmup"))
    if warmup >= total_steps:
        raise UserError(
            f"config.optimizer.schedule.warmup={options.warmup!r} is {warmup} steps, and the whole training {total_steps}; shorten it."
        )
    if options.name == "constant":
        base = optax.constant_schedule(peak)
    elif options.name == "cosine":
        base = optax.cosine_decay_schedule(peak, total_steps - warmup, alpha=options.final)
    elif options.name == "linear":
        base = optax.linear_schedule(peak, options.final * peak, total_steps - warmup)
    elif options.name == "step":
        boundaries = [round(to_steps(str(boundary), "boundaries")) - warmup for boundary in options.boundaries]
        base = optax.piecewise_constant_schedule(peak, {boundary: options.rate for boundary in boundaries})
    elif options.name == "exponential":
        base = optax.exponential_decay(peak, to_steps(options.every, "every"), options.rate)
    elif options.name == "one_cycle":
        base = optax.cosine_onecycle_schedule(total_steps - warmup, peak, _CYCLE_RISES, _CYCLE_START, _CYCLE_END / _CYCLE_START)
    else:

        def base(step: ArrayLike) -> ArrayLike:
            return peak / (1 + options.rate * step)

    if not warmup:
        return base
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), base], [warmup])


def cycled_momentum(total_steps: int) -> optax.Schedule:
    """Returns the momentum as a function of the step, as one_cycle moves it against the learning rate."""
    high, low = _CYCLE_MOMENTUM
    turns = {int(_CYCLE_RISES * total_steps): low / high, total_steps: high / low}
    return optax.schedules.piecewise_interpolate_schedule("cosine", high, turns)
