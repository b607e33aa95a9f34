"""What of a reproduction runs in the bundle's own environment: the run is evaluated, and trained, once more.

`python -m imgclf.workflows.rerun BUNDLE OUT` is called by `imgclf reproduce`, which compares what it leaves in OUT with the bundle:
`evaluated/` (predictions.csv, results.json, environment.json), `retrained/` (a run's folder), and `rerun.json`.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files
from imgclf.config import Config
from imgclf.data import run_images
from imgclf.data.splits import subset
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError
from imgclf.evaluation import results as results_lib
from imgclf.publishing import examples, fetching, kept
from imgclf.workflows import run_folder, train
from imgclf.workflows.console import or_terminal

EVALUATED, RETRAINED, NOTE = "evaluated", "retrained", "rerun.json"
TEACHER, WEIGHTS = "inputs/teacher", "inputs/weights"


def rerun(bundle: Path, out: Path, *, retrain: bool, places: fetching.Places, console: Console | None = None) -> None:
    """Evaluates the run of a bundle once more, and trains it again if asked; see the module.

    Args:
      bundle: its folder, verified.
      out: the folder of the reproduction.
      retrain: whether to train again.
      places: where the user has images.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: if none of the images can be had, or the bundle does not fit this imgclf.
    """
    console = or_terminal(console)
    run = bundle / "run"
    saved_config = config_lib.from_json((run / "config.json").read_text(encoding="utf-8"))
    results = run_folder.results(run)
    fetched = fetching.fetch(bundle, out, places, console)
    saved = pd.read_parquet(run / "dataset.parquet")
    config = _with_inputs(examples.config_for(saved_config, fetched.table, set(saved["split"])), bundle)
    begun = time.perf_counter()
    _evaluate(config, saved, bundle, out / EVALUATED, console)
    evaluated = time.perf_counter()
    note = {"images": fetched.total, "problems": fetched.problems, "evaluate_seconds": round(evaluated - begun, 1)}
    if retrain:
        dataset = None if fetched.table is not None or config.data.split.method != "given" else run_images.load(run, config)
        train.train(config, out / RETRAINED, console=console, dataset=dataset)
        note["retrain_seconds"] = round(time.perf_counter() - evaluated, 1)
    files.write_json(out / NOTE, note | {"params_sha256": results["params_sha256"]})


def _evaluate(config: Config, saved: pd.DataFrame, bundle: Path, target: Path, console: Console) -> None:
    """Scores the kept model as training had scored it, on the images that are there."""
    run = bundle / "run"
    results = run_folder.results(run)
    audit_report = json.loads((run / "audit.json").read_text(encoding="utf-8"))
    dataset = _as_saved(load_dataset(config), saved, tuple(results["class_names"]))
    again = kept.trained(config, dataset, run, results, console)
    found, predictions = results_lib.score(config, dataset, again, audit_report)
    target.mkdir(parents=True, exist_ok=True)
    files.write_text(target / "predictions.csv", predictions.to_csv(index=False))
    files.write_json(target / "results.json", found)
    files.write_json(target / "environment.json", run_folder.environment())


def _as_saved(loaded: Dataset, saved: pd.DataFrame, class_names: tuple[str, ...]) -> Dataset:
    """The images that are there, in the run's order, with its labels and splits."""
    rows = pd.Series(range(len(loaded.table)), index=loaded.table["id"]).reindex(saved["id"]).to_numpy()
    there = ~np.isnan(rows)
    found = subset(loaded, rows[there].astype(np.int64))
    own = saved[there].reset_index(drop=True)
    same = found.table["sha256"].to_numpy() == own["sha256"].to_numpy()
    if not same.all():
        raise UserError(f"The run's source makes other images now, such as {own['id'][~same].iloc[0]!r}: use the bundle's own environment.")
    return dataclasses.replace(found, table=own, class_names=class_names)


def _with_inputs(config: Config, bundle: Path) -> Config:
    """The config with the teacher, and the weights of one's own, that lie in the bundle."""
    if config.train.teacher:
        config.train.teacher = str(bundle / TEACHER)
    if config.model.weights.startswith("path:"):
        config.model.weights = f"path:{bundle / WEIGHTS / Path(config.model.weights).name}"
    return config


def main() -> None:
    """Parses the arguments; a user's mistake is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--retrain", action="store_true")
    parser.add_argument("--images", default="")
    parser.add_argument("--mirror-url", default="")
    asked = parser.parse_args()
    try:
        rerun(asked.bundle, asked.out, retrain=asked.retrain, places=fetching.Places(asked.images, asked.mirror_url))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
