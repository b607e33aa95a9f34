"""What a training method is: it checks a task, and then trains it."""

import dataclasses
from pathlib import Path
from typing import Protocol, Self

from jax.sharding import Mesh
from rich.console import Console

from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.models.network import Network
from imgclf.training.loop import OnEvaluation
from imgclf.training.trained_model import TrainedModel


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be trained.

    Attributes:
      config: the whole config, resolved (`resolve.resolve`).
      dataset: with its splits.
      model: what training starts from.
      mesh: of all devices.
      console: where to tell what happens.
      on_evaluation: told of every evaluation on val while the network trains; what it raises ends the training.
      deadline: by `time.monotonic`, when training of the network is to stop as if it was interrupted; None = never.
    """

    config: Config
    dataset: Dataset
    model: Network
    mesh: Mesh
    console: Console
    on_evaluation: OnEvaluation | None = None
    deadline: float | None = None


class Method(Protocol):
    """A way of training that has checked its task."""

    @classmethod
    def check(cls, task: Task) -> Self:
        """Makes every check that needs no work, tells the user what will be trained, and returns what is ready to train it.

        Raises:
          UserError: for what the user can mend.
        """
        ...

    def train(self, workdir: Path) -> TrainedModel:
        """Trains, or continues there where it was interrupted.

        Args:
          workdir: the run's folder.

        Raises:
          Interrupted: if training was asked to stop; its state is saved.
          UserError: for what shows only during the work, such as a full disk.
        """
        ...
