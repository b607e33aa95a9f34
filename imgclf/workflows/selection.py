"""Which of several ways to make a classifier: candidates, what cross-validation says of each, and the choice.

    judged = [judge(candidate, config, dataset, model, console) for candidate in candidates]
    chosen = choose(judged)

Every candidate is judged by predictions of the same training images, each made without the fold of the image, so that losses can be
compared image by image, and ensembles can be scored from the logits that are kept.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from imgclf.config import Config
from imgclf.data.splits import groups_of, limit_per_class, subset
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.evaluation import metrics, results
from imgclf.evaluation.intervals import clustered
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.methods.linear_head import LinearHead
from imgclf.models.network import Network
from imgclf.probes import ties
from imgclf.training import sharding
from imgclf.training.class_weights import class_counts, class_weights
from imgclf.workflows.candidates import VIEWS, Candidate, changed

MOST_IMAGES = 5000  # that a choice is made by


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is known of a candidate.

    Attributes:
      candidate: what was judged.
      cost: of classifying an image, in passes through one and the same network; of candidates that are equally good, the cheapest is taken.
      logits: float32 [N, C], of each image by a classifier that was trained without its fold.
      labels: int [N].
      groups: [N], anything that tells groups of images apart.
      losses: float64 [N], the cross-entropy of each image, calibrated by the other folds.
      seconds: that it took, of features that the cache had already next to none.
    """

    candidate: Candidate
    cost: float
    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    losses: np.ndarray
    seconds: float

    @classmethod
    def of(
        cls, candidate: Candidate, cost: float, logits: np.ndarray, labels: np.ndarray, fold: np.ndarray, groups: np.ndarray, seconds: float
    ) -> "Judged":
        """Calibrates the logits of each fold, int [N], by the other folds, and takes their losses."""
        judged = results.Judged(results.CROSS_VALIDATION, logits, labels, fold)
        probabilities, _ = results.calibrate(judged, judged, temperature=True, alpha=0.0, val_chose_epoch=False)
        return cls(candidate, cost, logits, labels, groups, metrics.losses(probabilities, labels), seconds)

    @property
    def correct(self) -> np.ndarray:
        """Bool [N]."""
        return self.logits.argmax(1) == self.labels

    def row(self, *, chosen: bool) -> dict[str, Any]:
        """What results.json's `selection` says of it: name, top1 with its interval, loss, cost, seconds, chosen."""
        return {
            "name": self.candidate.about,
            "top1": float(self.correct.mean()),
            "top1_ci95": list(clustered(self.correct, self.groups)),
            "loss": float(self.losses.mean()),
            "cost": self.cost,
            "seconds": round(self.seconds, 2),
            "chosen": chosen,
        }


def judge(candidate: Candidate, config: Config, dataset: Dataset, model: Network, console: Console) -> Judged:
    """Cross-validates a candidate's probe on the training images; features come from the cache, or go there.

    Args:
      candidate: what is changed in the config; it doesn't train the network.
      config: of a probe, by any solver but minibatch; it need not be resolved yet.
      dataset: with its splits; images that don't train are not looked at.
      model: a network of the candidate's kind, with its weights.
      console: for the progress.

    Raises:
      UserError: as the probe does.
    """
    start = time.perf_counter()
    train = subset(dataset, np.flatnonzero((dataset.table["split"] == "train").to_numpy()))
    config = resolve.resolve(resolve.check(changed(config, candidate.fields)), len(train.class_names))
    task = Task(config, train, model, sharding.create_mesh(), console)
    solver = LinearHead.check(task, class_weights(config, train.class_names, class_counts(train)))
    held = solver.solve(repeats=False).out_of_fold
    if held is None:
        raise UserError("Every class has one training image (or group): nothing can be held out to choose by; add images.")
    labels, groups = train.table["label"].to_numpy()[held.rows], groups_of(train.table)[held.rows]
    return Judged.of(candidate, VIEWS[config.eval.views], held.logits, labels, held.fold, groups, time.perf_counter() - start)


def choose(judged: Sequence[Judged]) -> Judged:
    """The cheapest of those whose loss is within one standard error of the lowest (`tied`), of equally cheap ones the first.

    Args:
      judged: one or more, on the same images; what is usual stands first.
    """
    return min(itertools.compress(judged, tied(judged)), key=lambda one: one.cost)


def tied(judged: Sequence[Judged]) -> np.ndarray:
    """Which candidates, judged on the same images, are within one standard error of the lowest loss (`probes.ties`), bool [M]."""
    return ties.with_best(np.stack([one.losses for one in judged]), groups=judged[0].groups)


def sample(dataset: Dataset, config: Config, most: int = MOST_IMAGES) -> Dataset:
    """The training images that a choice is made by: all, or at most `most`, in which small classes are whole and the others are alike."""
    train = subset(dataset, np.flatnonzero((dataset.table["split"] == "train").to_numpy()))
    counts = np.bincount(train.table["label"], minlength=len(train.class_names))
    if counts.sum() <= most:
        return train
    limited = config.copy_and_resolve_references()
    limited.data.per_class = max((cap for cap in range(2, int(counts.max()) + 1) if np.minimum(counts, cap).sum() <= most), default=2)
    return limit_per_class(train, limited)
