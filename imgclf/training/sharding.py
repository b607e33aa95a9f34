"""The mesh of all devices of all hosts, and how batches are split over it.

It is data × fsdp × model. Each batch is split over all three, so that every device computes its own images; parameters may be split over
the last two (layout.py). Where classes are split over `model`, its devices exchange their images' features before the head's last layer.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf.config.training_fields import MeshConfig
from imgclf.errors import UserError

_GATHERED = 2**24  # numbers of each process that travel at once, as the devices hold those of all processes meanwhile
AXES = ("data", "fsdp", "model")


def create_mesh(devices: Sequence[jax.Device] | None = None, sizes: MeshConfig | None = None) -> Mesh:
    """The mesh `data` × `fsdp` × `model` over devices, which are put in order: a host's stand together, whatever order they come in.

    Args:
      devices: None = all of all processes.
      sizes: `config.mesh`; None = all in `data`.

    Raises:
      UserError: where the sizes don't divide the devices.
    """
    devices = jax.devices() if devices is None else devices
    fsdp, model = (sizes.fsdp, sizes.model) if sizes is not None else (1, 1)
    _check_sizes(fsdp, model, len(devices))
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(ordered).reshape(-1, fsdp, model), AXES)


def _check_sizes(fsdp: int, model: int, count: int) -> None:
    """Raises a UserError unless fsdp × model divides the number of devices."""
    if count % (fsdp * model) == 0:
        return
    divisors = [str(size) for size in range(1, count + 1) if count % size == 0]
    fitting = f"{', '.join(divisors[:-1])} or {divisors[-1]}" if len(divisors) > 1 else "1"
    raise UserError(
        f"config.mesh.fsdp={fsdp} and config.mesh.model={model} do not divide {count} device{'s' * (count > 1)}; fsdp times model must be "
        f"{fitting}."
    )


def check_batch_size(size: int, field: str, sizes: MeshConfig, devices: int | None = None) -> None:
    """Raises a UserError unless the mesh of all devices fits, and a global batch of `size` divides evenly among them.

    Args:
      size: of the batch.
      field: of the config, that gives it.
      sizes: `config.mesh`.
      devices: how many there are; None = as many as all processes have.
    """
    count = jax.device_count() if devices is None else devices
    _check_sizes(sizes.fsdp, sizes.model, count)
    if size % count:
        down, up = size // count * count, -(-size // count) * count
        choices = f"{up}" if not down else f"{down} or {up}"
        raise UserError(f"config.{field}={size} does not divide among {count} devices; use {choices}.")


def put(tree: Any, shardings: Any) -> Any:
    """Puts a tree where `shardings`, a tree like it, says, leaf by leaf: no device ever holds more than its part.

    Every process passes equal values, or arrays that lie on the devices of all already.
    """

    def put_leaf(leaf: Any, own: NamedSharding) -> jax.Array:
        if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
            return jax.device_put(leaf, own)
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, own, lambda part: value[part])

    return jax.tree.map(put_leaf, tree, shardings)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts the same tree on every device; every process passes equal values."""
    whole = NamedSharding(mesh, PartitionSpec())
    return put(tree, jax.tree.map(lambda _: whole, tree))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a batch [B, …] lies on the devices: each has rows of its own, those that differ only in `model` too."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def own_places(mesh: Mesh, size: int) -> np.ndarray:
    """The places in a global batch of `size` whose rows this process's devices hold, int64 ascending, whatever the mesh's order is.

    These are the rows that the process supplies to `put_batch`. Processes whose devices hold the same rows supply these each.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[index] for index in held.values()]))


def own_rows(array: jax.Array) -> list[jax.Array]:
    """This process's rows of an array that lies as a batch does: parts with consecutive rows, ascending, whose copies have begun."""
    by_start = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    parts = [by_start[start] for start in sorted(by_start)]
    for part in parts:
        part.copy_to_host_async()
    return parts


def gather(rows: np.ndarray) -> np.ndarray:
    """Every process's rows [n, ...], of one shape, one after another on every host: [processes · n, ...]. All call it together."""
    if jax.process_count() == 1:
        return rows
    size = max(1, _GATHERED // max(1, math.prod(rows.shape[1:])))
    parts = [multihost_utils.process_allgather(rows[start : start + size]) for start in range(0, len(rows), size)]
    return np.concatenate(parts, axis=1).reshape(-1, *rows.shape[1:])


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays [B, …] out of this process's rows, those at `own_places` in ascending order, split over the mesh."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def on_host(leaf: Any) -> np.ndarray:
    """A whole array in this host's memory, gathered where other hosts have parts of it; all processes ask together."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
