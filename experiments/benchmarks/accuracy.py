"""Is `imgclf.create` with its defaults as accurate as ten lines of Keras and scikit-learn with the same weights?

    python experiments/benchmarks/accuracy.py [DATA ...] [--weights FOLDER] [--folds 5] [--seed 0] [--keep FOLDER]

DATA are folders of class folders (default: clothing10 and doraemon_walle of ../shared/data); splits that they come with are joined, and
dealt into folds anew. In each fold both sides train on the same images and are tested on the same others. The peer is what a tutorial would
write: the shorter side to 256 pixels, the centre crop of 224, MobileNetV2 of keras.applications with these weights, pooled features; then
scikit-learn's LogisticRegression, once on standardised features with C = 0.01 and once on plain ones with C = 1. Needs the extra "test",
whose Keras runs on JAX.

    python experiments/benchmarks/accuracy.py --cpu 3 [DATA ...] [--set eval.views=plain]

compares what both cost instead: seconds of CPU, and of the clock, of a process of its own for each side, in turns. Each trains on four
fifths of the photos once and answers the others, from an empty cache, imports and compiling included.

--keep keeps the peers' answers and their seconds in FOLDER, so that another run of create is compared with the same ones at once.

Prints a line per data set and weights: the accuracies, the paired differences with their intervals (evaluation/compare.py), and the seconds
that each side took for all folds, its features included (imgclf's from an empty cache).
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["IMGCLF_CACHE"] = tempfile.mkdtemp(prefix="imgclf-accuracy-")  # the time of both sides includes their features

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import imgclf
from imgclf.config import parse_assignment
from imgclf.evaluation import compare, intervals
from imgclf.formatting import percent

SHARED = Path(__file__).resolve().parents[3] / "shared"
WIDTHS = {"mobilenet_v2_0.35_224_no_top.keras.h5": 0.35, "mobilenet_v2_1.0_224.keras.h5": 1.0}
PEERS = {
    "standardised, C = 0.01": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000)),
    "plain, C = 1": lambda: LogisticRegression(C=1.0, max_iter=5000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=[str(SHARED / "data" / name) for name in ("clothing10", "doraemon_walle")])
    parser.add_argument("--weights", default=str(SHARED / "weights"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder for the peers' answers")
    parser.add_argument("--cpu", type=int, default=0, help="turns in which the cost of both sides is measured")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="with --cpu, a field of create's config")
    parser.add_argument("--side", choices=["create", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        once(args)
        return
    if args.cpu:
        costs(args)
        return
    for folder in args.data:
        data = imgclf.load_images(folder, verbose=False)
        labels = data.table["label"].to_numpy()
        for file, width in WIDTHS.items():
            weights = Path(args.weights) / file
            start = time.perf_counter()
            correct = {"create": ours(data, weights, args.folds, args.seed)}
            seconds = {"create": time.perf_counter() - start}
            kept = Path(args.keep) / f"{Path(folder).name}-{width}-{args.folds}-{args.seed}.npz" if args.keep else None
            for name, (right, took) in peers(data, weights, width, args.folds, args.seed, kept).items():
                correct[name], seconds[name] = right, took
            print(f"{Path(folder).name}, MobileNetV2 {width}, {len(labels)} photos in {args.folds} folds:", flush=True)
            for name, right in correct.items():
                low, high = intervals.wilson(right.sum(), right.size)
                told = f"  {name}: {percent(right.mean())} ({percent(low)} to {percent(high)}), {seconds[name]:.1f} s"
                if name != "create":
                    row = compare.paired(right[None], correct["create"][None])
                    low, high = (100 * end for end in row["difference_ci95"])
                    told += f"; create is {100 * row['difference']:+.1f} points from it ({low:+.1f} to {high:+.1f}; p = {row['p']:.2g})"
                print(told, flush=True)


def once(args: argparse.Namespace) -> None:
    """One side's work: trains on the images of all folds but the first, and answers those of the first."""
    folder, weights = args.data[0], Path(args.weights)
    data = imgclf.load_images(folder, verbose=False)
    labels = data.table["label"].to_numpy()
    train, test = next(folds_of(labels, args.folds, args.seed))
    if args.side == "create":
        fields = dict(parse_assignment(field) for field in args.set)
        right = answers(data, weights, test, fields)
    else:
        features = keras_features(paths_of(data), weights, WIDTHS[weights.name])
        said = PEERS["plain, C = 1"]().fit(features[train], labels[train]).predict(features[test])
        right = said == labels[test]
    print(percent(right.mean()))


