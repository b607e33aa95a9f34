"""Optimizers by their name in optax, learning-rate schedules, weight decay by regex table, and the average of the parameters."""

import difflib
import inspect
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from imgclf import durations
from imgclf.config import parse_arguments
from imgclf.errors import UserError, nearest
from imgclf.training.state import Tree, path_name

# Their update needs more than gradients (a loss value, a line search, noise seeds), or their learning rate can't follow a schedule.
_UNSUITABLE = {"lbfgs", "noisy_sgd", "optimistic_adam", "optimistic_adam_v2", "optimistic_gradient_descent", "polyak_sgd", "rprop", "sm3"}
# Their weight decay stands inside a trust ratio, so it can't be added from outside.
_INTERNAL_DECAY = {"lamb": "mask", "lars": "weight_decay_mask"}


def optimizer_names() -> list[str]:
    """Names of the optax optimizers that a config may use."""
    names = []
    for name, value in vars(optax).items():
        if name.startswith("_") or name in _UNSUITABLE or not inspect.isfunction(value):
            continue
        if "learning_rate" in inspect.signature(value).parameters and not name.startswith("scale_by"):
            names.append(name)
    return sorted(names)


def create_schedule(config: ConfigDict, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Returns the learning rate as a function of the step (batches seen), from `config.optimizer`.

    `time` is Keras's `decay` argument: lr / (1 + rate · step). `exponential` is smooth: lr · rate^(step / every).
    The warm-up is part of `total_steps`; the schedule proper starts after it, `step`'s boundaries count from the first step.
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
    elif options.name == "step":
        boundaries = [round(to_steps(str(boundary), "boundaries")) - warmup for boundary in options.boundaries]
        base = optax.piecewise_constant_schedule(peak, {boundary: options.rate for boundary in boundaries})
    elif options.name == "exponential":
        base = optax.exponential_decay(peak, to_steps(options.every, "every"), options.rate)
    else:

        def base(step):
            return peak / (1 + options.rate * step)

    if not warmup:
        return base
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), base], [warmup])


def match_table(table: tuple[tuple[str, float], ...], params: Tree, field: str) -> Tree:
    """Maps each parameter to the value of the first row whose regex matches its whole path.

    Raises:
      UserError: for a parameter that no row covers, or a row that matches no parameter, with the nearest names.
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    matched = {pattern: False for pattern, _ in table}

    def value_of(path, _):
        name = path_name(path)
        value = None
        for pattern, row_value in table:
            if re.fullmatch(pattern, name):
                matched[pattern] = True  # also where an earlier row took it: the pattern is no slip
                value = row_value if value is None else value
        if value is None:
            raise UserError(f"{field} has no row for parameter {name!r}; add one, such as ('.*', 1.0) at the end.")
        return value

    values = jax.tree_util.tree_map_with_path(value_of, params)
    for pattern, found in matched.items():
        if not found:
            plain = re.sub(r"[^\w/]+", "", pattern)
            near = difflib.get_close_matches(plain, names, n=3, cutoff=0.3) or names[:3]
            raise UserError(f"{field} has a row {pattern!r} that matches no parameter; near misses: {', '.join(near)}.")
    return values


class EmaState(NamedTuple):
    updates: jax.Array  # how many there were
    ema: Tree


def parameter_ema(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters after each update; the updates pass unchanged.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that a short run isn't ruled by its initial values
    (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """

    def init(params: Tree) -> EmaState:
        return EmaState(updates=jnp.zeros((), jnp.int32), ema=jax.tree.map(jnp.array, params))

    def update(updates, state: EmaState, params=None):
        count = state.updates.astype(jnp.float32)
        now = jnp.minimum(decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda e, p, u: now * e + (1 - now) * (p + u).astype(e.dtype), state.ema, params, updates)
        return updates, EmaState(updates=state.updates + 1, ema=ema)

    return optax.GradientTransformation(init, update)


