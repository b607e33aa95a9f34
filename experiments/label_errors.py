"""How many of planted label errors does `imgclf label-errors` find? 5 % of clothing10's 600 training labels are made wrong, at random.

Five seeds choose other images and other wrong classes; MobileNetV2 1.0 features, a probe in 5 folds whose penalty cross-validation
chooses on the same noisy labels. At most 10 % of the images are flagged. Recall is the share of the planted errors among them; precision
counts the planted ones only, so that real errors of the data set stand against it. The interval over all seeds takes their plants as
independent, though they fall on the same 600 images.
Cost: half a minute on 2 CPU cores, the features included. Result: experiments/README.md.
Command: python experiments/label_errors.py [--data DIR] [--weights FILE] [--model NAME] [--seeds 5] [--share 0.05]
"""

import argparse
import dataclasses

import numpy as np
from rich.console import Console
from rich.table import Table

from imgclf import formatting, models
from imgclf.config import default_config
from imgclf.data.splits import subset
from imgclf.data.table import Dataset, load_dataset
from imgclf.evaluation import intervals, label_errors
from imgclf.methods import resolve
from imgclf.workflows.label_errors import out_of_fold_probabilities


def plant(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, np.ndarray]:
    """Gives this share of the images another class, drawn uniformly from the others; returns also which (bool [N])."""
    rng, classes = np.random.default_rng(seed), len(dataset.class_names)
    labels = dataset.table["label"].to_numpy(copy=True)
    planted = np.zeros(len(labels), bool)
    planted[rng.choice(len(labels), round(share * len(labels)), replace=False)] = True
    labels[planted] = (labels[planted] + rng.integers(1, classes, planted.sum())) % classes
    return dataclasses.replace(dataset, table=dataset.table.assign(label=labels)), planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/clothing10")
    parser.add_argument("--weights", default="../shared/weights/mobilenet_v2_1.0_224.keras.h5")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args()
    config = default_config()
    config.data.path, config.data.image_size = options.data, (224, 224)
    config.model.name, config.model.weights = options.model, f"path:{options.weights}"
    console = Console()
    everything = load_dataset(config)
    clean = subset(everything, np.flatnonzero(everything.table["split"] == "train"))
    config = resolve.resolve(config, len(clean.class_names))
    model = models.create(config, len(clean.class_names), tell=lambda said: None)

    table = Table("seed", "planted", "flagged", "found", "recall (95 % interval)", "precision", "right class suggested")
    totals = np.zeros(4, int)
    truth = clean.table["label"].to_numpy()
    for seed in range(options.seeds):
        noisy, planted = plant(clean, options.share, seed)
        labels = noisy.table["label"].to_numpy()
        suspects = label_errors.find(out_of_fold_probabilities(config, model, noisy, console), labels)
        hit = planted[suspects.rows]
        mended = int((suspects.suggested[hit] == truth[suspects.rows[hit]]).sum())
        row = np.array([planted.sum(), len(suspects.rows), hit.sum(), mended])
        totals += row
        _add(table, str(seed), row, len(clean.table))
    _add(table, "all", totals, options.seeds * len(clean.table))
    Console(width=120).print(table)


def _add(table: Table, name: str, row: np.ndarray, images: int) -> None:
    planted, flagged, found, mended = map(int, row)
    recall = f"{formatting.percent(found / planted)} ({formatting.interval(intervals.wilson(found, planted))})"
    share = f"{flagged} ({formatting.percent(flagged / images)})"
    table.add_row(name, str(planted), share, str(found), recall, formatting.percent(found / flagged), formatting.percent(mended / found))


if __name__ == "__main__":
    main()