def costs(args: argparse.Namespace) -> None:
    """Prints what both sides cost, and the median ratio of turns."""
    for folder in args.data:
        for file in WIDTHS:
            cpu: dict[str, list[float]] = {"create": [], "peer": []}
            for turn in range(args.cpu):
                for side in ("create", "peer") if turn % 2 == 0 else ("peer", "create"):
                    command = [sys.executable, __file__, folder, "--weights", str(Path(args.weights) / file), "--side", side]
                    command += [text for field in args.set for text in ("--set", field)]
                    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    cpu[side].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                    told = f"{cpu[side][-1]:.1f} s of CPU, {time.perf_counter() - start:.1f} s, {done.stdout.split()[-2]} %"
                    print(f"  {Path(folder).name}, {WIDTHS[file]}, {side}: {told}, load {os.getloadavg()[0]:.0f}", flush=True)
            ratios = sorted(own / other for own, other in zip(cpu["create"], cpu["peer"], strict=True))
            told = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) of the peer's seconds of CPU"
            print(f"{Path(folder).name}, MobileNetV2 {WIDTHS[file]}: create takes {told}", flush=True)


def folds_of(labels: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows of each fold's training and test images."""
    yield from StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)


def ours(data: imgclf.ImageData, weights: Path, folds: int, seed: int) -> np.ndarray:
    """Whether `imgclf.create` with its defaults is right on each image, bool [N], when it was trained on the other folds."""
    table = data.table
    right = np.zeros(len(table), bool)
    with tempfile.TemporaryDirectory() as runs:
        for fold, (_, test) in enumerate(folds_of(table["label"].to_numpy(), folds, seed)):
            right[test] = answers(data, weights, test, {}, Path(runs) / str(fold))
    return right


def answers(data: imgclf.ImageData, weights: Path, test: np.ndarray, fields: dict, folder: Path | None = None) -> np.ndarray:
    """Whether `imgclf.create`, trained on the images that are not in the rows `test`, is right on each of those, bool [n]."""
    held_out = np.zeros(len(data.table), bool)
    held_out[test] = True
    train = data.filter(~held_out)
    train.dataset.table["split"] = ""  # the data's own splits are joined
    with tempfile.TemporaryDirectory() as runs:
        classifier = imgclf.create(train, weights=f"path:{weights}", workdir=folder or Path(runs) / "run", config=fields, verbose=False)
        said = classifier.predict(data.filter(held_out))
    return (said["predicted"] == said["true"]).to_numpy()


def peers(
    data: imgclf.ImageData, weights: Path, width: float, folds: int, seed: int, kept: Path | None
) -> dict[str, tuple[np.ndarray, float]]:
    """By the name of each peer, whether it is right on each image, bool [N], and its seconds."""
    if kept is not None and kept.exists():
        with np.load(kept) as saved:
            return {name: (saved[name], float(saved[f"{name} seconds"])) for name in PEERS}
    start = time.perf_counter()
    features = keras_features(paths_of(data), weights, width)
    shared, found = time.perf_counter() - start, {}
    for name in PEERS:
        start = time.perf_counter()
        right = peer(name, features, data.table["label"].to_numpy(), folds, seed)
        found[name] = right, shared + time.perf_counter() - start
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            kept, **{name: right for name, (right, _) in found.items()}, **{f"{name} seconds": took for name, (_, took) in found.items()}
        )
    return found


def paths_of(data: imgclf.ImageData) -> list[Path]:
    return [Path(data.dataset.table["source"].iloc[0]) / name for name in data.table["id"]]


def keras_features(paths: list[Path], weights: Path, width: float) -> np.ndarray:
    """Pooled features of MobileNetV2 in Keras, float32 [N, 1280]."""
    import keras

    top = width == 1.0  # the file of this width has the ImageNet classes, too
    model = keras.applications.MobileNetV2(
        (224, 224, 3), alpha=width, include_top=top, weights=str(weights), pooling=None if top else "avg"
    )
    if top:
        model = keras.Model(model.input, model.layers[-2].output)
    views = np.stack([centre_crop(path) for path in paths])
    return model.predict(keras.applications.mobilenet_v2.preprocess_input(views.astype(np.float32)), batch_size=32, verbose=0)


def centre_crop(path: Path) -> np.ndarray:
    """The 224 central pixels of a photo whose shorter side is 256, uint8 [224, 224, 3]."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        return np.asarray(image.crop((left, top, left + 224, top + 224)))


def peer(name: str, features: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Whether the peer's classifier is right on each image, bool [N], when it was trained on the other folds."""
    right = np.zeros(len(labels), bool)
    for train, test in folds_of(labels, folds, seed):
        right[test] = PEERS[name]().fit(features[train], labels[train]).predict(features[test]) == labels[test]
    return right


if __name__ == "__main__":
    main()
