"""A trained classifier in use: what `imgclf.load` and `imgclf.create` return.

classifier = imgclf.load("runs/larger")
classifier.predict(["a.jpg", "b.png"])
classifier.evaluate(test)
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf.deploy import saving, scoring
from imgclf.deploy.predictor import Answers, Predictor, Source
from imgclf.errors import UserError
from imgclf.evaluation.conformal import Conformal
from imgclf.runtime import compilation_cache
from imgclf.training.checkpoint import load_model


class Classifier(Predictor):
    """A trained classifier: predicts images, is scored on labeled ones, and saved to a folder of its own."""

    def predict(
        self,
        sources: Source | Sequence[Source] | scoring.Data,
        *,
        top_k: int = 5,
        batch_size: int = 64,
        threshold: float | None = None,
        conformal: bool = False,
    ) -> pd.DataFrame:
        """Classifies images. For many thousands of files, `imgclf predict` can be interrupted.

        Args:
          sources: paths, or uint8 arrays [h, w, 3] (also [h, w]); one, or a sequence; or labeled images (`imgclf.load_images`).
          top_k: how many classes to name per image.
          batch_size: of the forward pass.
          threshold, conformal: see `table`.

        Returns:
          A table with a row per source, in their order, see `table`; `id` is the path, the array's position, or the labeled image's
          id, which its class, `true`, then follows.

        Raises:
          UserError: for a path that is no readable image; it is named.
        """
        if (dataset := scoring.dataset_of(sources)) is not None:
            return scoring.predict(self, dataset, batch_size=batch_size, top_k=top_k, threshold=threshold, conformal=conformal)
        sources = [sources] if isinstance(sources, str | os.PathLike | np.ndarray) else sources
        ids = [str(position) if isinstance(source, np.ndarray) else os.fspath(source) for position, source in enumerate(sources)]
        probabilities = self.predict_probabilities(sources, batch_size=batch_size)
        answers = Answers(probabilities, [""] * len(ids))
        return self.table(ids, answers, top_k=top_k, threshold=threshold, conformal=conformal).drop(columns="reason")

    def evaluate(self, data: scoring.Data, *, verbose: bool = True) -> scoring.Evaluation:
        """Scores labeled images, such as `test` of `train, test = data.split(0.8)`.

        Args:
          data: from `imgclf.load_images`. Classes are matched by name.
          verbose: shows the progress.

        Returns:
          A dict: `top1`, `top1_ci95`, `per_class`, `confusion`, …, see `evaluation.metrics.compute`; and `warnings`, such as that images
          were trained on. Printed, it is the accuracy with its interval, and the warnings.

        Raises:
          UserError: for a class that the classifier has not seen in training.
        """
        return scoring.evaluate(self, data, console=Console(quiet=not verbose))

    def mistakes(
        self, data: scoring.Data, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False, verbose: bool = True
    ) -> pd.DataFrame:
        """Finds the images that are taken for another class, and writes a page with their pictures.

        Args:
          data: from `imgclf.load_images`.
          path: of the page, a self-contained HTML file; None = mistakes.html in the run's folder, or mistakes-2.html, … where that is of
            other images.
          overwrite: whether to replace what stands at `path`, if it is not an older page of this model and these images (that is always
            replaced).
          verbose: tells how many there are, and where the page is.

        Returns:
          A row per mistake, the most confident first: `id`, `true`, `predicted`, `probability`, `true_probability`.

        Raises:
          UserError: as `evaluate` does; if something else stands at `path`.
        """
        return scoring.mistakes(self, data, path, overwrite=overwrite, console=Console(quiet=not verbose))

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the classifier into a folder of its own, which `imgclf.load` opens, here or elsewhere.

        The run's model, config, results and report are copied, not its data: of the training images only their sha256 are, so that
        `evaluate` can still tell them. Where this classifier was saved there before, it is replaced, in one move.

        Args:
          folder: it is made.
          overwrite: whether to replace another saved model there.

        Returns:
          The folder.

        Raises:
          UserError: for a folder with another saved model, unless `overwrite`; and, always, for one with anything else in it.
        """
        return saving.save(self, folder, overwrite=overwrite)


def load(run: str | os.PathLike) -> Classifier:
    """Loads the kept model of a finished run.

    Raises:
      UserError: if the folder is not a finished run, or its model is damaged or not that of its config.
    """
    folder = Path(run)
    if not (folder / "results.json").exists():
        raise UserError(f"{folder} is not a finished run (it has no results.json); train it with run.py --workdir={folder}.")
    compilation_cache.enable()
    config = config_lib.from_json((folder / "config.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    model, about = load_model(folder / results["checkpoint"])
    if list(about["class_names"]) != results.get("class_names", list(about["class_names"])):
        raise UserError(
            f"{folder} is of two runs: its results.json names {len(results['class_names'])} classes, its kept model "
            f"{len(about['class_names'])} or others; restore it from a copy, or train again."
        )
    rule = results.get("conformal")
    classifier = Classifier(
        config,
        tuple(about["class_names"]),
        model["params"],
        model["batch_stats"],
        results.get("temperature", 1.0),  # runs from before it was fitted have none
        Conformal(rule["alpha"], rule["threshold"], rule["n"]) if rule else None,
        folder=folder,
    )
    _ = classifier._eval_step  # checks the shapes now, rather than at the first image
    return classifier
