"""How long the devices stood idle because the next batch was not there yet."""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Iterator

import jax

from imgclf.training.step import Metrics

_AT_MOST_EVERY = 0.1  # seconds between two steps that are watched


class DataWait:
    """Measures the time between the end of a step and the arrival of the next batch.

    The host runs ahead of the devices, so that its own waiting for a batch says nothing: mostly a step is still being computed meanwhile.
    A thread waits for a step's results and notes when they are there. It does so ten times a second at most, as on steps of a few
    milliseconds it would cost a tenth of the time; long steps are all watched.
    """

    def __init__(self) -> None:
        self._seconds, self._count = 0.0, 0  # of waiting after watched steps, since `take`
        self._is_watched, self._watched_at = False, -math.inf  # the last step; when one was watched last
        self._given = self._done = 0  # watched steps; the second number is the thread's
        self._finished = time.perf_counter()
        self._steps: queue.SimpleQueue[Metrics | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._note_ends, name="ends of steps", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """In this block the next batch is asked for, and arrives."""
        asked = time.perf_counter()
        yield
        arrived = time.perf_counter()
        if self._is_watched:
            self._count += 1
            if self._done == self._given:  # else the step is still running, and nothing waited
                self._seconds += max(0.0, arrived - max(asked, self._finished))

    def stepped(self, metrics: Metrics) -> None:
        """A step has been given to the devices; `metrics` are what it computes."""
        now = time.perf_counter()
        self._is_watched = now - self._watched_at >= _AT_MOST_EVERY
        if self._is_watched:
            self._watched_at = now
            self._given += 1
            self._steps.put(metrics)

    def take(self) -> float:
        """Mean seconds of waiting after a step, since this was last called."""
        seconds, count = self._seconds, self._count
        self._seconds, self._count = 0.0, 0
        return seconds / count if count else 0.0

    def close(self) -> None:
        """Ends the thread, once the steps that were given are done."""
        self._steps.put(None)
        self._thread.join()

    def _note_ends(self) -> None:
        while (metrics := self._steps.get()) is not None:
            # Whoever reads the metrics meets an error of the step, too, and tells it; here it is only the end of the step.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                jax.block_until_ready(metrics)
            self._finished = time.perf_counter()
            self._done += 1
