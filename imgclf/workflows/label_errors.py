"""Looks for wrong labels, and leaves a page of suspects and a patch to fill in."""

import dataclasses
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import models
from imgclf.config import Config
from imgclf.data import label_patch
from imgclf.data.audit import groups_with_copies
from imgclf.data.splits import groups_of
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError
from imgclf.evaluation import calibration
from imgclf.evaluation import label_errors as finder
from imgclf.methods import resolve
from imgclf.models.network import Network
from imgclf.probes.cross_validation import CrossValidation, fit_linear
from imgclf.probes.features import extract
from imgclf.reporting import label_errors as page
from imgclf.runtime import compilation_cache
from imgclf.workflows import checks, train
from imgclf.workflows.asked import Asked, Fields, asked_for
from imgclf.workflows.console import or_terminal


@dataclasses.dataclass(frozen=True)
class LabelErrors:
    """What was found.

    Attributes:
      suspects: a row per suspected label, the most suspicious first: id, given, suggested, confidence, and an empty label to fill in.
      images: how many were judged.
      estimated: how many labels are wrong by confident learning's estimate.
      agreement: share of the labels that the out-of-fold probe agrees with.
      page: label_errors.html.
      patch: labels.patch.csv, for `config.data.label_patch`.
    """

    suspects: pd.DataFrame
    images: int
    estimated: int
    agreement: float
    page: Path
    patch: Path


def find_label_errors(
    config: Config | str | os.PathLike[str],
    *,
    fields: Fields = (),
    limit: float = finder.LIMIT,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> LabelErrors:
    """Looks for wrong labels by confident learning (Northcutt et al., 2021) on a pretrained backbone's features. The data are not touched.

        found = imgclf.find_label_errors("finetune:photos")
        imgclf.train("finetune:photos", fields={"data.label_patch": str(found.patch)})  # after filling in its column "label"

    Args:
      config: the whole config, or what `load_config` reads one from: a name, a file, a run.
      fields: what is set in it, see `load_config`.
      limit: share of the images that is suspected at most.
      out: the folder for the page and the patch. None = RUN/label-errors where the config is a run's, else runs/NAME-label-errors.
      overwrite: whether to replace the page of other images in `out`.
      console: where to tell what happens; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> imgclf.find_label_errors("folder:photos", console=quiet)
      Traceback (most recent call last):
      imgclf.errors.UserError: config.model.weights='none': features of random weights tell nothing of labels; ...
    """
    console = or_terminal(console)
    asked = asked_for(config, fields)
    checked = train.check(asked.config)
    if checked.model.weights == "none":
        raise UserError(
            "config.model.weights='none': features of random weights tell nothing of labels; set weights that `imgclf models` lists."
        )
    finder.require_cleanlab()
    compilation_cache.enable()
    folder, applied = Path(out).expanduser() if out is not None else _folder_of(asked), checked.data.label_patch
    checks.check_apart(checked, folder, "--out")
    dataset = load_dataset(checked)
    of = page.identity(dataset, checked)
    page.check_target(folder, applied, of, overwrite=overwrite)
    resolved = resolve.resolve(checked, len(dataset.class_names))
    model = models.create(resolved, len(dataset.class_names), tell=lambda said: None)  # the head is not used
    probabilities = out_of_fold_probabilities(resolved, model, dataset, console)
    decided = label_patch.decided(applied)
    labels = dataset.table["label"].to_numpy()
    suspects = finder.find(probabilities, labels, limit, dataset.table["id"].isin(decided["id"]).to_numpy())
    named = os.fspath(config) if isinstance(config, str | os.PathLike) else "CONFIG"
    command = _training(named, fields, folder / page.PATCH)
    written, patch = page.write(folder, dataset, suspects, decided, of, command, console)
    return LabelErrors(
        suspects=finder.patch(dataset, suspects),
        images=len(labels),
        estimated=suspects.estimated,
        agreement=float(np.mean(probabilities.argmax(1) == labels)),
        page=written,
        patch=patch,
    )


def out_of_fold_probabilities(config: Config, model: Network, dataset: Dataset, console: Console) -> np.ndarray:
    """Returns what a logistic probe on cached features says of each image, fitted without the fold that holds the image and its copies.

    The folds (`config.probe.folds`) are stratified; copies and groups stay in one fold. The penalty is chosen as that of a run is
    (`config.probe.l2`).

    Args:
      config: the whole config, resolved.
      model: with pretrained weights.
      dataset: all its images are judged, whatever their split.
      console: for the progress of features that the cache lacks.

    Returns:
      float32 [N, C].

    Raises:
      UserError: for a class of one image (or group).
    """
    table, probe, names = dataset.table, config.probe, dataset.class_names
    labels = table["label"].to_numpy(np.int64)
    joined = table.assign(group=groups_with_copies(table, config.data.near_duplicate_bits))
    groups = groups_of(joined).tolist()
    validation = CrossValidation.create(labels, groups, names, tuple(map(float, probe.l2)), probe.folds, config.seed, wanted=True)
    if len(alone := np.flatnonzero(np.asarray(validation.fold) < 0)):
        raise UserError(
            f"Class {names[labels[alone[0]]]!r} has one image (or group), so that no other tells whether its label is right: "
            "add images, or leave the class out."
        )
    features = extract(config, model, dataset, console=console)
    solved = fit_linear(features, labels, validation, scaling=probe.scaling, console=console)
    return calibration.probabilities(np.asarray(solved.out_of_fold))


def _training(named: str, fields: Fields, patch: Path) -> str:
    """The command that trains with the patch, by the config and the fields that the search had."""
    given = [f"{name}={value}" for name, value in fields.items()] if isinstance(fields, Mapping) else list(fields)
    kept = [field for field in given if not field.startswith("data.label_patch=")]
    return " ".join(
        ["imgclf train", shlex.quote(named), *(f"--set {shlex.quote(field)}" for field in (*kept, f"data.label_patch={patch}"))]
    )


def _folder_of(asked: Asked) -> Path:
    return asked.run / "label-errors" if asked.run is not None else Path("runs") / f"{asked.config.name}-label-errors"
