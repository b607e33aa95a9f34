"""A probe: features from the cache, a head found on them, and the model that the two make, kept like any other."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any, Protocol

import jax
from rich.console import Console

from imgclf.config import Config
from imgclf.data import augment
from imgclf.methods.base import Task
from imgclf.methods.linear_head import LinearHead
from imgclf.methods.minibatch_head import MinibatchHead
from imgclf.probes.features import extract, features_flops
from imgclf.probes.heads import FeatureLogits
from imgclf.training import mixing, work
from imgclf.training.checkpoint import Checkpoints, load_model
from imgclf.training.class_weights import class_counts, class_weights
from imgclf.training.state import count_parameters, split_model, tree_sha256
from imgclf.training.trained_model import OutOfFold, TrainedModel, TrainProgress

KEPT = "probe"  # the model's folder in checkpoints/
OUT_OF_FOLD = "out_of_fold.npz"


class HeadSolver(Protocol):
    """What finds a head: parameters and statistics `{"head": …}`; `about` is what results.json says of it."""

    def train(self, workdir: Path) -> TrainedModel: ...


@dataclasses.dataclass(frozen=True)
class Probe:
    """The method "probe", and the first half of "lp_ft"; `methods.base.Method`."""

    task: Task
    solver: HeadSolver

    @classmethod
    def check(cls, task: Task) -> "Probe":
        config, dataset = task.config, task.dataset
        if config.train.method == "probe":  # in LP-FT the training that follows heeds all of these fields
            _tell_what_is_ignored(config, task.console)
        weight = class_weights(config, dataset.class_names, class_counts(dataset))
        solver = MinibatchHead if config.probe.solver == "minibatch" else LinearHead
        return cls(task, solver.check(task, weight))

    def train(self, workdir: Path) -> TrainedModel:
        folder = workdir / "checkpoints" / KEPT
        if not folder.is_dir():
            self._find(workdir)
        kept, about = load_model(folder)
        params, batch_stats = kept["params"], kept["batch_stats"]
        _tell(about["probe"], self.task.console)
        results = {
            "method": "probe",
            "params_total": count_parameters(params),
            "params_trainable": count_parameters(params["head"]),
            "probe": about["probe"],
        }
        logits_of = FeatureLogits(self.task.config, self.task.model, self.task.dataset, params, batch_stats)
        return TrainedModel(
            params,
            batch_stats,
            about,
            TrainProgress.of(about["progress"]),
            about["steps"],
            logits_of,
            OutOfFold.load(workdir / OUT_OF_FOLD),
            results,
        )

    def _find(self, workdir: Path) -> None:
        """Finds the head, and keeps the model that it makes with the backbone."""
        config, model, dataset = self.task.config, self.task.model, self.task.dataset
        alone = config.train.method == "probe"  # else training of the network follows, and it is another one that is evaluated
        start = time.perf_counter()
        if alone:
            extract(config, model, dataset, console=self.task.console)  # all splits in one go
        found = self.solver.train(workdir if alone else workdir / KEPT)
        params, batch_stats = jax.device_get(split_model(model)[1:])
        params, batch_stats = params | found.params, batch_stats | found.batch_stats
        each = len(augment.Preprocessing.of(config).evaluation) + config.probe.views
        views = int((dataset.table["split"] == "train").sum()) * each
        flops = work.total(features_flops(config, model, views), found.progress.flops)  # whether the cache had the features or not
        progress = dataclasses.replace(found.progress, kept=KEPT, seconds=time.perf_counter() - start, flops=flops)
        about = {
            "class_names": list(dataset.class_names),
            "params_sha256": tree_sha256(params),
            "steps": found.steps,
            "progress": dataclasses.asdict(progress),
            "probe": {"solver": config.probe.solver, **found.about},
        }
        if found.out_of_fold is not None and jax.process_index() == 0:
            found.out_of_fold.save(workdir / OUT_OF_FOLD)  # before the checkpoint, by which it is told that nothing is left to do
        with contextlib.closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
            checkpoints.save_model(KEPT, params, batch_stats, about)


def _tell_what_is_ignored(config: Config, console: Console) -> None:
    probe = config.probe
    if not augment.is_neutral(config.augment) and not probe.views:
        console.print("config.augment does nothing to a probe without config.probe.views: features are of plain images.", highlight=False)
    if mixing.parameters(config):
        console.print("config.augment.mixup and cutmix do nothing to a probe: its features are of single images.", highlight=False)
    if config.loader.sampling != "natural" and probe.solver != "minibatch":
        console.print(
            f"config.loader.sampling does nothing to a {probe.solver} probe, which takes all images at once; use train.class_weights.",
            highlight=False,
        )


def _tell(about: dict[str, Any], console: Console) -> None:
    scores, told = about["cross_validation"], f"Probe: {about['solver'].replace('_', ' ')}"
    if scores is not None and len(scores) > 1:
        top1 = next(row["top1"] for row in scores if row["l2"] == about["l2"])
        told += (
            f", l2 {about['l2']:g}: of the {len(scores)} penalties that were tried, the strongest whose loss is within a standard error of "
        )
        told += f"the lowest, in {about['folds']} folds of the training images (top-1 there {top1:.1%})"
    elif about["solver"] == "nearest_mean":
        told += (
            ", nothing held out"
            if scores is None
            else f" (top-1 over {about['folds']} folds of the training images {scores[0]['top1']:.1%})"
        )
    elif about["l2"] is not None:
        told += f", l2 {about['l2']:g}, as given"
    console.print(f"{told}.", highlight=False)
