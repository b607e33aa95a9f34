"""How many images a second one host reads, decodes and augments for a training, beside what `imgclf plan` says that it must feed.

    python experiments/benchmarks/input_rate.py imagenet_resnet50:PHOTOS --hosts 4
    python experiments/benchmarks/input_rate.py imagenet_resnet50:PHOTOS --hosts 4 --plan runs/resnet50-plan/plan.json

The training's own pipeline, in this one process: of each global batch it makes the rows that one of so many hosts makes, with the config's
threads, workers, and memory for decoded images. Nothing is put on a device: a training beside it takes of the same cores. The first
seconds are left out, in which threads start, and so is the first epoch where decoded images are kept.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

from imgclf.config import Config, load_config
from imgclf.data import pipeline
from imgclf.data.prepare import prepare
from imgclf.data.table import Dataset
from imgclf.runtime import processor

PARTS = 5  # of the time, whose rates tell how steady it is


def main() -> None:
    args = _arguments()
    config = load_config(args.config, args.set)
    config.data.scenes = "off"  # they don't change what is read in training
    prepared = prepare(config)
    rates = measure(prepared.dataset, prepared.config, args.hosts, args.seconds)
    rate, cores = statistics.median(rates), len(os.sched_getaffinity(0))
    batch = config.loader.batch_size
    print(
        f"{processor.describe()['cpu']}, {cores} cores; {config.name}: {len(prepared.dataset.table):,} images, batch {batch} "
        f"of {args.hosts} hosts, {config.loader.threads} threads, {config.loader.workers} workers"
    )
    print(f"one host gives {rate:,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f}), {rate / cores:,.0f} per core")
    for line in compared(rate, cores, args.plan) if args.plan else []:
        print(line)


def measure(dataset: Dataset, config: Config, hosts: int, seconds: float) -> list[float]:
    """The rates, in images/s, of `PARTS` equal parts of the time, of host 0's share of the global batches."""
    size = config.loader.batch_size // hosts
    warm = 3 * max(config.loader.threads, config.loader.workers, 1)
    kept = 3 * int(dataset.table["height"].astype(int) @ dataset.table["width"].astype(int)) <= config.data.in_memory_mb * 2**20
    if kept:
        warm += round(pipeline.steps_per_epoch(dataset, config))
    rates = []
    with pipeline.train_batches(dataset, config, own=np.arange(size)) as batches:
        for _ in range(warm):
            next(batches)
        for _ in range(PARTS):
            start, images = time.perf_counter(), 0
            while (passed := time.perf_counter() - start) < seconds / PARTS or not images:
                images += len(next(batches)["index"])
            rates.append(images / passed)
    return rates


def compared(rate: float, cores: int, plan: Path) -> list[str]:
    """A sentence for each topology of a plan.json: what it asks of each host, and the cores that would give it at this rate."""
    said = []
    for planned in json.loads(plan.read_text(encoding="utf-8"))["topologies"]:
        needed = (planned["summary"] or {}).get("loader_images_per_second_per_host")
        if needed is None:
            said.append(f"{planned['topology']}: the plan says no rate, as its compiler was not installed")
            continue
        verdict = "enough" if rate >= needed else f"{rate / needed:.1%} of it; {cores * needed / rate:,.0f} such cores would do"
        said.append(f"{planned['topology']} asks for up to {needed:,.0f} images/s of each of {planned['hosts']} hosts: {verdict}")
    return said


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="as `imgclf train` takes it")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the config; may be repeated")
    parser.add_argument("--hosts", type=int, default=1, help="among how many hosts a batch is split")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--plan", type=Path, help="plan.json, which `imgclf plan CONFIG --topology …` writes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
