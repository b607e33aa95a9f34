"""Optimizers by their name in optax, learning-rate schedules, weight decay and learning rates by regex table, the parameters' average."""

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from imgclf.config import Config, durations, parse_arguments
from imgclf.errors import UserError, nearest
from imgclf.models.layer_groups import group_of
from imgclf.models.weights.conversion import nest
from imgclf.training.scalars import Scalars
from imgclf.training.state import Tree, overlay, path_name, select

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


def create_schedule(config: Config, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Returns the learning rate as a function of the step (batches seen), from `config.optimizer`.

    `time` is Keras's `decay` argument: lr / (1 + rate · step). `exponential` is smooth: lr · rate^(step / every).
    The warm-up is part of `total_steps`; the schedule proper starts after it, `step`'s boundaries count from the first step.
    `one_cycle` is fastai's (https://docs.fast.ai/callback.schedule.html; Smith and Topin, 2017): up from lr / 25 over the first quarter,
    down to lr / 1e5, along cosines.
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
    elif options.name == "one_cycle":
        base = optax.cosine_onecycle_schedule(total_steps - warmup, peak, _CYCLE_RISES, _CYCLE_START, _CYCLE_END / _CYCLE_START)
    else:

        def base(step):
            return peak / (1 + options.rate * step)

    if not warmup:
        return base
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), base], [warmup])


# fastai's fit_one_cycle: share of the steps that rise, lr / start, lr / end, momentum at both ends and in between
_CYCLE_RISES, _CYCLE_START, _CYCLE_END, _CYCLE_MOMENTUM = 0.25, 25.0, 1e5, (0.95, 0.85)


def cycled_momentum(config: Config, total_steps: int) -> tuple[str, optax.Schedule] | None:
    """The argument of the optimizer that one_cycle moves against the learning rate, and its value by step; None = it stays.

    It is `b1`, or sgd's `momentum`, unless `config.optimizer.args` gives it.
    """
    options = config.optimizer
    accepted = inspect.signature(getattr(optax, options.name)).parameters
    name = momentum_name(options.name)
    if options.schedule.name != "one_cycle" or name not in accepted or name in parse_arguments(options.args, "optimizer.args"):
        return None
    high, low = _CYCLE_MOMENTUM
    turns = {int(_CYCLE_RISES * total_steps): low / high, total_steps: high / low}
    return name, optax.schedules.piecewise_interpolate_schedule("cosine", high, turns)


def momentum_name(optimizer: str) -> str:
    return "momentum" if optimizer == "sgd" else "b1"


