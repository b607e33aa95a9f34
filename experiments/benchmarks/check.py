"""Has anything become slower? The short form of each kind of work beside a yardstick of the same machine, compared with a kept table.

    python experiments/benchmarks/check.py             # at most 4 minutes on 2 quiet cores; says what is slower beyond noise
    python experiments/benchmarks/check.py --update    # writes the figures of this machine's kind into check.json
    python experiments/benchmarks/check.py --only loader "cnn step"

Each work is timed in turn with its yardstick, in one process: what NumPy's BLAS, Pillow or Python itself needs for a fixed piece of work,
and what no change of imgclf can make faster or slower. The ratio is yardstick / work: more is faster. A machine that is slow for a minute
slows both. check.json keeps median and range of the ratios for each kind of CPU and number of cores; a work whose whole range lies below
the kept one is called SLOWER, one whose median does SLOWER?; both are told again at the end. Ratios of different CPUs say nothing of each
other. For figures beside PyTorch, see the other files of this folder.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from imgclf.runtime import processor

TABLE = Path(__file__).with_suffix(".json")
PAIRS = 7
_MATRIX = 768  # the side of the yardstick's matrices
Run = Callable[[], None]


def matrices() -> Run:
    """Ten products of f32 matrices in NumPy's BLAS."""
    a = np.random.default_rng(0).standard_normal((_MATRIX, _MATRIX)).astype(np.float32)

    def run() -> None:
        for _ in range(10):
            a @ a

    return run


def pictures() -> Run:
    """Pillow decodes and resizes 32 JPEGs, one after another."""
    files = [_jpeg(number) for number in range(32)]

    def run() -> None:
        from PIL import Image

        for file in files:
            Image.open(io.BytesIO(file)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)

    return run


def bare_python() -> Run:
    """Python starts and imports NumPy."""
    return lambda: _command([sys.executable, "-c", "import numpy"])


def cnn_step() -> Run:
    import cnn

    run = cnn.prepared(16, "f32")
    return lambda: run(2)


def network(name: str, *, train: bool = False, precision: str = "f32", batch_size: int = 8, size: int = 128) -> Callable[[], Run]:
    def prepare() -> Run:
        import jax
        import models

        run = models.prepared(name, train=train, precision=precision, batch_size=batch_size, size=size)
        return lambda: jax.block_until_ready(run())

    return prepare


def loader() -> Run:
    """Four batches of 32 random-resized crops at 224 from JPEG files, two threads."""
    return _batches(lambda photos, _: ("folder", photos))


def packed() -> Run:
    """The same from a pack of the photos as raw pixels."""

    def pack(photos: Path, folder: Path) -> tuple[str, Path]:
        from imgclf.config import default_config
        from imgclf.workflows.pack import pack_data

        config = default_config()
        config.data.source, config.data.path = "folder", str(photos)
        pack_data(config, folder / "pack", format="raw", workers=1)
        return "packed", folder / "pack"

    return _batches(pack)


def _batches(source: Callable[[Path, Path], tuple[str, Path]]) -> Run:
    """Four batches of what `source` makes of a folder of photos, given a folder for itself: the name of a data source, and its path."""
    from imgclf.config import default_config
    from imgclf.data.pipeline import train_batches
    from imgclf.data.table import load_dataset

    held = tempfile.TemporaryDirectory(prefix="imgclf-check-")  # as long as what is returned
    photos = Path(held.name) / "photos"
    for number in range(64):
        path = photos / f"class {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_jpeg(number))
    config = default_config()
    kind, path = source(photos, Path(held.name))
    config.data.source, config.data.path, config.data.image_size, config.data.in_memory_mb = kind, str(path), (224, 224), 0
    config.augment.crop_scale, config.augment.flip, config.loader.threads = (0.08, 1.0), 0.5, 2
    dataset = load_dataset(config)
    dataset.table["split"] = "train"
    batches = train_batches(dataset, config).__enter__()  # for as long as the process lives

    def run(held: object = held) -> None:
        for _ in range(4):
            next(batches)

    return run