def evaluated_params(params: Tree, opt_state: optax.OptState) -> Tree:
    """Returns the averaged parameters where the optimizer keeps them, else `params`."""
    return optax.tree.get(opt_state, "ema", params)


def _decay_by_table(schedule: optax.Schedule | None, weight_decay: float, multipliers: Tree) -> optax.GradientTransformation:
    """Adds weight_decay · multiplier · param; times −schedule(step) where a schedule is given (decoupled, after the optimizer)."""

    def init(params: Tree):
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        factor = weight_decay if schedule is None else -schedule(state.count) * weight_decay
        updates = jax.tree.map(lambda u, p, m: u + (factor * m * p).astype(u.dtype), updates, params, multipliers)
        return updates, optax.ScaleByScheduleState(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def check_optimizer(config: ConfigDict) -> dict[str, Any]:
    """Returns the keyword arguments of `config.optimizer.args`.

    Raises:
      UserError: for an unknown optimizer or argument, with the nearest ones.
    """
    options = config.optimizer
    if options.name not in optimizer_names():
        raise UserError(f"config.optimizer.name={options.name!r} is no optax optimizer; {nearest(options.name, optimizer_names())}")
    accepted = inspect.signature(getattr(optax, options.name)).parameters
    arguments = parse_arguments(options.args, "optimizer.args")
    for name in arguments:
        if name in ("learning_rate", "weight_decay"):
            raise UserError(f"config.optimizer.args={options.args!r}: set config.optimizer.{name} instead.")
        if name not in accepted:
            raise UserError(f"config.optimizer.args={options.args!r}: optax.{options.name} takes no {name!r}; {nearest(name, accepted)}")
    return arguments


def create_optimizer(config: ConfigDict, schedule: optax.Schedule, params: Tree) -> optax.GradientTransformation:
    """Builds clip → optimizer with weight decay → average → accumulation, from `config.optimizer` and `config.train`.

    Weight decay is decoupled where the optimizer has a decay of its own (adamw, nadamw, …: Loshchilov & Hutter, 2019),
    else it is an L2 penalty's gradient (sgd, rmsprop, adam, …). `params` gives the names for the regex table.

    Raises:
      UserError: for an unknown optimizer, arguments that it doesn't take, or a table that doesn't fit.
    """
    options, arguments = config.optimizer, check_optimizer(config)
    make = getattr(optax, options.name)
    accepted = inspect.signature(make).parameters
    every = config.train.accumulate

    def per_update(count):  # inside the accumulation, a count of updates; the schedule counts batches
        return schedule(count * every)

    parts = []
    if config.train.clip_norm:
        parts.append(optax.clip_by_global_norm(config.train.clip_norm))
    own_decay = "weight_decay" in accepted
    if own_decay:
        arguments["weight_decay"] = 0.0  # optax's defaults differ from one optimizer to the next
    decay = None
    if options.weight_decay:
        multipliers = match_table(options.weight_decay_table, params, "config.optimizer.weight_decay_table")
        if options.name in _INTERNAL_DECAY:
            if any(value not in (0.0, 1.0) for value in jax.tree.leaves(multipliers)):
                raise UserError(f"config.optimizer.weight_decay_table: optax.{options.name} knows only the multipliers 0 and 1.")
            arguments |= {"weight_decay": options.weight_decay, _INTERNAL_DECAY[options.name]: jax.tree.map(bool, multipliers)}
        else:
            decay = _decay_by_table(per_update if own_decay else None, options.weight_decay, multipliers)
    try:
        optimizer = make(learning_rate=per_update, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optax.{options.name} refuses config.optimizer.args={options.args!r}: {error}.") from None
    parts += [optimizer] if decay is None else [optimizer, decay] if own_decay else [decay, optimizer]
    if config.train.ema:
        parts.append(parameter_ema(config.train.ema))
    tx = optax.chain(*parts)
    return optax.MultiSteps(tx, every).gradient_transformation() if every > 1 else tx
