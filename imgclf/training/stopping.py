"""The request to stop a training: SIGTERM, Ctrl-C, a cluster's notice that the job is about to end, or the end of the user's time."""

import contextlib
import os
import signal
import time
from types import FrameType
from typing import Any

import jax

from imgclf.runtime import partners
from imgclf.training.checkpoint import Checkpoints

OUT_OF_TIME = signal.SIGALRM  # the signal that a passed deadline counts as


class Interrupted(Exception):
    """Training was asked to stop (SIGTERM, Ctrl-C, a cluster's notice, a deadline) and has saved its state."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped at step {step} by {signal.Signals(signum).name}")
        self.signum, self.step = signum, step


class StoppedWhileEvaluating(Exception):
    """An evaluation was given up because training is to stop; it is made again when the run is continued."""

    def __init__(self, signum: int):
        super().__init__(f"an evaluation was given up because of {signal.Signals(signum).name}")
        self.signum = signum


class StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a flag that the loop reads between batches; a second Ctrl-C interrupts at once.

    With several processes either of them, to any process, stops all after the same step.

    Args:
      deadline: by `time.monotonic`, from which on training is asked to stop, too; None = never. Of one process only, as clocks differ.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self._signum = 0
        self._interrupted = False  # by Ctrl-C, with several processes
        self._deadline = deadline
        self._handlers_before: dict[int, Any] = {}
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        # With several processes JAX's own SIGTERM handler tells all of them, so that they save the same step.
        if jax.process_count() > 1:
            handlers = {signal.SIGINT: self._pass_on}
        else:
            handlers = {signal.SIGTERM: self._handle, signal.SIGINT: self._handle}
        with contextlib.suppress(ValueError):  # outside the main thread, signals are the caller's
            for signum, handler in handlers.items():
                self._handlers_before[signum] = signal.signal(signum, handler)
        self._opened.enter_context(partners.training_loop())
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._opened.__exit__(*exc_info)
        for signum, handler in self._handlers_before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self._signum = signum

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        """The first Ctrl-C stops all processes as SIGTERM does; this one remembers that it was Ctrl-C."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)

    def signum(self, step: int, checkpoints: Checkpoints) -> int:
        """The signal by which training is asked to stop after this step, 0 for none; all processes are asked at the same step."""
        if jax.process_count() > 1:
            told = signal.SIGINT if self._interrupted else signal.SIGTERM
            return told if checkpoints.interrupted(step) else 0
        if not self._signum and self._deadline is not None and time.monotonic() >= self._deadline:
            self._signum = OUT_OF_TIME
        return self._signum

    def check_while_evaluating(self, examples: int) -> None:
        """Raises StoppedWhileEvaluating where a signal has come; called with the number of examples of each batch."""
        del examples
        if self._signum:
            raise StoppedWhileEvaluating(self._signum)
