"""Few photos a class, lopsided classes, and photos of none of the classes: what the ways to deal with them are worth on fixed features.

    python experiments/benchmarks/hard_data.py [few_shot | lopsided | open_set] [--weights FILE] [--draws 10]

few_shot: 1, 2, 3, 5 and 10 photos of each class of clothing10, drawn at random: the nearest class mean beside the logistic probe, top-1 on
all photos that were not drawn, and the paired difference with its 95 % interval over draws.

lopsided: classes of clothing10 and cifar10_test1000 from 45 photos down to one, in geometric steps, in an order that is drawn: balanced
accuracy of the logistic probe as it is, with logit adjustment, with balanced class weights, and of the nearest class mean; and the accuracy
where the classes are as frequent as in training.

open_set: known photos beside unknown ones: the area under the ROC curve of the p-value, and how many of either are flagged at 5 %.

Data and weights are those of ../shared.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from sklearn.metrics import roc_auc_score

from imgclf import config as config_lib
from imgclf import models
from imgclf.data.prepare import load_path
from imgclf.data.table import Dataset
from imgclf.evaluation.open_set import OpenSet
from imgclf.methods import resolve
from imgclf.models.weights import files, pretrained
from imgclf.probes.cross_validation import CrossValidation, fit_linear
from imgclf.probes.features import extract

SHARED = Path(__file__).resolve().parents[3] / "shared"
LARGEST = 45  # photos of the most frequent of the lopsided classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=["few_shot", "lopsided", "open_set"], default=["few_shot", "lopsided", "open_set"])
    parser.add_argument("--weights", default=str(SHARED / "weights" / "mobilenet_v2_1.0_224.keras.h5"))
    parser.add_argument("--draws", type=int, default=10)
    args = parser.parse_args()
    for part in args.part:
        {"few_shot": few_shot, "lopsided": lopsided, "open_set": open_set}[part](args.weights, args.draws)


def few_shot(weights: str, draws: int) -> None:
    x, labels, _ = features_of("clothing10", weights)
    for count in (1, 2, 3, 5, 10):
        scores: dict[str, list[float]] = {}
        for draw in range(draws):
            rows = drawn(labels, np.full(labels.max() + 1, count), draw)
            rest = np.setdiff1d(np.arange(len(labels)), rows)
            for solver in ("logistic", "nearest_mean"):
                logits = solved(x[rows], labels[rows], solver)(x[rest])
                scores.setdefault(solver, []).append(float(np.mean(logits.argmax(1) == labels[rest])))
        told = ", ".join(f"{name} {100 * np.mean(values):.1f} %" for name, values in scores.items())
        difference = 100 * (np.array(scores["nearest_mean"]) - scores["logistic"])
        half = 1.96 * difference.std(ddof=1) / np.sqrt(draws)
        print(f"{count} a class: {told}; nearest mean {difference.mean():+.1f} ± {half:.1f} points", flush=True)


def lopsided(weights: str, draws: int) -> None:
    for data in ("clothing10", "cifar10_test1000"):
        x, labels, _ = features_of(data, weights)
        classes = labels.max() + 1
        scores: dict[str, list[tuple[float, float]]] = {}
        for draw in range(draws):
            counts = np.round(LARGEST ** (1 - np.random.default_rng(draw).permutation(classes) / (classes - 1))).astype(int)
            rows = drawn(labels, counts, draw)
            rest = np.setdiff1d(np.arange(len(labels)), rows)
            shares = counts / counts.sum()
            plain = solved(x[rows], labels[rows], "logistic")(x[rest])
            even = (counts.sum() / (classes * counts)).astype(np.float32)
            for name, logits in {
                "as they are": plain,
                "logit adjustment 0.5": plain - 0.5 * np.log(shares),
                "logit adjustment 1": plain - np.log(shares),
                "class weights": solved(x[rows], labels[rows], "logistic", even)(x[rest]),
                "nearest mean": solved(x[rows], labels[rows], "nearest_mean")(x[rest]),
            }.items():
                right = logits.argmax(1) == labels[rest]
                recalls = np.array([right[labels[rest] == label].mean() for label in range(classes)])
                scores.setdefault(name, []).append((recalls.mean(), recalls @ shares))
        for name, values in scores.items():
            balanced, natural = 100 * np.mean(values, axis=0)
            print(f"{data}, 1 to {LARGEST} photos, {name}: balanced accuracy {balanced:.1f} %, accuracy {natural:.1f} %", flush=True)


def open_set(weights: str, draws: int) -> None:
    del draws  # nothing is drawn
    x, labels, train = features_of("clothing10", weights)
    figures, imagenet = features_of("doraemon_walle", weights)[0], features_of("imagenet_sample", weights)[0]
    few = labels < 5
    for name, known, unknown in (
        ("five classes of clothing10 beside the other five", few, x[~few]),
        ("five classes of clothing10 beside doraemon_walle", few, figures),
        ("five classes of clothing10 beside imagenet_sample", few, imagenet),
        ("clothing10 beside doraemon_walle", labels >= 0, figures),
        ("clothing10 beside imagenet_sample", labels >= 0, imagenet),
    ):
        found = OpenSet.create(x[known & train], np.arange((known & train).sum()), len(set(labels[known])), "")
        inside, outside = found.p_values(x[known & ~train]), found.p_values(unknown)
        area = roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), -np.concatenate([inside, outside]))
        alarms, hits = np.mean(inside <= 0.05), np.mean(outside <= 0.05)
        print(f"{name}: area {area:.3f}; flagged at 5 %: {100 * alarms:.1f} % of known, {100 * hits:.1f} % of unknown", flush=True)


def drawn(labels: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Rows of so many photos of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(labels == label), count, replace=False) for label, count in enumerate(counts)])


def solved(x: np.ndarray, labels: np.ndarray, solver: str, class_weight: np.ndarray | None = None):
    """A head on these features, as a function from features to logits."""
    counts, names = np.bincount(labels), [str(label) for label in range(labels.max() + 1)]
    several = counts[counts > 1]
    strengths = () if len(several) else (0.1,)  # with one photo a class nothing can be held out
    validation = CrossValidation.create(labels, None, names, strengths, int(min(5, several.min())) if len(several) else 2, 0, solver)
    found = fit_linear(x, labels, validation, solver=solver, class_weight=class_weight)
    return lambda features: features @ found.kernel + found.bias


def features_of(data: str, weights: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 [N, D], labels [N], and whether each photo is in the data's own training split."""
    dataset = loaded(data)
    config = config_lib.default_config()
    config.model.name, config.model.weights = pretrained.looks_like(files.shapes(Path(weights))), f"path:{weights}"
    config.data.path, config.data.image_size, config.data.resize, config.train.method = data, (224, 224), "weights", "probe"
    config = resolve.resolve(resolve.check(config), len(dataset.class_names))
    model = models.create(config, len(dataset.class_names), tell=lambda said: None)
    found = extract(config, model, dataset, console=Console(stderr=True))
    return found, dataset.table["label"].to_numpy(np.int64), (dataset.table["split"] == "train").to_numpy()


def loaded(data: str) -> Dataset:
    """The photos of a folder of ../shared/data; those without class folders as two classes that mean nothing."""
    folder = SHARED / "data" / data
    if not (folder / "labels.csv").exists():
        return load_path(folder)[0]
    table = pd.read_csv(folder / "labels.csv")
    with tempfile.TemporaryDirectory() as aside:
        listed = Path(aside) / "list.csv"
        pd.DataFrame({"path": table["filename"], "label": ["even", "odd"] * (len(table) // 2)}).to_csv(listed, index=False)
        return load_path(listed, root=str(folder))[0]


if __name__ == "__main__":
    main()
