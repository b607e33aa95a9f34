"""Where the values of a program lie on the devices, as far as a model has a say in it: at the layer that makes the logits.

Where a mesh has several devices in `model`, each of them has some of the classes, while each image's features are made on one device alone:
they are exchanged among the devices of `model` just before that layer. So no device computes an image twice, and none sees all logits.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def classes_over(mesh: Mesh) -> Iterator[None]:
    """Programs that are traced in the block have the classes of their logits split over the mesh's `model`."""
    token = _mesh.set(mesh if mesh.shape.get("model", 1) > 1 else None)
    try:
        yield
    finally:
        _mesh.reset(token)


def splits_classes() -> bool:
    """Whether the program that is being traced splits classes."""
    return _mesh.get() is not None


def for_classes(values: jax.Array) -> jax.Array:
    """Values [B, …] that all devices of `model` have, as each of them needs them for its classes."""
    return _constrained(values, ("data", "fsdp"))


def by_class(values: jax.Array) -> jax.Array:
    """Values [B, …, C], such as logits, of which each device of `model` has its classes."""
    between = (None,) * (values.ndim - 2)
    return _constrained(values, ("data", "fsdp"), *between, "model")


def most_likely(logits: jax.Array) -> jax.Array:
    """The class of the largest logit, the first of equals: float32 [B,C] to int32 [B]."""
    if not splits_classes():
        return jnp.argmax(logits, -1)
    # argmax would exchange the numbers of all classes, too
    classes = by_class(jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1))
    largest = logits == for_classes(logits.max(-1))[:, None]
    return for_classes(jnp.where(largest, classes, logits.shape[-1]).min(-1))


def _constrained(values: jax.Array, *entries: tuple[str, ...] | str | None) -> jax.Array:
    mesh = _mesh.get()
    return values if mesh is None else jax.lax.with_sharding_constraint(values, NamedSharding(mesh, PartitionSpec(*entries)))
