"""`classifier.map()`: a run's images in the plane, near each other where the network finds them alike."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import formatting, outputs
from imgclf.data import run_images
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.deploy import scoring
from imgclf.deploy.items import Data
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation.open_set import references
from imgclf.evaluation.results import CROSS_VALIDATION
from imgclf.explanation import projection
from imgclf.probes.features import extract
from imgclf.reporting import feature_map as page
from imgclf.reporting import pages

MOST = 5000  # points: a minute of t-SNE


def map_images(
    predictor: Predictor, data: Data | None, path: str | os.PathLike[str] | None, *, most: int, overwrite: bool, console: Console
) -> pd.DataFrame:
    """Makes the map and its page; see `Classifier.map`."""
    if not projection.LEAST <= most <= MOST:
        raise UserError(f"most={most} is out of range: a map shows {projection.LEAST} to {MOST:,} images.")
    dataset = _of_run(predictor) if data is None else scoring.need_dataset(data, "map")
    of = outputs.identity(
        "map",
        f"{formatting.count(len(dataset.table), 'image')} of {pages.name_of(dataset)}",
        predictor.sha256,
        pages.digest_of(dataset),
        str(most),
    )
    folder = predictor.folder or Path()
    target = outputs.free_file(folder / page.PAGE, of) if path is None else outputs.check_file(path, of, overwrite=overwrite)
    rows = references(dataset.table["id"].to_numpy(), most)
    if len(rows) < projection.LEAST:
        raise UserError(f"{formatting.count(len(rows), 'image')} make no map: it takes {projection.LEAST} at least.")
    shown = subset(dataset, rows)
    predicted, judged = _answers(predictor, shown, own=data is None, console=console)
    model = predictor.explained
    features = np.asarray(extract(model.config, model.network, shown, console=console))
    points = projection.project(features, console=console)
    table = shown.table[["id", "class_name", "split"]].assign(predicted=predicted, x=points[:, 0], y=points[:, 1])
    about = {
        "title": folder.name or predictor.config.name,
        "source": f"{predictor.config.model.name} on {pages.name_of(dataset)}",
        "of": len(dataset.table),
        "kept": projection.neighbours_kept(features, points),
        "judged": judged,
    }
    page.write_page(target, shown, table, about, of=of, console=console)
    told = f"Map of {formatting.count(len(table), 'image')}; open {target} in a browser."
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    return table


def _of_run(predictor: Predictor) -> Dataset:
    if predictor.folder is None or not (predictor.folder / "dataset.parquet").exists():
        raise UserError("This classifier has no run with a table of images (dataset.parquet): give labeled images, map(data).")
    return run_images.load(predictor.folder, predictor.config)


def _answers(predictor: Predictor, dataset: Dataset, *, own: bool, console: Console) -> tuple[np.ndarray, str]:
    """What each image was taken for, "" where nothing is known, and what is known, as a noun for one of them.

    Of the run's own images these are the answers of its headline, which are not of images that the answering model was trained on.
    """
    if not own:
        scoring.labels_of(predictor, dataset)
        answers = scoring.probabilities(predictor, dataset, console).argmax(1)
        return np.array(predictor.class_names, object)[answers], "image"
    folder = predictor.folder or Path()
    if not (folder / "predictions.csv").exists():
        return np.full(len(dataset.table), "", object), "image"
    found = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    split = json.loads((folder / "results.json").read_text(encoding="utf-8"))["split"]
    said = dataset.table["id"].map(dict(zip(found["id"], found["predicted"], strict=True))).fillna("")
    return said.to_numpy(object), "held-out image" if split == CROSS_VALIDATION else f"{split} image"
