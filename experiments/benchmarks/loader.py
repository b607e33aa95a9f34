"""How many images a second the input pipeline gives.

    python experiments/benchmarks/loader.py DIR                     # DIR/class/*.jpg → random-resized-crop 224, flip; batches of 64
    python experiments/benchmarks/loader.py --cached                # the built-in digits, kept in memory → 32x32, pad-crop, flip
    python experiments/benchmarks/loader.py DIR --peer PYTHON SCRIPT    # alternate with `PYTHON SCRIPT DIR` and give the ratios

Batches are uint8; a peer that normalises on the host does a little more there, ours does it in the training step. The peer's figure of a
pair is its best line that ends in "NUMBER img/s", ours is the median of the epochs of a pair, so the ratio leans the peer's way.
Quote ratios from a quiet machine.
"""

import argparse
import dataclasses
import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path

from imgclf.config import default_config
from imgclf.data.pipeline import train_batches
from imgclf.data.table import Dataset, load_dataset


def main() -> None:
    args = _arguments()
    config = default_config()
    if args.cached:
        config.data.source, size, config.augment.pad_crop = "digits", 32, 4
    else:
        config.data.path, size, config.augment.crop_scale = args.folder, 224, (0.08, 1.0)
        config.data.in_memory_mb = 0
    config.data.image_size = (args.size or size,) * 2
    config.augment.flip = 0.5
    config.loader.batch_size, config.loader.threads, config.loader.workers = args.batch, args.threads, args.workers
    config.loader.prefetch = max(2, args.threads)
    dataset = load_dataset(config)
    dataset = dataclasses.replace(dataset, table=dataset.table.assign(split="train"))
    print(f"{_machine()}; {len(dataset.table):,} images → {config.data.image_size}, batch {args.batch}, {args.threads} threads")
    ratios = []
    for pair in range(args.pairs if args.peer else 1):
        figures = measure(dataset, config, args.epochs)
        ours = statistics.median(figures)
        line = f"imgclf {ours:,.0f} img/s (epochs: {', '.join(f'{figure:,.0f}' for figure in figures)})"
        if args.peer:
            peer = measure_peer(*args.peer, args.folder)
            ratios.append(ours / peer)
            line = f"pair {pair + 1}: {line}, peer {peer:,.0f} img/s, ratio {ratios[-1]:.2f}"
        print(line, flush=True)
    if ratios:
        print(f"median ratio {statistics.median(ratios):.2f} of {len(ratios)} pairs ({min(ratios):.2f} to {max(ratios):.2f})")


def measure(dataset: Dataset, config, epochs: int) -> list[float]:
    """Returns images/s of each epoch after the first; the first starts the threads and fills the caches."""
    steps = max(1, len(dataset.table) // config.loader.batch_size)
    figures = []
    with train_batches(dataset, config) as batches:
        for epoch in range(epochs + 1):
            start = time.perf_counter()
            for _ in range(steps):
                next(batches)
            if epoch:
                figures.append(steps * config.loader.batch_size / (time.perf_counter() - start))
    return figures


def measure_peer(python: str, script: str, folder: str) -> float:
    """Returns the best "NUMBER img/s" that the peer's script prints."""
    done = subprocess.run([python, script, folder], capture_output=True, text=True, check=True)
    return max(float(figure) for figure in re.findall(r"([\d.]+) img/s", done.stdout))


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="folder of class folders")
    parser.add_argument("--cached", action="store_true", help="small images in memory instead of a folder")
    parser.add_argument("--size", type=int, help="height and width of the batches (224; cached: 32)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3, help="epochs that are timed")
    parser.add_argument("--pairs", type=int, default=3, help="how often to alternate with the peer")
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCRIPT"), help="a program that is given the folder")
    args = parser.parse_args()
    if args.cached == bool(args.folder):
        parser.error("name a folder of class folders, or give --cached.")
    if args.peer and args.cached:
        parser.error("--peer needs a folder.")
    return args


if __name__ == "__main__":
    main()
