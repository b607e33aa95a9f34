"""Explains pictures by a finished run; and, after training, the worst mistakes of the run itself for its report."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf.config import Config
from imgclf.data import augment
from imgclf.data.images import Decoding
from imgclf.data.readers import decoded_as
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.deploy import explaining
from imgclf.deploy.classifier import load
from imgclf.evaluation.open_set import references
from imgclf.evaluation.results import CROSS_VALIDATION
from imgclf.explanation import pictures, projection
from imgclf.explanation.choices import Method, check_method
from imgclf.explanation.explained import Explained
from imgclf.explanation.neighbours import References
from imgclf.explanation.pictures import Search
from imgclf.probes.features import extract
from imgclf.reporting import explanations, feature_map, samples
from imgclf.training.trained_model import TrainedModel
from imgclf.workflows.console import or_terminal


def explain(  # noqa: PLR0913  (options by name)
    run: str | os.PathLike[str],
    sources: object,
    path: str | os.PathLike[str] | None = None,
    *,
    class_name: str = "",
    method: Method = "hirescam",
    neighbours: int | None = None,
    top_k: int = 5,
    overwrite: bool = False,
    console: Console | None = None,
) -> pd.DataFrame:
    """Shows which places of images speak for the answer of a finished run, and which training images are nearest.

        imgclf.explain("runs/photos", ["cat.jpg", "dog.jpg"])

    Args:
      run: the run's folder, or that of a saved model.
      sources: images, such as paths or arrays uint8 [h, w, 3], see `Classifier.predict`.
      path, class_name, method, neighbours, top_k, overwrite: see `Classifier.explain`.
      console: where the progress is shown; None = the terminal.

    Returns:
      A row per image: `id`, `predicted`, `class`, `map` (float32 [h, w]), `neighbours`, …, see `Classifier.explain`.

    Raises:
      UserError: if there is no such run, and as `Classifier.explain` does.

    Example:
      >>> imgclf.explain("runs/photos", "photos/blue/00.png", "blue.html", neighbours=1, console=quiet).predicted.tolist()
      ['blue']
    """
    wanted = explaining.Wanted(check_method(method), class_name, neighbours, top_k)
    return explaining.explain(load(run), sources, wanted, path, overwrite=overwrite, console=or_terminal(console))


def explain_mistakes(
    folder: Path, config: Config, dataset: Dataset, trained: TrainedModel, results: dict, predictions: pd.DataFrame, console: Console
) -> None:
    """Explains the worst mistakes of a run for its report: maps of the predicted and of the true class, and the nearest training images.

    Args:
      folder: of the run; written is its `samples/`, see `reporting.explanations.save`.
      config: the whole config, resolved.
      dataset: with its splits.
      trained: the kept model.
      results: the contents of results.json.
      predictions: the rows of predictions.csv.
      console: shows the progress.
    """
    wrong = samples.most_confident_mistakes(predictions, config.eval.explain)
    if wrong.empty:
        return
    names = dataset.class_names
    model = Explained.of(config, len(names), trained.params, trained.batch_stats)
    if model.place_count == (1, 1):
        return
    rows = _rows(dataset, wrong["id"])
    reader = decoded_as(dataset.reader, Decoding.of(config.data))
    read = pictures.read(augment.Preprocessing.of(config), lambda place: reader[int(rows[place])], len(rows), console)
    labels = np.array([[names.index(name) for name in wrong[column]] for column in ("predicted", "true")]).T
    references = _references(config, model, dataset, console)
    search = None
    if references is not None:
        features = np.asarray(extract(config, model.network, dataset, rows=rows))
        search = Search(references, features, explaining.NEIGHBOURS, dataset.table["sha256"].iloc[rows].tolist())
    made = pictures.explained(model, read, labels, class_names=names, method="hirescam", search=search, console=console)
    crossed = results["split"] == CROSS_VALIDATION
    note = (
        "The maps are of the kept head, which was solved on these images, too; their mistakes are of heads that were not."
        if crossed
        else ""
    )
    said = explanations.about("hirescam", model, references, note)
    cards = explanations.cards(made, references, console)
    explanations.save(folder, said, dict(zip(wrong["id"], cards, strict=True)))


MAPPED = 240  # images on the map of a report


def map_evaluated(
    folder: Path, config: Config, dataset: Dataset, trained: TrainedModel, predictions: pd.DataFrame, console: Console
) -> None:
    """Makes the report's map: a sample of the images of its headline, laid out by the network's features.

    Where training had a limit of time, this is done only if the features are in the cache already. For the arguments see
    `explain_mistakes`.
    """
    if not config.eval.explain or (config.train.stop_after and config.train.method != "probe"):
        return
    chosen = references(predictions["id"].to_numpy(), MAPPED)
    if len(chosen) < projection.LEAST:
        return
    rows = _rows(dataset, predictions["id"].iloc[chosen])
    shown = subset(dataset, rows)
    model = Explained.of(config, len(dataset.class_names), trained.params, trained.batch_stats)
    features = np.asarray(extract(config, model.network, dataset, rows=rows, console=console))
    points = projection.project(features, console=console)
    table = shown.table[["id", "class_name", "split"]].assign(predicted=predictions["predicted"].to_numpy()[chosen])
    table = table.assign(x=points[:, 0], y=points[:, 1])
    about = {"of": len(predictions), "kept": projection.neighbours_kept(features, points)}
    reader = decoded_as(shown.reader, Decoding.of(config.data))
    feature_map.save(folder, dataclasses.replace(shown, reader=reader), table, about, console)


def _rows(dataset: Dataset, ids: pd.Series) -> np.ndarray:
    """The rows of images in the table, int64 [n]."""
    row_of = dict(zip(dataset.table["id"], range(len(dataset.table)), strict=True))
    return np.array([row_of[image_id] for image_id in ids], np.int64)


def _references(config: Config, model: Explained, dataset: Dataset, console: Console) -> References | None:
    """The training images to search: all, where a probe has cached their features; a sample, where these are computed for it; none, where
    training had a limit of time, of which nothing may be taken for this."""
    if config.train.method == "probe":
        return References.create(model, dataset)
    if config.train.stop_after:
        return None
    return References.create(model, dataset, most=explaining.SAMPLE, console=console)
