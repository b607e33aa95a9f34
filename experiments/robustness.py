"""Does augmentation make a classifier robust? Every run of a study on corrupted photos and on files of every EXIF orientation.

Takes the folder of a finished study, such as one of experiments/augmentation.py, and puts each run's kept model on its own test images
under seven corruptions at five severities (ImageNet-C's levels, see imgclf/evaluation/corruptions.py): the same corrupted pictures for
all. An arm's seeds are pooled; arms are compared by their mean corruption accuracy over the same images, paired, with Holm's correction.
Writes robustness.json and robustness.html into the study's folder.
Cost: the corruptions once, half a minute for 214 photos on 2 CPU cores, then 5 to 10 s a run. Result: experiments/README.md.
Command: python experiments/robustness.py STUDY_FOLDER [--seeds N]
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from imgclf import formatting
from imgclf.config import Config
from imgclf.data import augment
from imgclf.data.splits import subset
from imgclf.data.table import load_dataset
from imgclf.deploy.classifier import load
from imgclf.evaluation import compare, intervals, robustness
from imgclf.reporting import robustness as page
from imgclf.workflows.robustness import probabilities_of_views

ORIENTED = 24  # photos that are stored in all orientations


class Views:
    """The corrupted and turned pictures of a data set for one preprocessing, made once for all runs that share it.

    Attributes:
      labels: int64 [N].
      corrupted: uint8 [N, conditions, H, W, 3], or with several views [N, conditions, V, H, W, 3].
      turned: likewise [n, 8, …], of the first n images.
    """

    def __init__(self, config: Config, ids: list[str], tested: list[robustness.Condition]):
        everything = load_dataset(config)
        place = {name: row for row, name in enumerate(everything.table["id"])}
        dataset = subset(everything, [place[name] for name in ids])
        self.labels = dataset.table["label"].to_numpy(np.int64)
        pictures = robustness.corrupted_views(dataset, config, tested)
        turned = robustness.oriented_photos(dataset, np.unique(np.linspace(0, len(ids) - 1, ORIENTED).astype(int)))
        shown = augment.Preprocessing.of(config)

        def turn(item: int) -> np.ndarray:
            return shown.shown(turned[item])

        with ThreadPoolExecutor(2) as pool:
            self.corrupted = np.stack(list(pool.map(pictures.__getitem__, range(len(pictures))))).reshape(
                len(ids), len(tested), *shown.shape
            )
            self.turned = np.stack(list(pool.map(turn, range(len(turned))))).reshape(-1, 8, *shown.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--seeds", type=int, default=0, help="the first so many; 0 = all")
    options = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    study = json.loads((options.study / "study.json").read_text())
    runs = pd.read_csv(options.study / "study.csv", keep_default_na=False)
    runs = runs[runs["seed"] < (options.seeds or study["seeds"])]
    tested = robustness.conditions()

    ids = {folder: _test_ids(options.study / folder) for folder in runs["folder"]}
    everything = sorted(set().union(*ids.values()))
    place = {name: row for row, name in enumerate(everything)}
    made: dict[augment.Preprocessing, Views] = {}
    right: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    turned: dict[str, list[dict]] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for arm, seed, folder in bar.track(list(zip(runs["arm"], runs["seed"], runs["folder"], strict=True)), description="runs"):
            predictor = load(options.study / folder)
            key = augment.Preprocessing.of(predictor.config)
            if key not in made:
                made[key] = Views(predictor.config, everything, tested)
            views = made[key]
            rows = np.array([place[name] for name in ids[folder]])
            shown = np.concatenate([views.corrupted[rows].reshape(-1, *views.corrupted.shape[2:]), *views.turned])
            probabilities = probabilities_of_views(predictor, list(shown), Console(quiet=True))
            count = len(rows) * len(tested)
            answers = probabilities[:count].argmax(-1).reshape(len(rows), len(tested))
            right.setdefault((arm, seed), {}).update(zip(ids[folder], answers == views.labels[rows, None], strict=True))
            turned.setdefault(arm, []).append(robustness.orientations(probabilities[count:].reshape(len(views.turned), 8, -1)))

    common = sorted(set.intersection(*map(set, right.values())))
    arms: dict[str, dict[robustness.Condition, np.ndarray]] = {}
    for arm in study["arms"]:
        stacked = np.array([[right[key][name] for name in common] for key in sorted(right) if key[0] == arm])  # [seeds, images, conditions]
        if len(stacked):
            arms[arm] = {condition: stacked[:, :, i] for i, condition in enumerate(tested)}
    results = {
        "question": "Which augmentation makes the classifier robust?",
        "data": study["data"],
        "baseline": study["baseline"],
        "seeds": len({seed for _, seed in right}),
        "n": len(common),
        "arms": {arm: robustness.summarize(correct) | {"orientations": _pooled(turned[arm])} for arm, correct in arms.items()},
        "comparisons": compare_means(arms, study["baseline"]),
    }
    written = page.write_study(options.study, results)
    table = Table("arm", "clean", "corrupted (95 % interval)", "against " + study["baseline"] + ", points", "p (Holm)")
    for arm, row in results["arms"].items():
        other = results["comparisons"].get(arm)
        difference = "–" if other is None else _points(other["difference"], other["difference_ci95"])
        accuracy = f"{formatting.percent(row['mean_top1'])} ({formatting.interval(row['mean_top1_ci95'])})"
        table.add_row(
            arm, formatting.percent(row["clean"]["top1"]), accuracy, difference, "" if other is None else f"{other['p_holm']:.2g}"
        )
    Console(width=140).print(table)
    console.print(f"Page: {written}")


def compare_means(arms: dict[str, dict[robustness.Condition, np.ndarray]], baseline: str) -> dict[str, dict[str, Any]]:
    """Differences of the mean corruption accuracy to the baseline, by image: with interval, exact p and Holm's, and whether it is a tie."""
    rows: dict[str, dict[str, Any]] = {}
    for arm, correct in arms.items():
        if arm == baseline:
            continue
        difference = _corrupted_right(correct) - _corrupted_right(arms[baseline])
        scaled = difference / (len(correct) - 1)
        p = compare.sign_flip_test(difference.sum(0))
        rows[arm] = {"difference": float(scaled.mean()), "difference_ci95": intervals.bootstrap(scaled), "p": p}
    for row, p in zip(rows.values(), intervals.holm([row["p"] for row in rows.values()]), strict=True):
        row |= {"p_holm": p, "tie": compare.is_tie(p, row["difference_ci95"])}
    return rows


def _corrupted_right(correct: dict[robustness.Condition, np.ndarray]) -> np.ndarray:
    """How many of the corrupted versions of each image were right, int64 [S, N]."""
    return np.sum([right for condition, right in correct.items() if condition != robustness.CLEAN], axis=0)


def _test_ids(folder: Path) -> list[str]:
    table = pd.read_parquet(folder / "dataset.parquet", columns=["id", "split"])
    return table.loc[table["split"] == "test", "id"].tolist()


def _pooled(rows: list[dict]) -> dict:
    return {
        "images": sum(row["images"] for row in rows),
        "same": sum(row["same"] for row in rows),
        "largest_difference": max(row["largest_difference"] for row in rows),
    }


def _points(difference: float, bounds: list[float]) -> str:
    return f"{100 * difference:+.1f} ({100 * bounds[0]:+.1f} to {100 * bounds[1]:+.1f})"


if __name__ == "__main__":
    main()
