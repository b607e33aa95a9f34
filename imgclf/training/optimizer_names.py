"""Optimizers by name: `adamw` of optax, `optax.contrib.muon`, or `my_module:make` of the user's own."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imgclf.config import Config, parse_arguments, user_code
from imgclf.errors import UserError, nearest

Make = Callable[..., optax.GradientTransformation]

# Their update needs more than gradients (a loss value, a line search, noise seeds), or their learning rate can't follow a schedule.
_UNSUITABLE = {"lbfgs", "noisy_sgd", "optimistic_adam", "optimistic_adam_v2", "optimistic_gradient_descent", "polyak_sgd", "rprop", "sm3"}
# Their parameters are not those that should be evaluated: the averages that should be lie in the state.
_UNSUITABLE |= {"schedule_free", "schedule_free_adamw", "schedule_free_sgd"}


def find(name: str) -> Make:
    """Returns the function that a config's `optimizer.name` stands for.

    Args:
      name: of a function of optax (`adamw`, `optax.contrib.muon`), or `module:attribute`; either takes `learning_rate`, a float32
        scalar that differs from step to step, and returns an `optax.GradientTransformation`.

    Raises:
      UserError: for what doesn't exist, with the nearest names, is no such function, or doesn't suit.
    """
    if ":" in name:
        make = user_code.load(name, "optimizer.name")
        if not callable(make):
            raise UserError(f"config.optimizer.name={name!r} is {make!r}, which can't be called; name a function that makes an optimizer.")
        if not _takes_learning_rate(make):
            raise UserError(f"config.optimizer.name={name!r} takes no learning_rate; give the function a parameter of this name.")
        return make
    module, attribute = _module_of(name)
    make = getattr(module, attribute, None)
    if not callable(make) or attribute.startswith("_"):
        raise UserError(
            f"config.optimizer.name={name!r} is no optax optimizer; {nearest(attribute, names(module))} One of your own: 'my_module:make'."
        )
    if attribute not in names(module):
        why = (
            "needs more than gradients, or can't follow a schedule" if attribute in _UNSUITABLE else "is no optimizer with a learning rate"
        )
        raise UserError(f"config.optimizer.name={name!r} does not suit: it {why}. These do: {', '.join(names(module))}.")
    return make


@functools.cache
def names(module: ModuleType = optax) -> list[str]:
    """The optimizers of a module of optax that a config may use."""
    return sorted(
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith(("_", "scale_by")) and name not in _UNSUITABLE and _takes_learning_rate(value)
    )


def _module_of(name: str) -> tuple[ModuleType, str]:
    """The module of optax that a dotted name stands in, and the name there; `adamw` is `optax.adamw`."""
    *parts, attribute = name.removeprefix("optax.").split(".")
    try:
        return importlib.import_module(".".join(["optax", *parts])), attribute
    except ModuleNotFoundError:
        raise UserError(
            f"config.optimizer.name={name!r}: optax has no module {'.'.join(parts)!r}; write a name of optax, 'optax.contrib.muon', or "
            "'my_module:make'."
        ) from None


def parameters_of(make: Make) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(make).parameters


def takes(make: Make, argument: str) -> bool:
    """Whether a function has a parameter of this name, or takes any."""
    accepted = parameters_of(make)
    return argument in accepted or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in accepted.values())


def _takes_learning_rate(make: Make) -> bool:
    try:
        return takes(make, "learning_rate")
    except ValueError:  # a built-in function has no signature
        return False


def arguments_of(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `config.optimizer.args`.

    Raises:
      UserError: for an unknown optimizer or argument, with the nearest ones.
    """
    options = config.optimizer
    make = find(options.name)
    arguments = parse_arguments(options.args, "optimizer.args")
    for name in arguments:
        if name in ("learning_rate", "weight_decay"):
            raise UserError(f"config.optimizer.args={options.args!r}: set config.optimizer.{name} instead.")
        if not takes(make, name):
            raise UserError(
                f"config.optimizer.args={options.args!r}: {title(options.name)} takes no {name!r}; {nearest(name, parameters_of(make))}"
            )
    return arguments


def title(name: str) -> str:
    """How messages call an optimizer: `optax.adamw`, `my_module:make`."""
    return name if ":" in name else "optax." + name.removeprefix("optax.")


def check(config: Config) -> None:
    """Tries the optimizer of a config on the shapes of two small arrays.

    Raises:
      UserError: for an unknown one, arguments that it doesn't take, and one whose steps need more than gradients and parameters.
    """
    options = config.optimizer
    make, arguments = find(options.name), arguments_of(config)
    example = {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32), "bias": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def step(rate: jax.Array, params: dict[str, jax.Array]) -> Any:
        tx = make(learning_rate=rate, **arguments)
        if not isinstance(tx, optax.GradientTransformation):
            raise TypeError(f"it returns {type(tx).__name__}, no optax.GradientTransformation")
        return tx.update(params, tx.init(params), params)

    try:
        jax.eval_shape(step, jax.ShapeDtypeStruct((), jnp.float32), example)
    except Exception as error:  # whatever optax or the user's own code raises
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        given = f" with config.optimizer.args={options.args!r}" if options.args else ""
        raise UserError(f"config.optimizer.name={options.name!r} can't be used{given}: {reason}.") from error
