"""What training makes, by whatever method: the kept model, how it is run over a split, and how the training went."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.files import replacing
from imgclf.training.state import Tree

# a split's name → likewise a batch at a time; of the second argument, int64, only these rows of the table; None = all of the split
BlocksOf = Callable[[str, np.ndarray | None], Iterator[tuple[np.ndarray, np.ndarray]]]
LogitsOf = Callable[[str], tuple[np.ndarray, np.ndarray]]  # a split's name → rows of the table, int64 [N], and logits, float32 [N, C]


@dataclasses.dataclass
class TrainProgress:
    """How a training goes: what a checkpoint holds beside the state."""

    best_value: float | None = None  # of `config.train.best_metric`
    best_epoch: float | None = None
    kept: str = ""  # folder name of the kept model
    ranked: list[tuple[float, str]] = dataclasses.field(default_factory=list)  # value and folder of the models for a soup, best first
    evaluated_step: int = -1
    evaluations_since_best: int = 0
    stopped_early: bool = False
    seconds: float = 0.0  # of training so far, over all restarts
    flops: int | None = None  # floating-point operations of training so far; None = not known

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "TrainProgress":
        """Reads what `dataclasses.asdict` has written, after JSON has made lists of its pairs."""
        progress = cls(**saved)
        progress.ranked = [(value, name) for value, name in progress.ranked]
        return progress


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """What cross-validation says of the training images: each is judged by a model of the same kind that was trained without its fold.

    Attributes:
      rows: int64 [N], of the table.
      logits: float32 [N, C].
      fold: int64 [N], which fold each image is in.
      repeats: float32 [N, C], likewise from folds that tear scenes apart, where there are scenes of several images; else None.
    """

    rows: np.ndarray
    logits: np.ndarray
    fold: np.ndarray
    repeats: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
            np.savez(file, **{name: values for name, values in known.items() if values is not None})

    @classmethod
    def load(cls, path: Path) -> "OutOfFold | None":
        """Reads what `save` has written; None where there is no such file."""
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as saved:
            return cls(**{field.name: saved[field.name] for field in dataclasses.fields(cls) if field.name in saved})


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """The result of every training method.

    Attributes:
      params, batch_stats: of the kept model, nested dicts of numpy arrays.
      about: what stands beside it in its checkpoint: `class_names`, `params_sha256`, and what its method notes there.
      progress: how training went.
      steps: how many optimizer steps were taken in all, in batches.
      logits_of: runs the model over a split.
      out_of_fold: where the method has cross-validated what it kept.
      results: what the method adds to results.json.
      notes: its remarks for results.json's `notes`.
      blocks_of: runs the model over a split a batch at a time; None where what the logits are computed from is in memory anyway.
    """

    params: Tree
    batch_stats: Tree
    about: dict[str, Any]
    progress: TrainProgress
    steps: int
    logits_of: LogitsOf
    out_of_fold: OutOfFold | None = None
    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    blocks_of: BlocksOf | None = None
