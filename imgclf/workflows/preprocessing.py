"""How images become the input of a probe's network, where `imgclf.create` may choose: tried one after another, and chosen by the folds.

A centre crop discards what stands at the ends of a photo, a squashed photo is distorted. Where the folds can't tell which does less harm,
neither is bet on: the mean over both and their mirror images is taken. Over three sets of photos, each as ordinary photos, strips,
panoramas and tiny pictures, that rule was behind none of four plain baselines by more than noise, and had 0.2 points more right than the
cheapest within noise (experiments/README.md, "Shapes of pictures").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from imgclf import models
from imgclf.config import Config
from imgclf.data.scenes import FindScenes, with_scenes
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.methods import resolve
from imgclf.probes.features import extract
from imgclf.workflows import selection
from imgclf.workflows.candidates import Candidate, changed

FOLDS = 5  # enough to tell candidates apart, where the estimate has more
# Fields that decide it; a user who sets one has decided.
FIELDS = ("data.resize", "data.crop_fraction", "data.interpolation", "data.image_size", "eval.views", "probe.views")


def is_free(config: Config, overrides: Mapping[str, Any]) -> bool:
    """Whether it may be chosen: for a logistic probe on pretrained weights, where `overrides`, the user's fields, say nothing of it."""
    given = {name for name in FIELDS for field in overrides if name == field or name.startswith(f"{field}.")}
    return config.train.method == "probe" and config.probe.solver == "logistic" and config.model.weights != "none" and not given


def select(config: Config, dataset: Dataset, find_scenes: FindScenes, console: Console) -> tuple[Config, list[dict[str, Any]]]:
    """Chooses among the weights' own crop, all of each image squashed, the better one with its mirror image, and both with theirs.

    The last takes four times the time in prediction, too, and so it is tried for small data only, up to `selection.MOST_IMAGES` training
    images: there the photos are few from which the head could learn what doesn't matter. Each candidate is judged on the same images, in
    folds that keep shots of one scene together as those of the run do. Where crop and squash are within a standard error of each other,
    their mean is taken if it is within one of the better, too; else the cheapest within a standard error of the best is chosen.

    Args:
      config: of a probe, with `data.resize="weights"`.
      dataset: with its splits.
      find_scenes: called if `config.data.scenes` is "auto" and the data name none.
      console: for the progress.

    Returns:
      The config with what was chosen, and a row about each candidate (`selection.Judged.row`).
    """
    training = np.flatnonzero((dataset.table["split"] == "train").to_numpy())
    small = len(training) <= selection.MOST_IMAGES
    config = config.copy_and_resolve_references()
    resolved = resolve.resolve(resolve.check(config), len(dataset.class_names))
    model = models.create(resolved, len(dataset.class_names), tell=lambda said: None)
    if small:  # all views will be needed: each image is decoded once for all of them, and for the search for scenes
        extract(changed(resolved, {"eval.views": "framings"}), model, dataset, rows=training, console=console)
    if config.data.scenes == "auto" and "scene" not in dataset.table:
        dataset = with_scenes(dataset, find_scenes(dataset).names)
    images = subset(dataset, training)
    images = images if small else selection.sample(images, config)
    asked, config.probe.folds = config.probe.folds, min(config.probe.folds, FOLDS)
    squashed = {"data.resize": "squash", "data.interpolation": resolved.data.interpolation}

    def judged(name: str, about: str, fields: Mapping[str, Any]) -> selection.Judged:
        return selection.judge(Candidate(name, about, fields), config, images, model, console)

    tried = [judged("crop", "the weights' own crop", {}), judged("squash", "all of each image, squashed", squashed)]
    if small:
        tried.append(judged("framings", "the weights' own crop, all of each image, and their mirror images", {"eval.views": "framings"}))
    if (chosen := undecided(tried)) is None:
        better = selection.choose(tried[:2]).candidate
        tried.insert(2, judged("flip", f"{better.about}, and its mirror image", {**better.fields, "eval.views": "flip"}))
        chosen = selection.choose(tried)
    console.print(f"Of {len(tried)} ways to show images to the network, the folds choose {chosen.candidate.about}.", highlight=False)
    return changed(config, {**chosen.candidate.fields, "probe.folds": asked}), [one.row(chosen=one is chosen) for one in tried]


def undecided(tried: Sequence[selection.Judged]) -> selection.Judged | None:
    """The mean of crop and squash, where it was tried and neither can be told from the other, nor the mean from the better; else None."""
    if len(tried) == 3 and selection.tied(tried[:2]).all() and selection.tied(tried)[2]:
        return tried[2]
    return None
