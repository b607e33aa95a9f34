"""The work of a training, in floating-point operations: unlike seconds, they hold no compilation and no other load of the machine."""

from typing import Protocol

import jax

from imgclf.training.phases import Phase
from imgclf.training.state import TrainState
from imgclf.training.trained_model import TrainProgress


class Jitted(Protocol):
    """A function under `jax.jit`."""

    def lower(self, *arguments: object) -> jax.stages.Lowered: ...


def flops(function: Jitted, *arguments: object) -> int | None:
    """Counts the floating-point operations of one call, as XLA's cost analysis does for the program before optimisation.

    Args:
      function: under `jax.jit`.
      arguments: those of a call, or their shapes. After a call with the like nothing is traced again.

    Returns:
      The number; None where XLA doesn't tell, as on GPUs and TPUs.
    """
    analysis = function.lower(*arguments).cost_analysis()
    return None if analysis is None else round(analysis.get("flops", 0))


def total(*counts: int | None) -> int | None:
    """The sum; None where one of them is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


class WorkCounter:
    """Adds the work of each step to the progress of a training; a phase's steps are alike, and counted once."""

    def __init__(self, progress: TrainProgress):
        self._progress = progress
        self._phase: Phase | None = None
        self._flops: int | None = None

    def stepped(self, phase: Phase, state: TrainState, batch: dict[str, jax.Array]) -> None:
        """A step of this phase has been taken, from a state and a batch like these."""
        if phase is not self._phase:
            self._phase, self._flops = phase, flops(phase.compiled, state, batch, phase.scalars_on_devices)
        self._progress.flops = total(self._progress.flops, self._flops)
