"""Runs a classifier over corrupted photos, and over files of every EXIF orientation."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imgclf.data.prepare import prepare
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation.robustness import ORIENTATIONS, Condition, corrupted_views, oriented_photos
from imgclf.workflows import run_folder

BATCH = 64


def images_of(predictor: Predictor, split: str) -> Dataset:
    """The images of a split of the run that a classifier was loaded from, as they were split, audited and limited then.

    Raises:
      UserError: if the data is not there any more, or has changed.
    """
    dataset = prepare(predictor.config).dataset
    if predictor.folder is not None:
        run_folder.check_same_data(dataset, Path(predictor.folder))
    rows = np.flatnonzero(dataset.table["split"] == split)
    if not len(rows):
        raise UserError(f"The run in {predictor.folder} has no {split} images: name labeled images, imgclf robustness RUN DATA.")
    return subset(dataset, rows)


def corrupted_probabilities(predictor: Predictor, dataset: Dataset, tested: Sequence[Condition], console: Console) -> np.ndarray:
    """Probabilities of every image under every condition, float32 [N, conditions, C]; corruptions are made in threads as batches go by.

    Raises:
      UserError: if an image can no longer be read.
    """
    views = corrupted_views(dataset, predictor.config, tested)
    return probabilities_of_views(predictor, views, console).reshape(len(dataset.table), len(tested), -1)


def probabilities_of_views(predictor: Predictor, views: Sequence[np.ndarray], console: Console) -> np.ndarray:
    """Probabilities of uint8 images that have the model's input size already and are shown to it as they are, float32 [N, C]."""
    config = predictor.config.copy_and_resolve_references()
    config.data.resize = "squash"  # of nothing; crop would cut again
    return _stream(dataclasses.replace(predictor, config=config), views, "corrupted images", console)


def turned_probabilities(predictor: Predictor, dataset: Dataset, rows: np.ndarray, console: Console) -> np.ndarray:
    """Probabilities of these rows' photos from a JPEG file of each EXIF orientation, float32 [n, 8, C]."""
    probabilities = _stream(predictor, oriented_photos(dataset, rows), "orientations", console)
    return probabilities.reshape(len(rows), len(ORIENTATIONS), -1)


def _stream(predictor: Predictor, sources: Sequence[np.ndarray], name: str, console: Console) -> np.ndarray:
    outputs = []
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    stream = predictor.stream(sources, batch_size=BATCH)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar, contextlib.closing(stream):
        task = bar.add_task(name, total=len(sources))
        for answers in stream:
            for reason in filter(None, answers.reasons):
                raise UserError(f"An image can't be classified: {reason}; restore it, or leave it out of the data.")
            outputs.append(answers.probabilities)
            bar.advance(task, len(answers.reasons))
    return np.concatenate(outputs)
