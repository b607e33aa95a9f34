"""The optimizer of a training: clipping, weight decay and learning rates by regex table, the parameters' average, accumulation.

There is one way: `create_optimizer` resolves the config into an `Optimizer`, which makes the state and takes the steps. The numbers that
differ from run to run or from step to step, such as the learning rate, are no part of it: `Scalars` brings them to each step as arrays, so
that one compiled program serves them all.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from imgclf.config import Config
from imgclf.errors import UserError
from imgclf.models.weights.conversion import flatten, nest
from imgclf.training import optimizer_names
from imgclf.training.optimizer_names import Make
from imgclf.training.parameter_tables import lr_multipliers, match_table
from imgclf.training.scalars import Scalars, momentum_argument
from imgclf.training.state import Tree, overlay, select

# Their weight decay stands inside a trust ratio, so it can't be added from outside.
_INTERNAL_DECAY = {"lamb": "mask", "lars": "weight_decay_mask"}

_ByPath = tuple[tuple[str, Any], ...]  # a value for each parameter, hashable


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What an optimizer does, but for the numbers; hashable, as it is part of the key of a compiled step.

    Attributes:
      name: of `config.optimizer`, for messages.
      make: called with `learning_rate` and `arguments`, it returns the transformation in the middle.
      arguments: names and literals (as text, since a list has no hash) of `config.optimizer.args`, but for a momentum in `Scalars`.
      momentum: the name of that argument; "" = there is none.
      decay: the multiplier of each parameter's weight decay; () = no decay.
      decay_mask: the argument by which an optimizer with a decay inside a trust ratio takes a mask; "" = the decay is added outside.
      decoupled: the decay is added after the optimizer and times the learning rate (Loshchilov & Hutter, 2019), as the optimizer has such
        a decay of its own; else it is an L2 penalty's gradient, added before.
      rates: the multiplier of each parameter's learning rate; () = all are 1.
      starts: with stages of freezing, the step since which each parameter trains: those of one start count their updates together, so that
        bias correction starts with them; () = all together.
      clips: whether the gradient's global norm is bounded.
      averages: whether the average of the parameters is kept.
      accumulate: how many batches are one update.
    """

    name: str
    make: Make
    arguments: tuple[tuple[str, str], ...]
    momentum: str
    decay: _ByPath
    decay_mask: str
    decoupled: bool
    rates: _ByPath
    starts: _ByPath
    clips: bool
    averages: bool
    accumulate: int

    def init(self, params: Tree, scalars: Scalars) -> optax.OptState:
        """The state before the first step, for the parameters that train; `scalars` are those of that step."""
        return self._transformation(scalars).init(params)

    def update(self, grads: Tree, state: optax.OptState, params: Tree, scalars: Scalars) -> tuple[Tree, optax.OptState]:
        """Returns what is to be added to the parameters that train, and the next state; `scalars` are those of this step."""
        return self._transformation(scalars).update(grads, state, params)

    def _transformation(self, scalars: Scalars) -> optax.GradientTransformation:
        """Clip → optimizer with weight decay → learning rates → average → accumulation."""
        parts = [optax.clip_by_global_norm(scalars.clip_norm)] if self.clips else []
        optimizer = self._optimizer(scalars)
        if not self.decay or self.decay_mask:
            parts.append(optimizer)
        elif self.decoupled:
            parts += [optimizer, _add_decay(-scalars.learning_rate * scalars.weight_decay, _tree(self.decay))]
        else:
            parts += [_add_decay(scalars.weight_decay, _tree(self.decay)), optimizer]
        if self.rates:
            parts.append(_multiply(_tree(self.rates)))
        if self.averages:
            parts.append(parameter_ema(scalars.ema))
        tx = optax.chain(*parts)
        return optax.MultiSteps(tx, self.accumulate).gradient_transformation() if self.accumulate > 1 else tx

    def _optimizer(self, scalars: Scalars) -> optax.GradientTransformation:
        keywords: dict[str, Any] = {name: ast.literal_eval(text) for name, text in self.arguments}
        keywords["learning_rate"] = scalars.learning_rate
        if self.momentum:
            keywords[self.momentum] = scalars.momentum
        if self.decay_mask and self.decay:
            keywords |= {"weight_decay": scalars.weight_decay, self.decay_mask: jax.tree.map(bool, _tree(self.decay))}
        if not self.starts:
            return self.make(**keywords)
        labels = _tree(tuple((name, str(start)) for name, start in self.starts))
        return optax.partition({label: self.make(**keywords) for label in sorted({str(start) for _, start in self.starts})}, labels)


