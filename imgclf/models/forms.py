"""Which of several implementations of a layer a program gets: the one place where that is chosen.

A program that trains or predicts here may depend on this machine: on its platform, and on how many images come at a time. One that
leaves the machine may not. `portable` is the switch for that, which all layers ask.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax import lax

# None: programs are for this machine. "every platform": each layer's form is chosen where the program is compiled. "plain": the default
# form of each, made of operations that other engines have as well.
Portable = Literal["every platform", "plain"]
_portable: contextvars.ContextVar[Portable | None] = contextvars.ContextVar("portable", default=None)


@contextlib.contextmanager
def portable(kind: Portable) -> Iterator[None]:
    """Programs that are traced in the block depend neither on this machine nor on the number of images, which may be symbolic.

    What `jax.jit` has traced before is not traced again: trace a function of its own, as `jax.make_jaxpr(lambda image: …)` does.
    """
    token = _portable.set(kind)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether the program that is being traced leaves this machine."""
    return _portable.get() is not None


def by_platform(*args: jax.Array, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """`cpu` or `default` of the arguments, as the platform asks for when the program is lowered; nothing of the other stays in it."""
    if _portable.get() == "plain":
        return default(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=default)


def on_this_cpu() -> bool:
    """Whether the program runs on this machine's CPU, so that it may be cut to its cache."""
    return not is_portable() and jax.default_backend() == "cpu"
