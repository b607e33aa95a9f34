"""Many logistic probes at once (l2 × seeds × folds) beside a loop over scikit-learn; choosing one of many penalties; memory.

    python experiments/benchmarks/probes.py ../shared/data/clothing10 ../shared/weights/mobilenet_v2_1.0_224.keras.h5
    python experiments/benchmarks/probes.py --memory
    python experiments/benchmarks/probes.py --penalties [DATA WEIGHTS]
    python experiments/benchmarks/probes.py --extraction DATA WEIGHTS

The probes are on real features of the train split, standardised. Both solve the same objective, with C = 1 / (n · l2). scikit-learn's
tolerance is 1e-4 · l2: tried at l2 = 1e-5, 1.3e-4, 6e-3 and 1 on one fold, tolerances of that order bring its coefficients within 1e-3 of
its own at 1e-11, its default of 1e-4 does not at the three smaller ones. Cost on 2 CPU cores: two minutes a --peer_seeds.

--penalties chooses the penalty of 81 classes from 2,640 x 1,280 features by 5 folds, along a path and among 11 that are given, and compares
the head with the same objective's solution to a tolerance of 1e-5. The features are those of real photos, DATA, or of a mixture of
Gaussians, whose axes' variances fall as 1/i, as those of networks do; --separation says how far the classes lie apart (0.2: half of the
photos can be told). --memory takes 100,000 x 2,048 features.

--extraction fills an empty cache, beside the same images through the same backbone without a cache, and beside the backbone alone on
images that are in memory, ready; all without compilation.
"""

import argparse
import math
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from imgclf import models
from imgclf.config import Config, default_config
from imgclf.data import pipeline
from imgclf.data.table import Dataset, load_dataset
from imgclf.methods import resolve
from imgclf.models.network import Network
from imgclf.probes.cross_validation import CrossValidation, Scaling, fit_linear
from imgclf.probes.features import extract
from imgclf.probes.folds import assign_folds
from imgclf.probes.logistic import Examples, LogisticPath
from imgclf.runtime import compilation_cache
from imgclf.training.state import split_model
from imgclf.training.step import normalize

STRENGTHS = np.logspace(-5, 0, 10)
FOLDS = 5


def real_model(data: str, weights: str, model: str) -> tuple[Config, Dataset, Network]:
    """A folder at 224 px and a backbone with weights."""
    config = default_config()
    config.data.path, config.data.image_size = data, (224, 224)
    config.model.name, config.model.weights = model, f"path:{weights}"
    dataset = load_dataset(config)
    config = resolve.resolve(config, len(dataset.class_names))
    return config, dataset, models.create(config, len(dataset.class_names))


