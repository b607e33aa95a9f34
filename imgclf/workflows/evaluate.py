"""Scores a finished run: on its own images, or on others."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from imgclf.data import late_audit, run_images
from imgclf.data.prepare import load_path
from imgclf.data.splits import SPLITS, subset
from imgclf.data.table import Dataset
from imgclf.deploy import scoring
from imgclf.deploy.classifier import load
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError, nearest
from imgclf.evaluation import metrics
from imgclf.evaluation.results import CROSS_VALIDATION
from imgclf.workflows import run_folder
from imgclf.workflows.console import or_terminal


@dataclasses.dataclass(frozen=True)
class LabeledImages:
    """Labeled images that a run is tested on.

    Attributes:
      dataset: the images.
      split: of the run, whose images they are; "" = other images.
    """

    dataset: Dataset
    split: str


def evaluate(
    run: str | os.PathLike[str], on: str | os.PathLike[str] | Any = None, *, split: str = "", console: Console | None = None
) -> scoring.Evaluation:
    """Scores a finished run.

        imgclf.evaluate("runs/photos")                    # the images of its headline, once more
        imgclf.evaluate("runs/photos", "new_photos")      # a folder of class folders, or a table

    Args:
      run: the run's folder, or that of a saved model.
      on: labeled images: a folder, a .csv, .tsv or .parquet file, or what `imgclf.load_images` returns. None = the run's own; of a run
        that was scored by cross-validation its score is returned, as nothing is left that it was not trained on.
      split: of the run's own images: train, val or test; "" = that of its headline.
      console: where the progress is shown; None = the terminal.

    Returns:
      See `Classifier.evaluate`; `split` tells whose images they are, "" where `on` is given.

    Raises:
      UserError: if there is no such run, its data are gone or have changed, or the images have classes that it has not seen.

    Example:
      >>> imgclf.evaluate("runs/photos", "photos", console=quiet)["n"]
      75
      >>> imgclf.evaluate("runs/photos", console=quiet)["split"]
      'cross_validation'
    """
    predictor = load(run)
    if on is None and not split and (found := _cross_validated(predictor)) is not None:
        return found
    images = labeled_images(predictor, on, split)
    found = scoring.evaluate(predictor, images.dataset, console=or_terminal(console))
    found["split"] = images.split
    if images.split == "val" and predictor.config.train.refit:
        found["warnings"].append("The kept model was trained on the val images, too (train.refit): this says nothing of new ones.")
    if images.split == "test":
        found["warnings"] = []  # copies of test images were left out of training
    return found


def _cross_validated(predictor: Predictor) -> scoring.Evaluation | None:
    """The score of a run whose headline is of cross-validation, as it stands there: the kept model was trained on all of its images."""
    results = run_folder.results(_folder(predictor))
    if results["split"] != CROSS_VALIDATION:
        return None
    return scoring.Evaluation(
        {name: results[name] for name in metrics.NAMES if name in results}
        | {"warnings": [], "split": results["split"], "estimates": results.get("estimates")}
    )


def labeled_images(predictor: Predictor, on: str | os.PathLike[str] | Any = None, split: str = "") -> LabeledImages:
    """The labeled images that a command tests a run on; see `evaluate`.

    Raises:
      UserError: as `evaluate` does.
    """
    if on is None:
        split = split or run_folder.results(_folder(predictor))["split"]
        if split == CROSS_VALIDATION:
            raise UserError(f"All images of the run in {_folder(predictor)} were trained on: name labeled images to test it on.")
        return LabeledImages(images_of(predictor, split), split)
    if split:
        raise UserError(f"split={split!r} is one of the run's own images, and other images are given: leave one of them out.")
    if isinstance(on, str | os.PathLike):
        return LabeledImages(load_path(on)[0], "")
    return LabeledImages(scoring.need_dataset(on, "evaluate"), "")


def images_of(predictor: Predictor, split: str) -> Dataset:
    """The images of a split of the run that a classifier was loaded from, as they were split, audited and limited then.

    Raises:
      UserError: if the data is not there any more, or has changed, or there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}; {nearest(split, SPLITS)}")
    folder = _folder(predictor)
    dataset = run_images.load(folder, predictor.config)
    rows = np.flatnonzero(dataset.table["split"] == split)
    if not len(rows):
        raise UserError(f"The run in {folder} has no {split} images: name labeled images to test it on.")
    return late_audit.verified(subset(dataset, rows))


def _folder(predictor: Predictor) -> Path:
    if predictor.folder is None:
        raise UserError("This classifier was loaded from no run: name labeled images to test it on.")
    return predictor.folder
