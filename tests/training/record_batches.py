"""Runs an experiment as run.py does, and writes down which rows this process put on its devices at each training step."""

import json
import os
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from imgclf import config
from imgclf.runtime import compilation_cache, hosts
from imgclf.training import evaluate, sharding
from imgclf.workflows import train


def main(config_file: Path, workdir: Path, out: Path, devices: int, *distributed: str | int) -> None:
    """In a process where JAX is not at work yet; `distributed` are the coordinator, the number of processes, and which this one is."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    jax.config.update("jax_platforms", "cpu")
    if distributed:
        hosts.connect(*distributed)
    compilation_cache.enable()
    seen: list[list[int]] = []
    put_batch = sharding.put_batch

    def recording(batch, mesh):
        on_device = put_batch(batch, mesh)
        if batch["mask"].all():
            shards = on_device["index"].addressable_shards
            seen.append([int(row) for shard in shards for row in np.asarray(shard.data)])
        return on_device

    evaluate.sharding.put_batch = recording
    results = train.train(config.from_json(config_file.read_text()), workdir, console=Console(quiet=True))
    about = {"devices": jax.device_count(), "processes": jax.process_count(), "batches": seen, "params_sha256": results["params_sha256"]}
    out.write_text(json.dumps(about))
