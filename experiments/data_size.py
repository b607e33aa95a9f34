"""How does accuracy grow with the number of training photos, and how many more would be worth taking?

clothing10's 814 photos in 3 folds; of each class 5 to 48 train (all that the smallest class has), nested: a smaller number's photos are
among a larger one's, and a fold's test photos are always the same. Nothing is kept apart for validation. Three classifiers, a study each:

  model=mobilenet_v2_035, model=mobilenet_v2    a logistic probe on the features of MobileNetV2 0.35 or 1.0, 224 px; 3 seeds
  model=cnn                                     a CNN of 85,000 parameters from scratch, 64 px, 300 steps of AdamW; 1 seed, 3 sizes

Then a power law, error = a·n^-b + c, is fitted to each and continued to 2 and 4 times the photos, with intervals by bootstrap over
photos and seeds (imgclf/evaluation/learning_curve.py), which also says where the data don't support that.

Cost: see experiments/README.md.
Commands: imgclf study experiments/data_size.py:[DATA][,weights=FOLDER][,model=…] --workdir=runs/data_size/MODEL, each model, then
python experiments/data_size.py runs/data_size/*, which writes learning_curve.json and learning_curve.html into runs/data_size
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.config import default_config, parse_config_argument
from imgclf.evaluation import learning_curve
from imgclf.reporting import learning_curve as page
from imgclf.studies import Study

DATA = "../shared/data/clothing10"
WEIGHTS = "../shared/weights"
FILES = {
    "mobilenet_v2_035": "mobilenet_v2_0.35_224_no_top.keras.h5",
    "mobilenet_v2": "mobilenet_v2_1.0_224.keras.h5",
}
CNN = {
    "data.image_size": (64, 64),
    "train.method": "fit",
    "train.duration": "300 steps",
    "train.best_metric": "",
    "train.log_every": "100 steps",
    "train.checkpoint_every": "100%",
    "augment.crop_scale": (0.5, 1.0),
    "augment.flip": 0.5,
    "optimizer.weight_decay": 0.01,
    "optimizer.schedule.name": "cosine",
    "optimizer.schedule.warmup": "10%",
}


def get_study(argument: str = "") -> Study:
    asked = parse_config_argument(argument, weights=WEIGHTS, model="mobilenet_v2")
    name = asked["model"]
    base = default_config()
    base.data.path = asked["path"] or DATA
    base.data.split.fractions = (0.67, 0.0, 0.33)  # no val; the folds give the rest
    sizes: tuple[int, ...] = (5, 8, 12, 20, 30, 48)
    seeds = 3
    if name == "cnn":
        fields, sizes, seeds = CNN, (12, 24, 48), 1
    else:
        weights = f"path:{asked['weights']}/{FILES[name]}"
        fields = {"data.image_size": (224, 224), "model.name": name, "model.weights": weights, "train.method": "probe"}
    arms = {f"{name}, {size}": fields | {"data.per_class": size} for size in sizes}
    return Study(base=base, arms=arms, baseline=f"{name}, {sizes[-1]}", seeds=seeds, folds=3)


def outcomes(folder: Path) -> dict[int, np.ndarray]:
    """Reads a finished study: images per class → bool [seeds, test images], in the order of the images' ids."""
    study = json.loads((folder / "study.json").read_text())
    runs = pd.read_csv(folder / "study.csv")
    found = {}
    for arm, about in study["arms"].items():
        by_seed = []
        for _, own in runs[runs["arm"] == arm].groupby("seed"):
            tables = [pd.read_csv(folder / run / "predictions.csv", dtype=str, keep_default_na=False) for run in own["folder"]]
            tested = pd.concat(tables).set_index("id").sort_index()
            by_seed.append((tested["predicted"] == tested["true"]).to_numpy())
        found[about["fields"]["data.per_class"]] = np.stack(by_seed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, metavar="FOLDER", help="of a study of this file; each is a curve")
    folders = [folder for folder in parser.parse_args().studies if (folder / "study.json").exists()]
    found = {folder.name: learning_curve.extrapolate(outcomes(folder)) for folder in folders}
    for name, about in found.items():
        for row in about["points"]:
            print(f"{name}, {row['images']} a class: {_accuracy(row)}")
        for row in about["beyond"]:
            low, high = row["gain_ci95"]
            gain = f"{100 * row['gain']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
            print(f"{name}, {row['images']} a class, by the law: {_accuracy(row)}, {gain}")
        if about["unsupported"]:
            print(f"{name}: don't rely on what stands beyond: {about['unsupported']}.")
    print(page.write(folders[0].parent, json.loads((folders[0] / "study.json").read_text())["data"], found))


def _accuracy(row: dict) -> str:
    low, high = row["error_ci95"]
    return f"{formatting.percent(1 - row['error'])} ({formatting.interval((1 - high, 1 - low))})"


if __name__ == "__main__":
    main()
