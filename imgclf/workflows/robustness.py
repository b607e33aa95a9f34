"""Tests a finished run on corrupted photos, and on files of every EXIF orientation."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from imgclf import outputs, progress
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.deploy import scoring
from imgclf.deploy.classifier import load
from imgclf.deploy.items import Data, Items, LazyItems, Shown
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation import robustness as statistics
from imgclf.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from imgclf.evaluation.robustness import ORIENTATIONS, Condition, corrupted_views, oriented_photos
from imgclf.reporting import pages
from imgclf.reporting import robustness as page
from imgclf.workflows.console import or_terminal
from imgclf.workflows.evaluate import labeled_images

BATCH = 64
_ORIENTED = 50  # photos that are stored in all orientations


@dataclasses.dataclass(frozen=True)
class Robustness:
    """What was found.

    Attributes:
      results: the contents of robustness.json: `clean`, `mean_top1`, `corruptions`, `orientations`, …, see
        `evaluation.robustness.summarize`; with `name`, `split` ("" = other images), `n` and `notes`.
      page: robustness.html, beside robustness.json.
    """

    results: dict[str, Any]
    page: Path


def robustness(
    run: str | os.PathLike[str],
    on: str | os.PathLike[str] | Data | None = None,
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Robustness:
    """Tests a finished run on corrupted photos, as ImageNet-C has them, and on every EXIF orientation.

    The corruptions are those of Hendrycks and Dietterich, 2019.

        found = imgclf.robustness("runs/photos", severities=(1, 3, 5))
        print(found.results["mean_top1"], found.page)

    Args:
      run: the run's folder, or that of a saved model.
      on: labeled images: a folder, a table, or what `imgclf.load_images` returns. None = those of the run's headline.
      corruptions: some of `evaluation.corruptions.CORRUPTIONS`.
      severities: some of 1 to 5.
      out: the folder for robustness.html and robustness.json. None = the run's own, or robustness-NAME in it for other images.
      overwrite: whether to replace a page in `out` that is of another model or of other images.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> found = imgclf.robustness("runs/photos", test, corruptions=["gaussian_noise"], severities=[1], console=quiet)
      >>> found.results["clean"]["top1"], sorted(found.results["corruptions"]), found.page.name
      (1.0, ['gaussian_noise'], 'robustness.html')
    """
    console = or_terminal(console)
    tested = statistics.conditions(corruptions, severities)
    predictor = load(run)
    images = labeled_images(predictor, on)
    dataset, name = images.dataset, Path(run).name
    of = outputs.identity(
        "robustness", f"{name} on {len(dataset.table)} images of {pages.name_of(dataset)}", predictor.sha256, pages.digest_of(dataset)
    )
    target = _target(Path(run), images.split, dataset, out, of, overwrite)
    labels = scoring.labels_of(predictor, dataset)
    answers = corrupted_probabilities(predictor, dataset, tested, console).argmax(-1)
    correct = {condition: (answers[:, i] == labels)[None] for i, condition in enumerate(tested)}
    rows = np.unique(np.linspace(0, len(labels) - 1, min(_ORIENTED, len(labels))).astype(int))
    turned = statistics.orientations(turned_probabilities(predictor, dataset, rows, console))
    notes = [] if images.split == "test" else scoring.warnings_of(predictor, dataset)
    about = {"name": predictor.config.name, "split": images.split, "n": len(labels), "notes": notes}
    results = about | statistics.summarize(correct) | {"orientations": turned}
    example = corrupted_views(dataset, _with_plain_views(predictor.config), tested)
    return Robustness(results, page.write(target, results, tested, [example[i] for i in range(len(tested))], of))


def _target(run: Path, split: str, dataset: Dataset, out: str | os.PathLike[str] | None, of: outputs.Identity, overwrite: bool) -> Path:
    if out is not None:
        return outputs.check_file(Path(out) / page.PAGE, of, overwrite=overwrite)
    folder = run if split else run / f"robustness-{Path(pages.name_of(dataset)).stem}"
    return outputs.free_file(folder / page.PAGE, of)


def corrupted_probabilities(predictor: Predictor, dataset: Dataset, tested: Sequence[Condition], console: Console) -> np.ndarray:
    """Probabilities of every image under every condition, float32 [N, conditions, C]; corruptions are made in threads as batches go by.

    Raises:
      UserError: if an image can no longer be read.
    """
    views = corrupted_views(dataset, predictor.config, tested)
    return probabilities_of_views(predictor, views, console).reshape(len(dataset.table), len(tested), -1)


def probabilities_of_views(predictor: Predictor, views: Sequence[np.ndarray], console: Console) -> np.ndarray:
    """Probabilities of images that the model is shown as they are, uint8 of `augment.Preprocessing.shape`; float32 [N, C]."""
    return _stream(predictor, LazyItems(len(views), lambda row: Shown(views[row])), "corrupted images", console)


def _with_plain_views(config: Config) -> Config:
    config = config.copy_and_resolve_references()
    config.eval.views = "plain"
    return config


def turned_probabilities(predictor: Predictor, dataset: Dataset, rows: np.ndarray, console: Console) -> np.ndarray:
    """Probabilities of these rows' photos from a JPEG file of each EXIF orientation, float32 [n, 8, C]."""
    probabilities = _stream(predictor, oriented_photos(dataset, rows), "orientations", console)
    return probabilities.reshape(len(rows), len(ORIENTATIONS), -1)


def _stream(predictor: Predictor, sources: Items, name: str, console: Console) -> np.ndarray:
    found = []
    with progress.bar(console) as bar, contextlib.closing(predictor.stream(sources, batch_size=BATCH)) as stream:
        task = bar.add_task(name, total=len(sources))
        for answers in stream:
            for reason in filter(None, answers.reasons):
                raise UserError(f"An image can't be classified: {reason}; restore it, or leave it out of the data.")
            found.append(answers.probabilities)
            bar.advance(task, len(answers.reasons))
    return np.concatenate(found)
