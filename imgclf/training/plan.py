"""How long a training is, and when during it something recurs, all in steps."""

import dataclasses

from imgclf.config import Config, durations
from imgclf.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """The durations of `config.train` in steps; a step is one batch.

    Attributes:
      total: steps of the whole training.
      per_epoch: steps of an epoch, like the next three not rounded: an epoch need not be a whole number of batches.
      log_every: steps between two log lines.
      evaluate_every: steps between two evaluations on val.
      checkpoint_every: steps between two checkpoints.
    """

    total: int
    per_epoch: float
    log_every: float
    evaluate_every: float
    checkpoint_every: float

    @classmethod
    def create(cls, config: Config, steps_per_epoch: float) -> "TrainingPlan":
        """Converts the durations of a config.

        Raises:
          UserError: for a training without a step, and a duration that can't be understood.
        """
        train, batch_size = config.train, config.loader.batch_size
        if train.duration == "auto":
            total = durations.hyper_rule_steps(round(steps_per_epoch * batch_size), batch_size)
        else:
            total = durations.steps(train.duration, steps_per_epoch=steps_per_epoch, field="config.train.duration")
        if total < 1:
            raise UserError(f"config.train.duration={train.duration!r} is no step at all; make it longer.")

        def every(name: str) -> float:
            field = f"config.train.{name}"
            return durations.length(train[name], steps_per_epoch=steps_per_epoch, total_steps=total, field=field)

        return cls(total, steps_per_epoch, every("log_every"), every("eval_every"), every("checkpoint_every"))

    def epoch(self, step: int) -> float:
        """The epochs that so many steps are."""
        return step / self.per_epoch

    def logs_at(self, step: int) -> bool:
        return step == self.total or durations.is_due(step, self.log_every)

    def evaluates_at(self, step: int) -> bool:
        return step == self.total or durations.is_due(step, self.evaluate_every)

    def saves_at(self, step: int) -> bool:
        return durations.is_due(step, self.checkpoint_every)

    def evaluation_number(self, step: int) -> int:
        """Which evaluation on val the one at this step is, counted from 1."""
        return round(step / max(1.0, self.evaluate_every))
