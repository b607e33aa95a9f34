"""Data parallelism: one mesh over all devices of all hosts, the state on each, every batch split among them."""

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf.errors import UserError


def initialize_distributed(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Starts `jax.distributed` before any other use of JAX.

    SLURM, Open MPI and TPU pods describe themselves; elsewhere all three arguments are needed.

    Args:
      coordinator: `host:port` of process 0; "" = found out from the cluster.

    Raises:
      UserError: where the cluster can't be found out, or the coordinator doesn't answer.
    """
    explicit: dict[str, Any] = {}
    if coordinator:
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise UserError(
                f"--coordinator={coordinator} needs --num_processes and --process_id (0 to num_processes - 1); "
                f"got {num_processes} and {process_id}."
            )
        explicit = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    try:
        jax.distributed.initialize(**explicit, initialization_timeout=int(os.environ.get("IMGCLF_DISTRIBUTED_TIMEOUT", "300")))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed could not start ({str(error).splitlines()[0]}); outside SLURM and TPU pods give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=K."
        ) from error


def create_mesh() -> Mesh:
    """One axis, `data`, over all devices of all processes."""
    return Mesh(np.asarray(jax.devices()), ("data",))


def check_batch_size(size: int, field: str) -> None:
    """Raises a UserError unless a global batch of `size` divides evenly among the devices."""
    count = jax.device_count()
    if size % count:
        down, up = size // count * count, -(-size // count) * count
        choices = f"{up}" if not down else f"{down} or {up}"
        raise UserError(f"config.{field}={size} does not divide among {count} devices; use {choices}.")


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts the same tree on every device; every process passes equal values."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays [B, …] out of this process's rows [B / processes, …], split over the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
