"""Runs an experiment as run.py does, and writes down which rows this process put on its devices at each training step.

Command: python record_batches.py CONFIG.json WORKDIR OUT.json [COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

import imgclf  # noqa: F401  sets XLA's flags before JAX starts
from imgclf import compilation_cache, config, experiment
from imgclf.training import evaluate, sharding


def main(config_file: str, workdir: str, out: str, *distributed: str) -> None:
    if distributed:
        coordinator, num_processes, process_id = distributed
        sharding.initialize_distributed(coordinator, int(num_processes), int(process_id))
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
    results = experiment.run(config.from_json(Path(config_file).read_text()), Path(workdir), Console(quiet=True))
    about = {"devices": jax.device_count(), "processes": jax.process_count(), "batches": seen, "params_sha256": results["params_sha256"]}
    Path(out).write_text(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
