"""Which models of a training are kept: the best one on val, those that a soup is made of, and the last one where nothing is better."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgclf.config import Config
from imgclf.errors import UserError
from imgclf.training import soup
from imgclf.training.checkpoint import Checkpoints, load_model
from imgclf.training.evaluate import Evaluator
from imgclf.training.plan import TrainingPlan
from imgclf.training.state import Tree, tree_sha256
from imgclf.training.trained_model import TrainProgress

SOUP = "soup"  # folder of the averaged model


class BestModels:
    """Ranks the models of a training by `config.train.best_metric` and keeps the files of those that count.

    Args:
      config: the whole config.
      plan: tells the epoch of a step.
      class_names: they stand beside each model.
      has_val: whether there are images to rank models by; without them the last model is kept.
      checkpoints: where the models are written.
      progress: what is known so far; it is changed in place.
    """

    def __init__(
        self,
        config: Config,
        plan: TrainingPlan,
        class_names: tuple[str, ...],
        has_val: bool,
        checkpoints: Checkpoints,
        progress: TrainProgress,
    ):
        self._train, self._plan, self._class_names = config.train, plan, class_names
        self._checkpoints, self._progress = checkpoints, progress
        self._metric = config.train.best_metric if has_val else ""

    @property
    def lower_is_better(self) -> bool:
        return self._metric == "val_loss"

    def add(self, step: int, values: dict[str, float], params: Tree, batch_stats: Tree) -> bool:
        """Takes note of an evaluation, and writes the model if it is the best so far or one for a soup; returns whether it is the best."""
        progress, metric = self._progress, self._metric
        epoch = self._plan.epoch(step)
        improved = bool(metric) and self._improves(values[metric])
        if metric:
            value = values[metric]
            name = f"best-epoch-{epoch:06.2f}-{metric}-{value:.4f}"
            progress.ranked = self._ranking([*progress.ranked, (value, name)])
            if improved or (value, name) in progress.ranked:
                self._write(name, step, params, batch_stats, {metric: value})
            if improved:
                progress.kept, progress.best_value, progress.best_epoch = name, value, epoch
        progress.evaluations_since_best = 0 if improved else progress.evaluations_since_best + 1
        progress.evaluated_step = step
        patience = self._train.early_stopping.patience
        progress.stopped_early = bool(patience) and progress.evaluations_since_best >= patience
        return improved

    def keep_last(self, step: int, params: Tree, batch_stats: Tree) -> None:
        """Keeps the model at the end of a training that has kept none."""
        self._progress.kept = f"final-epoch-{self._plan.epoch(step):06.2f}"
        self._write(self._progress.kept, step, params, batch_stats, {})

    def drop_others(self) -> None:
        """Deletes models that count no longer; called once the progress that names the others is on disk."""
        if self._progress.kept:
            self._checkpoints.keep_only({self._progress.kept, *(name for _, name in self._progress.ranked)})

    def keep_soup(self, step: int, evaluator: Evaluator, on_batch: Callable[[int], None]) -> None:
        """Averages the ranked models as far as that is no worse on val, and keeps the average; a finished run has it already.

        Args:
          step: the last one.
          evaluator: judges an average.
          on_batch: called with the number of examples of each batch of an evaluation; what it raises ends the making.
        """
        folder, names = self._checkpoints.folder, [name for _, name in self._progress.ranked]

        def value_of(params: Tree, batch_stats: Tree) -> float:
            return evaluator.val_metrics(*evaluator.place(params, batch_stats), on_batch)[self._metric]

        if not (folder / SOUP).is_dir():
            made = soup.greedy(names, lambda name: _read(folder / name), value_of, lower_is_better=self.lower_is_better)
            about = {self._metric: made.value, "ingredients": list(made.ingredients), "candidates": len(names)}
            self._write(SOUP, step, *evaluator.place(made.params, made.batch_stats), about)
        self._progress.kept = SOUP

    def _write(self, name: str, step: int, params: Tree, batch_stats: Tree, about: dict[str, Any]) -> None:
        about = {"step": step, "epoch": self._plan.epoch(step), **about, "class_names": list(self._class_names)}
        self._checkpoints.save_model(name, params, batch_stats, about | {"params_sha256": tree_sha256(params)})

    def _improves(self, value: float) -> bool:
        best = self._progress.best_value
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        gain = best - value if self.lower_is_better else value - best
        return gain > self._train.early_stopping.min_delta

    def _ranking(self, models: list[tuple[float, str]]) -> list[tuple[float, str]]:
        """The `train.soup` best (value, name), the best first.

        Of equals the older comes first. Of one name the newer counts, as it was written over the older.
        """
        last = {name: float(value) for value, name in models if math.isfinite(value)}
        sign = 1 if self.lower_is_better else -1
        return sorted(((value, name) for name, value in last.items()), key=lambda model: sign * model[0])[: self._train.soup]


def check(config: Config, has_val: bool) -> None:
    """Raises a UserError where the config asks for what needs a val split, and there is none."""
    train = config.train
    for field, value in (("early_stopping.patience", train.early_stopping.patience), ("soup", train.soup)):
        if value and not has_val:
            raise UserError(f"config.train.{field}={value} needs a val split; there is none. Give it a share in data.split.")


def _read(folder: Path) -> soup.Model:
    model, _ = load_model(folder)
    return model["params"], model["batch_stats"]
