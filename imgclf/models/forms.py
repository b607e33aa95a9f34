"""Which of several implementations of a layer a program gets: the one place where that is chosen.

A program that trains or predicts may depend on the devices that it is for, and on how many images come at a time: `on_devices_of` says
which devices these are, as a program may be compiled for others than this process has. One that leaves the machine may depend on neither.
`portable` is the switch for that, which all layers ask.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax import lax
from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices that a program is for: what they are, "cpu", "gpu" or "tpu", and how many."""

    platform: str
    devices: int


_target: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


_stand_in: contextvars.ContextVar[Target | None] = contextvars.ContextVar("stand_in", default=None)


@contextlib.contextmanager
def meshes_stand_for(devices: Target) -> Iterator[None]:
    """Meshes in the block stand for other devices, such as no installed compiler describes: their programs can be traced and lowered."""
    token = _stand_in.set(devices)
    try:
        yield
    finally:
        _stand_in.reset(token)


def target_of(mesh: Mesh) -> Target:
    """The devices of a mesh, which may be described ones that this process doesn't have."""
    if (other := _stand_in.get()) is not None:
        return other
    platform = mesh.devices.flat[0].platform
    return Target("gpu" if platform == "cuda" else platform, mesh.devices.size)


@contextlib.contextmanager
def on_devices_of(mesh: Mesh) -> Iterator[None]:
    """Programs that are traced in the block, and networks that are made there, are for the devices of this mesh.

    Enter it in the traced function itself, as tracing happens whenever `jax.jit` finds it necessary.
    """
    token = _target.set(target_of(mesh))
    try:
        yield
    finally:
        _target.reset(token)


def target() -> Target:
    """The devices that what is made or traced is for; outside of `on_devices_of`, those of this process's default backend."""
    return _target.get() or Target(jax.default_backend(), jax.device_count())


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
    """`cpu` or `default` of the arguments, as the devices ask for; nothing of the other is in the program, nor even traced.

    Only a program that goes to every platform has both, until it is compiled there.
    """
    if _portable.get() == "every platform":
        return lax.platform_dependent(*args, cpu=cpu, default=default)
    on_cpu = _portable.get() is None and target().platform == "cpu"
    return (cpu if on_cpu else default)(*args)


def on_one_cpu() -> bool:
    """Whether the program is for a single CPU device, so that it may be cut to its cache."""
    return not is_portable() and target() == Target("cpu", 1)
