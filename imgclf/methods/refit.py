"""Refit: a first training finds the best length on val, a second one of that length learns from the val images too.

A part of the images held back to choose the epoch is a part that the network never learns from, which costs accuracy where images are
few. The second training starts anew, by the same seed, rates and steps, and is not evaluated while it runs: no image is left for it.
"""

import dataclasses
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.methods.base import Task
from imgclf.training import work
from imgclf.training.checkpoint import Checkpoints
from imgclf.training.trained_model import LogitsOf, TrainedModel

FOLDER = "refit"  # of the second training, in the run's folder; and of its model, in checkpoints/


class Refittable(Protocol):
    """A method that can train a second time on more images; its `methods.base.Method.train` is `refit.train`."""

    @property
    def task(self) -> Task: ...

    def train_once(self, workdir: Path) -> TrainedModel:
        """Trains, or continues there where it was interrupted; see `methods.base.Method.train`."""
        ...

    def on(self, dataset: Dataset, steps: int) -> Self:
        """The same training on other images, ended after so many steps; the learning rate of each step stays what it was."""
        ...


def check(config: Config, dataset: Dataset) -> None:
    """Raises a UserError where `config.train.refit` can't be done."""
    if not config.train.refit:
        return
    if not (dataset.table["split"] == "val").any():
        raise UserError(
            "config.train.refit=True needs a val split, on which the best length of training is found; there is none. "
            "Give it a share in data.split, or leave refit out."
        )
    if config.train.soup:
        raise UserError(
            f"config.train.refit=True repeats a training of one length, and the soup of config.train.soup={config.train.soup} has none; "
            "leave one of them out."
        )


def train(method: Refittable, workdir: Path) -> TrainedModel:
    """Trains once; with `config.train.refit` again on train and val together, for as long as the first training was best.

    The first training lies in the run's folder, as without a refit; the second in `refit/` there, with checkpoints and a log of its own,
    so that either continues where it was interrupted. Its model is kept as `checkpoints/refit`.

    Args:
      method: what trains.
      workdir: the run's folder.

    Returns:
      The second training's model; its logits of val are those of the first one's, which has not seen these images.
    """
    first = method.train_once(workdir)
    task = method.task
    if not task.config.train.refit:
        return first
    everything, steps = _with_val(task.dataset), int(first.about["step"])
    images = int((everything.table["split"] == "train").sum())
    task.console.print(f"Training again on all {images:,} train and val images, for {steps:,} steps.", highlight=False)
    (workdir / FOLDER).mkdir(exist_ok=True)  # a run's own folder is made before its training
    second = method.on(everything, steps).train_once(workdir / FOLDER)
    _keep(second, steps, workdir)
    return _joined(first, second, images)


def _with_val(dataset: Dataset) -> Dataset:
    """The same images, those of val in the training split."""
    table = dataset.table
    return dataclasses.replace(dataset, table=table.assign(split=table["split"].replace("val", "train")))


def _keep(second: TrainedModel, steps: int, workdir: Path) -> None:
    """Copies the second training's model to where a run's kept models are; a finished run has it already."""
    folder = workdir / "checkpoints" / FOLDER
    if folder.is_dir():
        return
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        checkpoints.save_model(FOLDER, second.params, second.batch_stats, second.about | {"step": steps})
    finally:
        checkpoints.close()


def _joined(first: TrainedModel, second: TrainedModel, images: int) -> TrainedModel:
    """The second model, with how both trainings went."""
    progress = dataclasses.replace(
        first.progress,
        kept=FOLDER,
        seconds=first.progress.seconds + second.progress.seconds,
        flops=work.total(first.progress.flops, second.progress.flops),
    )
    about: dict[str, Any] = {"steps": second.steps, "images": images, "first": f"checkpoints/{first.progress.kept}"}
    note = (
        f"The kept model is a second training, on the {images:,} train and val images together, of the {second.steps:,} steps after which "
        "the first one was best on val. Temperature and conformal sets are of the first one's val logits, and so is any score on val."
    )
    return dataclasses.replace(
        second,
        progress=progress,
        steps=first.steps + second.steps,
        logits_of=LogitsOfBoth(first.logits_of, second.logits_of),
        blocks_of=None,
        results=second.results | {"refit": about},
        notes=(*first.notes, note),
    )


@dataclasses.dataclass(frozen=True)
class LogitsOfBoth:
    """`TrainedModel.logits_of` after a refit: val is asked of the model that has not seen it."""

    first: LogitsOf
    second: LogitsOf

    def __call__(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        return (self.first if split == "val" else self.second)(split)