def match_table(table: tuple[tuple[str, Any], ...], params: Tree, field: str, example: str = "('.*', 1.0)") -> Tree:
    """Maps each parameter to the value of the first row whose regex matches its whole path.

    Args:
      table: rows (regex, value).
      params: nested dicts.
      field: the config field, for the error message.
      example: a row that covers everything, likewise.

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
            raise UserError(f"{field} has no row for parameter {name!r}; add one, such as {example} at the end.")
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


def parameter_ema(decay: ArrayLike) -> optax.GradientTransformation:
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
    """Returns the parameters, with the averages of those that train where the optimizer keeps them."""
    averages = optax.tree.get(opt_state, "ema", None)
    return params if averages is None else overlay(params, averages)


def _decay_by_table(schedule: optax.Schedule | None, weight_decay: ArrayLike, multipliers: Tree) -> optax.GradientTransformation:
    """Adds weight_decay · multiplier · param; times −schedule(step) where a schedule is given (decoupled, after the optimizer)."""

    def init(params: Tree):
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        factor = weight_decay if schedule is None else -schedule(state.count) * weight_decay
        updates = jax.tree.map(lambda u, p, m: u + (factor * m * p).astype(u.dtype), updates, params, multipliers)
        return updates, optax.ScaleByScheduleState(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def _multiply(multipliers: Tree) -> optax.GradientTransformation:
    """Multiplies updates, whatever the optimizer made of the gradients: as if each parameter had a learning rate of its own."""
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, m: u * jnp.asarray(m, u.dtype), updates, multipliers))


def lr_multipliers(config: Config, params: Tree, depths: Mapping[str, int] | None) -> Tree:
    """The factor of each parameter's learning rate: its row of `lr_table`, times layer_decay^depth.

    `depths` gives that of each layer group of the backbone, 1 at its end (`models.layer_groups`); the head's is 0. So BEiT has it (Bao et
    al., 2022, https://arxiv.org/abs/2106.08254; `get_parameter_groups`), and ELECTRA with the depths counted from 0 at the last layer.
    """
    table = match_table(config.optimizer.lr_table, params, "config.optimizer.lr_table")
    if depths is None:
        return table

    def decayed(path, value: float) -> float:
        unit = group_of(path_name(path), depths)
        return value * config.optimizer.layer_decay ** (depths[unit] if unit else 0)

    return jax.tree_util.tree_map_with_path(decayed, table)


def check_optimizer(config: Config) -> dict[str, Any]:
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


def create_optimizer(
    config: Config,
    schedule: optax.Schedule,
    params: Tree,
    *,
    total_steps: int = 0,
    since: Mapping[str, int] | None = None,
    depths: Mapping[str, int] | None = None,
    scalars: Scalars | None = None,
) -> optax.GradientTransformation:
    """Builds clip → optimizer with weight decay → learning rates → average → accumulation, from `config.optimizer` and `config.train`.

    Weight decay is decoupled where the optimizer has a decay of its own (adamw, nadamw, …: Loshchilov & Hutter, 2019),
    else it is an L2 penalty's gradient (sgd, rmsprop, adam, …). A parameter's own learning rate (`lr_multipliers`) applies to both, as
    it does in BEiT's and ELECTRA's code.

    Args:
      config: the whole config.
      schedule: learning rate by step.
      params: all parameters, for the regex tables.
      total_steps: of the training, for what one_cycle does to the momentum.
      since: names of those that train, the only ones that the result is for, and the step since which each does; None = all, from 0.
        With stages, those that begin later have counts of their own: their bias correction starts with them.
      depths: of the backbone's units where there is a layer_decay.
      scalars: the numbers of this step, in place of the config's and the schedules'.

    Raises:
      UserError: for an unknown optimizer, arguments that it doesn't take, or a table that doesn't fit.
    """
    options, arguments = config.optimizer, check_optimizer(config)
    make = getattr(optax, options.name)
    accepted = inspect.signature(make).parameters
    every = config.train.accumulate
    cycled = cycled_momentum(config, total_steps) if total_steps else None
    clip_norm, weight_decay, ema = config.train.clip_norm, options.weight_decay, config.train.ema
    if scalars is not None:
        clip_norm, weight_decay, ema, schedule = scalars.clip_norm, scalars.weight_decay, scalars.ema, lambda _: scalars.learning_rate
        cycled = None if scalars.cycled_momentum is None else (momentum_name(options.name), lambda _: scalars.cycled_momentum)
        if scalars.momentum is not None:
            arguments["momentum"] = scalars.momentum

    def train(tree: Tree) -> Tree:
        return tree if since is None else select(tree, since)

    def per_update(of_step: optax.Schedule, start: int = 0) -> optax.Schedule:
        return lambda count: of_step(start + count * every)  # a count of updates; schedules count batches

    parts = []
    if config.train.clip_norm:
        parts.append(optax.clip_by_global_norm(clip_norm))
    own_decay = "weight_decay" in accepted
    if own_decay:
        arguments["weight_decay"] = 0.0  # optax's defaults differ from one optimizer to the next
    decay = None
    if options.weight_decay:
        multipliers = train(match_table(options.weight_decay_table, params, "config.optimizer.weight_decay_table"))
        if options.name in _INTERNAL_DECAY:
            if any(value not in (0.0, 1.0) for value in jax.tree.leaves(multipliers)):
                raise UserError(f"config.optimizer.weight_decay_table: optax.{options.name} knows only the multipliers 0 and 1.")
            arguments |= {"weight_decay": weight_decay, _INTERNAL_DECAY[options.name]: jax.tree.map(bool, multipliers)}
        else:
            decay = _decay_by_table(per_update(schedule) if own_decay else None, weight_decay, multipliers)

    def optimize(start: int) -> optax.GradientTransformation:
        keywords = {"learning_rate": per_update(schedule, start), **arguments}
        if cycled is None:
            return make(**keywords)
        name, momentum = cycled
        return optax.inject_hyperparams(lambda momentum: make(**keywords, **{name: momentum}))(momentum=per_update(momentum, start))

    try:
        if since is not None and config.freeze.stages:
            labels = nest({name: str(start) for name, start in since.items()})
            optimizer = optax.partition({str(start): optimize(start) for start in sorted(set(since.values()))}, labels)
        else:
            optimizer = optimize(0)
    except (TypeError, ValueError) as error:
        raise UserError(f"optax.{options.name} refuses config.optimizer.args={options.args!r}: {error}.") from None
    parts += [optimizer] if decay is None else [optimizer, decay] if own_decay else [decay, optimizer]
    rates = lr_multipliers(config, params, depths)
    if any(rate != 1 for rate in jax.tree.leaves(rates)):
        parts.append(_multiply(train(rates)))
    if config.train.ema:
        parts.append(parameter_ema(ema))
    tx = optax.chain(*parts)
    return optax.MultiSteps(tx, every).gradient_transformation() if every > 1 else tx