def real_features(data: str, weights: str, model: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Standardised features float32 [N, D] and labels of a folder's train split, and its classes."""
    config, dataset, classifier = real_model(data, weights, model)
    rows = np.flatnonzero((dataset.table["split"] == "train").to_numpy())
    features = extract(config, classifier, dataset, rows=rows, console=Console())
    scaling = Scaling.of(features)
    return (features - scaling.mean) / scaling.deviation, dataset.table["label"].to_numpy()[rows], dataset.class_names


def compare(x: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], seeds: int, peer_seeds: int) -> None:
    """Prints the time of both, the largest difference of coefficients, and whether the held-out predictions agree."""
    from sklearn.linear_model import LogisticRegression

    folds = np.concatenate(
        [
            assign_folds(labels, None, FOLDS, seed, class_names, "take another data set") == np.arange(FOLDS)[:, None]
            for seed in range(seeds)
        ]
    )
    jobs, times = len(folds) * len(STRENGTHS), []
    for _ in range(3):
        start = time.perf_counter()
        ours = LogisticPath(Examples(x, labels, len(class_names)), ~folds).solve(STRENGTHS)
        times.append(time.perf_counter() - start)
    per_probe = min(times[1:]) / jobs
    size = np.linalg.norm(ours.kernel, axis=(2, 3))
    print(f"imgclf: {jobs} probes on {x.shape[0]} x {x.shape[1]} features in {times[0]:.2f} s with compilation, then {times[1]:.2f} and ")
    print(f"        {times[2]:.2f} s; gradient norm at most {ours.gradient_norm.max():.1e}, bound of the relative error at most ")
    print(f"        {(ours.gradient_norm / (STRENGTHS * size)).max():.1e}", flush=True)

    wide, theirs, worst, same, right, count = x.astype(np.float64), 0.0, np.zeros(len(STRENGTHS)), 0, np.zeros(2, int), 0
    for k, held in enumerate(folds[: peer_seeds * FOLDS]):
        train = ~held
        for i, l2 in enumerate(STRENGTHS):
            peer = LogisticRegression(C=1 / (train.sum() * l2), tol=1e-4 * l2, max_iter=100_000)
            start = time.perf_counter()
            peer.fit(wide[train], labels[train])
            theirs += time.perf_counter() - start
            kernel = ours.kernel[k, i]
            worst[i] = max(worst[i], np.linalg.norm(kernel.T - peer.coef_) / np.linalg.norm(peer.coef_))
            mine, others = (x[held] @ kernel + ours.bias[k, i]).argmax(1), peer.predict(wide[held])
            same, count = same + int((mine == others).sum()), count + int(held.sum())
            right += np.array([(mine == labels[held]).sum(), (others == labels[held]).sum()])
    done = peer_seeds * FOLDS * len(STRENGTHS)
    print(f"scikit-learn: {done} of these probes in {theirs:.1f} s")
    print(f"ratio per probe: {theirs / done / per_probe:.1f} (with compilation {theirs / done / (times[0] / jobs):.1f})")
    told = ", ".join(f"{l2:.1e}: {error:.1e}" for l2, error in zip(STRENGTHS, worst, strict=True))
    print(f"coefficients differ, relative to their norm, by at most {worst.max():.1e} (by l2: {told})")
    print(f"held-out predictions: {same} of {count} the same; right: {right[0]} ours, {right[1]} theirs")


def extraction(data: str, weights: str, model: str, pairs: int = 3) -> None:
    """Prints images/s of filling an empty cache, of the same without a cache, and of the backbone alone."""
    compilation_cache.enable()
    config, dataset, classifier = real_model(data, weights, model)
    config.data.in_memory_mb = 0
    graphdef, params, batch_stats = split_model(classifier)
    mean, std, everything = config.data.mean, config.data.std, np.arange(len(dataset.table))
    few = everything[: config.loader.eval_batch_size]

    @jax.jit
    def forward(params, batch_stats, image):
        return nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats)).features(normalize(image, mean, std))

    def cached(rows: np.ndarray) -> float:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["IMGCLF_CACHE"] = folder
            start = time.perf_counter()
            extract(config, classifier, dataset, rows=rows)
            return time.perf_counter() - start

    def bare(rows: np.ndarray) -> float:
        start = time.perf_counter()
        with pipeline.row_batches(dataset, config, rows) as batches:
            for out in [forward(params, batch_stats, batch["image"]) for batch in batches]:
                np.asarray(out)
        return time.perf_counter() - start

    def alone(rows: np.ndarray) -> float:
        image = np.zeros((config.loader.eval_batch_size, 224, 224, 3), np.uint8)
        start = time.perf_counter()
        for _ in range(math.ceil(len(rows) / len(image))):
            np.asarray(forward(params, batch_stats, image))
        return time.perf_counter() - start

    ratios = []
    for pair in range(1, pairs + 1):  # the difference leaves out compilation, which every call of `extract` has
        rates = [(len(everything) - len(few)) / (way(everything) - way(few)) for way in (cached, bare, alone)]
        ratios.append(rates[0] / rates[1])
        told = f"cache {rates[0]:.1f}, without {rates[1]:.1f}, backbone alone {rates[2]:.1f} img/s"
        print(f"pair {pair}: {told}; ratio {ratios[-1]:.3f}, to the backbone alone {rates[0] / rates[2]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


def mixture(separation: float, rows: int = 2640, width: int = 1280, classes: int = 81) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] and labels of a mixture of Gaussians whose axes' variances fall as 1/i, cut off at 0 as by a ReLU."""
    rng = np.random.default_rng(0)
    deviation = np.arange(1, width + 1) ** -0.5
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    labels = np.arange(rows) % classes
    x = (separation * rng.normal(size=(classes, width))[labels] + rng.normal(size=(rows, width))) * deviation @ axes
    return np.maximum(x / x.std() + 0.3, 0).astype(np.float32), labels