def create_optimizer(
    config: Config,
    params: Tree,
    *,
    since: Mapping[str, int] | None = None,
    depths: Mapping[str, int] | None = None,
    norm_gains: Mapping[str, float] | None = None,
) -> Optimizer:
    """Resolves `config.optimizer` and what `config.train` says of updates.

    A parameter's own learning rate (`lr_multipliers`) applies to its step and to its decay, as it does in BEiT's and ELECTRA's code.

    Args:
      config: the whole config.
      params: all parameters, for the regex tables; only their paths count.
      since: names of those that train, the only ones that the result is for, and the step since which each does; None = all, from 0.
      depths: of the backbone's layer groups where there is a layer_decay.
      norm_gains: of kernels, by which their learning rates are divided; see `freeze.norm_gains`.

    Raises:
      UserError: for an unknown optimizer, arguments that it doesn't take, or a table that doesn't fit.
    """
    options, train = config.optimizer, config.train
    make, arguments = optimizer_names.find(options.name), optimizer_names.arguments_of(config)
    has_decay = optimizer_names.takes(make, "weight_decay")
    decay: Tree = {}
    if options.weight_decay:
        decay = _of_trained(match_table(options.weight_decay_table, params, "config.optimizer.weight_decay_table"), since)
        if options.name in _INTERNAL_DECAY and any(value not in (0.0, 1.0) for value in jax.tree.leaves(decay)):
            raise UserError(f"config.optimizer.weight_decay_table: optax.{options.name} knows only the multipliers 0 and 1.")
    momentum = momentum_argument(config)
    arguments.pop(momentum, None)
    if has_decay:
        arguments["weight_decay"] = 0.0  # optax's defaults differ from one optimizer to the next
    rates = _of_trained(lr_multipliers(config, params, depths, norm_gains), since)
    return Optimizer(
        name=options.name,
        make=make,
        arguments=tuple((name, repr(value)) for name, value in arguments.items()),
        momentum=momentum,
        decay=_by_path(decay),
        decay_mask=_INTERNAL_DECAY.get(options.name, ""),
        decoupled=has_decay,
        rates=_by_path(rates) if any(rate != 1 for rate in jax.tree.leaves(rates)) else (),
        starts=tuple(sorted(since.items())) if since is not None and config.freeze.stages else (),
        clips=bool(train.clip_norm),
        averages=bool(train.ema),
        accumulate=train.accumulate,
    )


def _of_trained(tree: Tree, since: Mapping[str, int] | None) -> Tree:
    return tree if since is None else select(tree, since)


def _by_path(tree: Tree) -> _ByPath:
    return tuple(flatten(tree).items())


def _tree(values: _ByPath) -> Tree:
    return nest(dict(values))


class ParameterEmaState(NamedTuple):
    """Of `parameter_ema`: the number of updates, int32 [], and the averages, which are like the parameters."""

    updates: jax.Array
    ema: Tree


def parameter_ema(decay: ArrayLike) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters after each update; the updates pass unchanged.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that a short run isn't ruled by its initial values
    (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """

    def init(params: Tree) -> ParameterEmaState:
        return ParameterEmaState(updates=jnp.zeros((), jnp.int32), ema=jax.tree.map(jnp.array, params))

    def update(updates: Tree, state: ParameterEmaState, params: Tree | None = None) -> tuple[Tree, ParameterEmaState]:
        count = state.updates.astype(jnp.float32)
        now = jnp.minimum(decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda e, p, u: now * e + (1 - now) * (p + u).astype(e.dtype), state.ema, params, updates)
        return updates, ParameterEmaState(updates=state.updates + 1, ema=ema)

    return optax.GradientTransformation(init, update)


def evaluated_params(params: Tree, opt_state: optax.OptState) -> Tree:
    """Returns the parameters, with the averages of those that train where the optimizer keeps them."""
    # by its type: some optimizers, such as signum, keep an "ema" of their own, which is one of gradients
    states = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, ParameterEmaState))
    averages = next((state.ema for state in states if isinstance(state, ParameterEmaState)), None)
    return params if averages is None else overlay(params, averages)


def _add_decay(factor: ArrayLike, multipliers: Tree) -> optax.GradientTransformation:
    """Adds factor · multiplier · param to each update."""

    def add(updates: Tree, params: Tree | None) -> Tree:
        return jax.tree.map(lambda u, p, m: u + (factor * m * p).astype(u.dtype), updates, params, multipliers)

    return optax.stateless(add)


def _multiply(multipliers: Tree) -> optax.GradientTransformation:
    """Multiplies updates, whatever the optimizer made of the gradients: as if each parameter had a learning rate of its own."""
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, m: u * jnp.asarray(m, u.dtype), updates, multipliers))
