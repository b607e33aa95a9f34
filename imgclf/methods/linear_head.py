"""A head that is solved on cached features: logistic or ridge regression, its penalty chosen by cross-validation, or class means."""

import dataclasses
from pathlib import Path

import numpy as np

from imgclf.data.splits import groups_of
from imgclf.methods.base import Task
from imgclf.probes.cross_validation import CrossValidation, Linear, fit_linear
from imgclf.probes.features import extract
from imgclf.probes.heads import FeatureLogits, linear_head, rescaled
from imgclf.training.state import split_model
from imgclf.training.trained_model import OutOfFold, TrainedModel, TrainProgress


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """Solves the head of a probe; `methods.base.Method` for a head alone, whose parameters and statistics are `{"head": …}`."""

    task: Task
    rows: np.ndarray  # int64 [N], of the training images in the table
    class_weight: np.ndarray | None  # float32 [C]
    validation: CrossValidation

    @classmethod
    def check(cls, task: Task, class_weight: np.ndarray | None) -> "LinearHead":
        """Deals the training images into folds.

        Raises:
          UserError: for more folds than members of a class, where they choose.
        """
        probe, table = task.config.probe, task.dataset.table
        rows = np.flatnonzero((table["split"] == "train").to_numpy())
        train, strengths = table.iloc[rows], tuple(map(float, probe.l2))
        labels, groups = train["label"].to_numpy(), groups_of(train)
        validation = CrossValidation.create(
            labels,
            groups,
            task.dataset.class_names,
            strengths,
            probe.folds,
            task.config.seed,
            probe.solver,
            wanted=task.config.train.method == "probe" and not (table["split"] == "val").any(),
        )
        return cls(task, rows, class_weight, validation)

    def train(self, workdir: Path) -> TrainedModel:
        del workdir  # a solution leaves no checkpoints of its own
        return self.solve()

    def solve(self, *, repeats: bool = True) -> TrainedModel:
        """Solves the head on the features of the training images, and scores it on them out of fold.

        Args:
          repeats: whether it is also scored where shots of one scene may be on both sides, if there are any.
        """
        config, model, dataset, probe = self.task.config, self.task.model, self.task.dataset, self.task.config.probe
        told = config.train.method == "probe" and not probe.views  # of these features, when those of all splits were computed
        features = extract(config, model, dataset, rows=self.rows, views=probe.views, console=None if told else self.task.console)
        features = rescaled(model.head, features)
        labels = dataset.table["label"].to_numpy()[self.rows]
        solved = self._fit(features, labels, self.validation)
        params = {"head": split_model(model.head)[1] | {"logits": linear_head(solved, config.model.output)}}
        held = None
        if solved.out_of_fold is not None:
            at = self.validation.held_out
            alike = self._with_repeats(features, labels, solved.about["l2"]) if repeats else None
            held = OutOfFold(self.rows[at], solved.out_of_fold, np.asarray(self.validation.fold)[at], alike)
        logits_of = FeatureLogits(config, model, dataset, params, {})
        return TrainedModel(params, {}, solved.about, TrainProgress(flops=0), 0, logits_of, out_of_fold=held)

    def _fit(self, features: np.ndarray, labels: np.ndarray, validation: CrossValidation) -> Linear:
        probe = self.task.config.probe
        return fit_linear(
            features,
            labels,
            validation,
            solver=probe.solver,
            scaling=probe.scaling,
            class_weight=self.class_weight,
            console=self.task.console,
        )

    def _with_repeats(self, features: np.ndarray, labels: np.ndarray, l2: float | None) -> np.ndarray | None:
        """The out-of-fold logits where shots of one scene may be on both sides, float32 [N, C]; None where there are no such scenes."""
        probe, table = self.task.config.probe, self.task.dataset.table.iloc[self.rows]
        if "scene" not in table or not table["scene"].replace("", None).dropna().duplicated().any():
            return None
        groups, strengths = groups_of(table, scenes=False), () if l2 is None else (l2,)
        names, seed = self.task.dataset.class_names, self.task.config.seed
        validation = CrossValidation.create(labels, groups, names, strengths, self.validation.folds, seed, probe.solver, wanted=True)
        solved = self._fit(features, labels, validation)
        return np.asarray(solved.out_of_fold)[np.searchsorted(validation.held_out, self.validation.held_out)]
