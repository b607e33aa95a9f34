"""Training of the network on images, from the model that it is given."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from imgclf import formatting
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.methods import refit
from imgclf.methods.base import Task
from imgclf.methods.teacher import Teacher
from imgclf.models import forms
from imgclf.training import freeze, loop
from imgclf.training.class_weights import class_counts, class_weights
from imgclf.training.initialization import initialize_from_images
from imgclf.training.setup import TrainingSetup
from imgclf.training.state import Tree, count_parameters, select, split_model
from imgclf.training.trained_model import TrainedModel


@dataclasses.dataclass(frozen=True)
class Fit:
    """The method "fit"; `methods.base.Method`."""

    task: Task
    setup: TrainingSetup
    teacher: Teacher | None

    @classmethod
    def check(cls, task: Task) -> "Fit":
        config, dataset = task.config, task.dataset
        weights = class_weights(config, dataset.class_names, class_counts(dataset))
        refit.check(config, dataset)
        setup = TrainingSetup.create(config, dataset, task.model, weights, task.mesh)
        teacher = Teacher.of(config, dataset.class_names)
        _tell(setup, split_model(task.model)[1], task.console)
        return cls(task, setup, teacher)

    def train(self, workdir: Path) -> TrainedModel:
        return refit.train(self, workdir)

    def on(self, dataset: Dataset, steps: int) -> "Fit":
        """`refit.Refittable.on`; the classes keep their weights in the loss."""
        return Fit(dataclasses.replace(self.task, dataset=dataset), self.setup.on(dataset).ended_after(steps), self.teacher)

    def train_once(self, workdir: Path) -> TrainedModel:
        initialize_from_images(self.task.config, self.task.model, self.task.dataset)
        _, params, batch_stats = split_model(self.task.model)
        if self.task.config.train.refit:  # it starts from them again, and steps take over the memory of what they are given
            params, batch_stats = jax.tree.map(np.array, (params, batch_stats))
        return self.train_from(params, batch_stats, workdir, trained=False)

    def train_from(self, params: Tree, batch_stats: Tree, workdir: Path, *, trained: bool) -> TrainedModel:
        """Trains from these parameters and statistics; `trained`: see `loop.fit`."""
        task, setup = self.task, self.setup
        if self.teacher is not None:
            setup = dataclasses.replace(setup, soft_targets=self.teacher.targets(task.dataset, task.console))
        fitted = loop.fit(
            setup,
            (params, batch_stats),
            workdir,
            task.console,
            trained=trained,
            on_evaluation=task.on_evaluation,
            deadline=task.deadline,
        )
        results = {
            "method": "fit",
            "params_total": count_parameters(fitted.params),
            "params_trainable": count_parameters(select(fitted.params, setup.freezing.trainable)),
        }
        if self.teacher is not None:
            results["teacher"] = {"run": task.config.train.teacher, "params_sha256": self.teacher.params_sha256}
        notes = tuple(filter(None, (setup.freezing.remark, _soup_remark(task.config, fitted))))
        return dataclasses.replace(fitted, results=results, notes=notes)


def _tell(setup: TrainingSetup, params: Tree, console: Console) -> None:
    config, plan, target = setup.config, setup.plan, forms.target_of(setup.mesh)
    height, width = config.data.image_size
    console.print(
        f"Model: {config.model.name} at {height}x{width}, {count_parameters(params):,} parameters, "
        f"{freeze.describe(setup.freezing, params)}. Training: {formatting.count(plan.total, 'step')} of {config.loader.batch_size} "
        f"({plan.per_epoch:.1f} an epoch) on {target.devices} {target.platform} device(s).",
        highlight=False,
    )
    if setup.freezing.remark:
        console.print(setup.freezing.remark, highlight=False)
    if config.loader.sampling != "natural" and config.train.class_weights != "none":
        console.print(
            f"[yellow]config.loader.sampling={config.loader.sampling!r} and config.train.class_weights={config.train.class_weights!r} "
            "correct the classes' sizes twice; one of them is enough.[/]",
            highlight=False,
        )


def _soup_remark(config: Config, fitted: TrainedModel) -> str:
    about, metric = fitted.about, config.train.best_metric
    if "ingredients" not in about:
        return ""
    return (
        f"The model is a greedy soup, the average of {len(about['ingredients'])} of the {about['candidates']} best on val, BatchNorm's "
        f"statistics too: {metric} {about[metric]:.4f}, where the best alone has {fitted.progress.best_value:.4f}."
    )
