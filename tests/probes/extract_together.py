"""One of several processes that compute the same features together."""

import json
import os
from pathlib import Path

import numpy as np


def main(folder: Path, cache: Path, out: Path, devices: int, *distributed: str | int) -> None:
    """In a process where JAX is not at work yet; `distributed` are the coordinator, the number of processes, and which this one is."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    os.environ["IMGCLF_CACHE"] = str(cache)
    import jax

    jax.config.update("jax_platforms", "cpu")
    from rich.console import Console

    from imgclf import models
    from imgclf.config import default_config
    from imgclf.data.splits import assign_splits
    from imgclf.data.table import load_dataset
    from imgclf.methods import resolve
    from imgclf.probes import features, shared_features
    from imgclf.runtime import hosts

    if distributed:
        hosts.connect(*distributed)
    config = default_config()
    config.data.path, config.data.image_size, config.model.name = str(folder), (32, 32), "resnet_tiny"
    config.loader.eval_batch_size = 8
    config = resolve.resolve(config, 3)
    dataset = assign_splits(load_dataset(config), config)
    model, shown = models.create(config, 3), list[int]()
    computed = features._computed

    def counted(request, views):
        shown.append(len(request.rows))
        return computed(request, views)

    features._computed = counted
    with shared_features.on_all_hosts():
        found = features.extract(config, model, dataset, rows=np.arange(19), console=Console(quiet=True))
        everything = features.extract(config, model, dataset, console=Console(quiet=True))  # of which 19 are in the caches
    np.save(out.with_suffix(".npy"), everything)
    assert np.array_equal(found, everything[:19])
    out.write_text(json.dumps(shown))
    if distributed:
        jax.distributed.shutdown()  # together, as the first to be gone would end the others
