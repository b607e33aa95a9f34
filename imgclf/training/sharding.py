"""The mesh of all devices of all hosts, and how batches are split over it.

It is data × fsdp × model: each batch is split over the first two, so that each device computes its images; parameters may be split over
the last two.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf.config.training_fields import MeshConfig
from imgclf.errors import UserError

BATCH = ("data", "fsdp")  # the axes of the mesh that a batch is split over


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
    return Mesh(np.asarray(ordered).reshape(-1, fsdp, model), (*BATCH, "model"))


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
    """Raises a UserError unless the mesh of all devices fits, and a global batch of `size` divides evenly among those that split it.

    Args:
      size: of the batch.
      field: of the config, that gives it.
      sizes: `config.mesh`.
      devices: how many there are; None = as many as all processes have.
    """
    devices = jax.device_count() if devices is None else devices
    _check_sizes(sizes.fsdp, sizes.model, devices)
    count = devices // sizes.model
    if size % count:
        down, up = size // count * count, -(-size // count) * count
        choices = f"{up}" if not down else f"{down} or {up}"
        among = f"{count} devices" if sizes.model == 1 else f"{count} groups of config.mesh.model={sizes.model} devices"
        raise UserError(f"config.{field}={size} does not divide among {among}; use {choices}.")


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts the same tree on every device; every process passes equal values."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How the rows of a batch lie on the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def own_places(mesh: Mesh, size: int) -> np.ndarray:
    """The places in a global batch of `size` whose rows this process's devices hold, int64 ascending, whatever the mesh's order is.

    These are the rows that the process supplies to `put_batch`. Processes whose devices hold the same rows supply these each.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[index] for index in held.values()]))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays [B, …] out of this process's rows, those at `own_places` in ascending order, split over the mesh."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