def penalties(features: np.ndarray, labels: np.ndarray) -> None:
    """Prints the time of choosing a penalty, what is chosen, and how far the head is from the exact one."""
    names = tuple(map(str, range(int(labels.max()) + 1)))
    for told, strengths in (("a path", ()), ("11 given", tuple(float(f"{l2:.3g}") for l2 in np.logspace(1, -4, 11)))):
        for turn in ("with compilation", "again"):
            plan = CrossValidation.create(labels, None, names, strengths, FOLDS, 0)
            wall, cpu = time.perf_counter(), time.process_time()
            found = fit_linear(features, labels, plan, scaling="shrunk")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            table = found.about["cross_validation"]
            print(f"{told}, {len(table)} penalties, {turn}: {wall:.1f} s, {cpu:.1f} s of CPU; chosen {found.about['l2']:g}", flush=True)
        print("  loss by l2: " + ", ".join(f"{row['l2']:g}: {row['loss']:.4f} ({row['top1']:.1%})" for row in table))
        scaling = Scaling.of(features, "shrunk")
        examples = Examples(features, labels, len(names), scaling.mean, scaling.deviation)
        exact = scaling.fold(LogisticPath(examples, np.ones((1, len(labels)))).solve(np.array([found.about["l2"]]), tolerance=1e-5))
        kernels = [kernel * scaling.deviation[:, None] for kernel in (found.kernel, exact.kernel[0, 0])]
        error = np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[1])
        same = ((features @ found.kernel + found.bias).argmax(1) == (features @ exact.kernel[0, 0] + exact.bias[0, 0]).argmax(1)).mean()
        print(f"  the head's coefficients are {error:.1e} of their norm from the exact ones; {same:.2%} of the answers equal")


def memory(rows: int = 100_000, width: int = 2048, classes: int = 10) -> None:
    """Prints time and peak memory of choosing among three strengths by 5 folds, on synthetic features read from a file."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    means, mixing = rng.normal(size=(classes, width)).astype(np.float32), rng.normal(size=(64, width)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.f32"
        with path.open("wb") as file:
            for start in range(0, rows, 5000):
                noise = rng.normal(size=(5000, width)).astype(np.float32)
                shared = rng.normal(size=(5000, 64)).astype(np.float32) @ mixing / 4
                np.maximum(0.2 * means[labels[start : start + 5000]] + shared + noise, 0).tofile(file)
        features = np.memmap(path, np.float32, "r", shape=(rows, width))
        names = tuple(map(str, range(classes)))
        for solver in ("ridge", "logistic"):
            plan = CrossValidation.create(labels, list(map(str, range(rows))), names, (1e-3, 1e-2, 1e-1), FOLDS, 0)
            start = time.perf_counter()
            found = fit_linear(features, labels, plan, solver=solver)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            curve = ", ".join(f"{row['l2']:g}: {row['top1']:.2%}" for row in found.about["cross_validation"])
            seconds = time.perf_counter() - start
            print(
                f"{solver}: {rows} x {width}, {classes} classes: {seconds:.0f} s, peak {peak:.2f} GiB so far (top-1 by l2: {curve})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder with train/CLASS/*.jpg")
    parser.add_argument("weights", nargs="?", help="file of the model's weights")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--peer_seeds", type=int, default=1, help="of these, for scikit-learn")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--penalties", action="store_true")
    parser.add_argument("--separation", type=float, default=0.2, help="of the classes that --penalties makes up")
    parser.add_argument("--extraction", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        memory()
    elif arguments.penalties and arguments.data:
        features, labels, _ = real_features(arguments.data, arguments.weights, arguments.model)
        penalties(features, labels)
    elif arguments.penalties:
        penalties(*mixture(arguments.separation))
    elif arguments.extraction:
        extraction(arguments.data, arguments.weights, arguments.model)
    else:
        compare(*real_features(arguments.data, arguments.weights, arguments.model), arguments.seeds, arguments.peer_seeds)


if __name__ == "__main__":
    main()
