"""How fast training reads a pack, beside the photos themselves, torch's DataLoader and tf.data.

    python experiments/benchmarks/pack.py PHOTOS --torch PYTHON --tf PYTHON

PHOTOS is a folder of JPEGs, whose classes don't matter. All read the same photos from memory (the system's, which holds the files), with 2
threads or workers: a random resized crop of 224 from 8 % of the area on, a flip, batches of 64 in uint8. Peers decode the photos, as their
own ImageFolder does; a pack holds them with a shorter side of 256 (jpeg and raw). Every round measures each once, one after another; the
ratios are of one round. On a busy machine, CPU seconds per image say more than images per second: they don't depend on who else computes.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from imgclf.config import Config, default_config
from imgclf.data.pipeline import train_batches
from imgclf.data.table import Dataset, load_dataset
from imgclf.workflows.pack import pack_data

PEERS = Path(__file__).with_name("pack_peers.py")
SIZE, BATCH, THREADS = 224, 64, 2


def config_of(source: str, path: Path) -> Config:
    config = default_config()
    config.data.source, config.data.path, config.data.in_memory_mb = source, str(path), 0
    config.data.split.fractions, config.data.audit = (1.0, 0.0, 0.0), "off"
    config.data.image_size = (SIZE, SIZE)
    config.augment.crop_scale, config.augment.flip = (0.08, 1.0), 0.5
    config.loader.batch_size, config.loader.threads = BATCH, THREADS
    return config


def listed(photos: Path, folder: Path) -> Path:
    """A table of the photos, in two classes that mean nothing, as imgclf needs some."""
    paths = sorted(path.resolve() for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    table = folder / "photos.csv"
    table.write_text("path,label\n" + "".join(f"{path},{number % 2}\n" for number, path in enumerate(paths)))
    (folder / "list.txt").write_text("\n".join(map(str, paths)))
    return table


def measure(dataset: Dataset, config: Config, passes: int) -> tuple[float, float]:
    """Images per second, and CPU seconds per 1,000 images, after a first pass."""
    steps = len(dataset.table) // BATCH + 1
    with train_batches(dataset, config) as batches:
        for _ in range(steps):
            next(batches)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps * passes):
            next(batches)
        count = steps * passes * BATCH
        return count / (time.perf_counter() - start), 1000 * (time.process_time() - cpu) / count


def measure_peer(python: str, library: str, paths: Path) -> tuple[float, float]:
    done = subprocess.run([python, PEERS, library, paths], capture_output=True, text=True, check=True)
    figures = re.findall(r"([\d.]+) img/s, ([\d.]+) CPU", done.stdout)[-1]
    return float(figures[0]), float(figures[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch and torchvision")
    parser.add_argument("--tf", metavar="PYTHON", help="a Python that has tensorflow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=8, help="over the photos, in a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = config_of("csv", listed(arguments.photos, folder))
        configs = {"photos": photos}
        for form in ("jpeg", "raw"):
            pack_data(photos, folder / form, format=form, workers=1)
            configs[f"{form} pack"] = config_of("packed", folder / form)
        loaded = {kind: load_dataset(config) for kind, config in configs.items()}
        loaded = {kind: _all_in_training(dataset) for kind, dataset in loaded.items()}
        peers = {library: python for library, python in (("torch", arguments.torch), ("tf", arguments.tf)) if python}
        figures: dict[str, list[tuple[float, float]]] = {kind: [] for kind in (*peers, *configs)}
        for number in range(arguments.rounds):
            for library, python in peers.items():
                figures[library].append(measure_peer(python, library, folder / "list.txt"))
            for kind, config in configs.items():
                figures[kind].append(measure(loaded[kind], config, arguments.passes * (4 if kind == "raw pack" else 1)))
            told = (f"{kind} {found[-1][0]:,.0f} img/s, {found[-1][1]:.2f} CPU s per 1,000" for kind, found in figures.items())
            print(f"round {number + 1}: " + "; ".join(told), file=sys.stderr, flush=True)
    for kind, found in figures.items():
        line = f"| {kind} | {statistics.median(rate for rate, _ in found):,.0f} | {statistics.median(cpu for _, cpu in found):.2f} |"
        for library in peers:
            ratios = [ours / theirs for (ours, _), (theirs, _) in zip(found, figures[library], strict=True)]
            spent = [theirs / ours for (_, ours), (_, theirs) in zip(found, figures[library], strict=True)]
            line += f" {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), CPU {statistics.median(spent):.2f} |"
        print(line)


def _all_in_training(dataset: Dataset) -> Dataset:
    import dataclasses

    return dataclasses.replace(dataset, table=dataset.table.assign(split="train"))


if __name__ == "__main__":
    main()
