"""Which models are kept: by value, for a soup, until patience ends."""

import math

import pytest
from digits_experiment import digits_config

from imgclf.errors import UserError
from imgclf.training import best
from imgclf.training.best import BestModels
from imgclf.training.plan import TrainingPlan
from imgclf.training.trained_model import TrainProgress


class Folder:
    """In place of checkpoints: remembers what was written and what was left."""

    def __init__(self):
        self.models: dict[str, dict] = {}

    def save_model(self, name, params, batch_stats, about):
        self.models[name] = about

    def keep_only(self, names):
        self.models = {name: about for name, about in self.models.items() if name in names}


def judged(values: list[float], metric: str = "val_loss", has_val: bool = True, **changes) -> tuple[TrainProgress, Folder, list[bool]]:
    """Evaluations 10 steps apart, an epoch of 10 steps."""
    config = digits_config(**{"train.best_metric": metric, "train.duration": "1000 steps", **changes})
    progress, folder = TrainProgress(), Folder()
    models = BestModels(config, TrainingPlan.create(config, 10.0), ("a", "b"), has_val, folder, progress)
    improved = [models.add(10 * (i + 1), {"val_loss": value, "val_top1": value}, {}, {}) for i, value in enumerate(values)]
    models.drop_others()
    return progress, folder, improved


def test_the_best_by_either_metric_is_kept_alone():
    progress, folder, improved = judged([3.0, 2.0, 2.5, 2.0])
    assert improved == [True, True, False, False]  # an equal one is no better
    assert (progress.best_value, progress.best_epoch, progress.evaluations_since_best) == (2.0, 2.0, 2)
    assert list(folder.models) == [progress.kept] == ["best-epoch-002.00-val_loss-2.0000"]
    assert folder.models[progress.kept] | {"params_sha256": ""} == {
        "step": 20,
        "epoch": 2.0,
        "val_loss": 2.0,
        "class_names": ["a", "b"],
        "params_sha256": "",
    }
    assert judged([0.3, 0.2, 0.4], "val_top1")[0].best_value == 0.4


def test_what_is_not_finite_or_too_little_better_is_no_improvement():
    assert judged([math.nan, 2.0, math.inf])[2] == [False, True, False]
    assert judged([2.0, 1.95, 1.85], **{"train.early_stopping.min_delta": 0.1})[2] == [True, False, True]


def test_patience():
    progress, _, _ = judged([2.0, 2.1], **{"train.early_stopping.patience": 2})
    assert not progress.stopped_early
    progress, _, _ = judged([2.0, 2.1, 2.2], **{"train.early_stopping.patience": 2})
    assert progress.stopped_early


def test_the_models_for_a_soup_are_the_best_few_and_of_equals_the_older():
    progress, folder, _ = judged([3.0, 2.0, 2.5, 2.0], **{"train.soup": 2})
    assert [value for value, _ in progress.ranked] == [2.0, 2.0]
    assert progress.ranked[0][1].startswith("best-epoch-002.00")
    assert folder.models.keys() == {name for _, name in progress.ranked}


def test_without_a_val_split_nothing_is_best_and_the_last_is_kept():
    progress, folder, improved = judged([2.0], has_val=False)
    assert (improved, progress.kept, folder.models) == ([False], "", {})
    for changes in ({"train.soup": 2}, {"train.early_stopping.patience": 3}):
        with pytest.raises(UserError, match="needs a val split"):
            best.check(digits_config(**changes), has_val=False)