def probe() -> Run:
    """A path of ten penalties over five folds, 600 × 256 features, ten classes."""
    from imgclf.probes.logistic import Examples, LogisticPath

    rng = np.random.default_rng(0)
    labels = np.arange(600) % 10
    features = (rng.standard_normal((600, 256)) + 0.3 * rng.standard_normal((10, 256))[labels]).astype(np.float32)
    folds = np.stack([np.arange(600) % 5 != fold for fold in range(5)])
    examples = Examples(features, labels, 10)
    return lambda: LogisticPath(examples, folds).solve(np.logspace(-5, 0, 10)) and None


def importing() -> Run:
    return lambda: _command([sys.executable, "-c", "import imgclf"])


def helping() -> Run:
    return lambda: _command([sys.executable, "-c", "from imgclf.cli import main; main()", "--help"])


WORKS: dict[str, tuple[Callable[[], Run], Callable[[], Run]]] = {
    "cnn step, 128 px": (cnn_step, matrices),
    "resnet18 step, 128 px": (network("resnet18", train=True), matrices),
    "resnet50 features, f32": (network("resnet50"), matrices),
    "resnet50 features, bf16": (network("resnet50", precision="bf16"), matrices),
    "mobilenet_v2 features": (network("mobilenet_v2", batch_size=16), matrices),
    "mobilenet_v2 step": (network("mobilenet_v2", train=True), matrices),
    "loader, 224 px": (loader, pictures),
    "pack read, 224 px": (packed, pictures),
    "probe, 10 penalties × 5 folds": (probe, matrices),
    "import imgclf": (importing, bare_python),
    "imgclf --help": (helping, bare_python),
}


def measure(name: str, pairs: int) -> list[float]:
    """Returns yardstick / work of each pair, after both have run once."""
    work, yardstick = (prepare() for prepare in WORKS[name])
    work(), yardstick()
    ratios = []
    for _ in range(pairs):
        times = []
        for run in (work, yardstick):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return ratios


def machine() -> str:
    """The kind of CPU and how many cores: what a table is of."""
    return f"{processor.describe()['cpu']}, {processor.cores()} cores"


def verdict(now: dict[str, float], kept: dict[str, float] | None) -> str:
    """What the ranges of two measurements say of each other."""
    if kept is None:
        return "no figure of this machine is kept"
    change = f"{now['median'] / kept['median'] - 1:+.0%}"
    if now["high"] < kept["low"]:
        return f"SLOWER ({change}, beyond noise)"
    if now["median"] < kept["low"]:
        return f"SLOWER? ({change}, the median below all kept ones: run it again)"
    if now["low"] > kept["high"]:
        return f"faster ({change}, beyond noise: --update keeps it)"
    return f"as before ({change})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write what is measured into check.json")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how often work and yardstick take turns")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORK", help="the beginnings of names of works")
    parser.add_argument("--one", choices=WORKS, help=argparse.SUPPRESS)  # in a process of its own: prints the ratios
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.pairs)))
        return
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    kept = table.get(machine(), {})
    print(f"{machine()}; jax {metadata.version('jax')}; load {os.getloadavg()[0]:.1f}")
    slower = []
    for name in WORKS:
        if arguments.only and not name.startswith(tuple(arguments.only)):
            continue
        done = subprocess.run([sys.executable, __file__, "--one", name, f"--pairs={arguments.pairs}"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        ratios = json.loads(done.stdout.splitlines()[-1])
        now = {"median": round(statistics.median(ratios), 4), "low": round(min(ratios), 4), "high": round(max(ratios), 4)}
        said = verdict(now, kept.get(name))
        slower += [name] if said.startswith("SLOWER") else []
        print(f"{name:32s} {now['median']:8.3f} ({now['low']:.3f} to {now['high']:.3f})  {said}", flush=True)
        if arguments.update:
            table.setdefault(machine(), {})[name] = now
    if arguments.update:
        TABLE.write_text(json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"Kept in {TABLE.name}.")
    elif slower:
        print(f"\n*** SLOWER than the kept figures: {', '.join(slower)} ***")


def _jpeg(seed: int) -> bytes:
    """A photo-like JPEG of 640 × 480: smooth noise."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _command(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
