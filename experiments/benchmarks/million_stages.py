"""One start of a training on a tree of `million_tree.py`, measured: seconds and memory of each stage to the first batch, as a line of JSON.

    python experiments/benchmarks/million_stages.py TREE [--verify first|background|auto] [--workers 2]

Run in a process of its own by `million.py`, so that the peak of the resident memory is that of this start alone.
"""

import argparse
import contextlib
import functools
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imgclf.config import default_config
from imgclf.data import pipeline, prepare, table
from imgclf.data.sources import folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--verify", default="")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    config = default_config()
    config.data.path, config.data.image_size, config.data.in_memory_mb = str(args.tree), (150, 200), 0
    config.data.audit, config.train.method = "off", "fit"  # every photo of the tree is there a thousand times
    config.loader.batch_size, config.loader.threads, config.loader.workers = 64, 2, args.workers
    if args.verify:
        config.data.verify = args.verify
    figures: dict[str, Any] = {}
    with timed(figures):
        before, cpu_before = time.perf_counter(), time.process_time()
        prepared = prepare.prepare(config)
        figures["prepare"] = time.perf_counter() - before
        with pipeline.train_batches(prepared.dataset, config) as batches:
            next(batches)
            figures["first batch"] = time.perf_counter() - before
            figures["cpu"] = time.process_time() - cpu_before
            figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            figures["resident_mb"] = resident(os.getpid()) / 2**20
            figures["workers_mb"] = [private(pid) / 2**20 for pid in children()]
    print(json.dumps({"images": len(prepared.dataset.table), "classes": len(prepared.dataset.class_names), **figures}))


@contextlib.contextmanager
def timed(figures: dict[str, Any]) -> Iterator[None]:
    """Adds the seconds that the stages take to `figures`, by wrapping their functions while the block runs."""
    stages: list[tuple[Any, str, str]] = [
        (folder.Folder, "listing", "listing"),
        (table, "verify", "verification"),
        (prepare, "assign_splits", "splits"),
        (prepare, "audit", "audit"),
        (prepare, "load_dataset", "load"),
    ]
    kept = [(place, name, getattr(place, name)) for place, name, _ in stages if hasattr(place, name)]
    for place, name, stage in stages:
        if hasattr(place, name):
            setattr(place, name, _timed(getattr(place, name), stage, figures))
    try:
        yield
    finally:
        for place, name, function in kept:
            setattr(place, name, function)


def _timed(function: Callable[..., Any], stage: str, figures: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            figures[stage] = figures.get(stage, 0.0) + time.perf_counter() - before

    return call


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def private(pid: int) -> int:
    """Bytes of a process that it shares with no other and no file."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith(("Private_Clean", "Private_Dirty")))


def children() -> list[int]:
    """The processes that this one has started."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


if __name__ == "__main__":
    main()
