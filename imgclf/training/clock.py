"""The time of a training: how long it has trained, how fast, and when it last saved its state."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from imgclf.training.data_wait import DataWait
from imgclf.training.step import Metrics


class TrainingClock:
    """Measures a training from the moment it is made.

    Args:
      seconds_before: how long earlier starts of the same run have trained.
      batch_size: images of a step.
      save_seconds: a checkpoint is late when so many seconds have passed since the last one.
    """

    def __init__(self, seconds_before: float, batch_size: int, save_seconds: float):
        self._before, self._batch_size, self._save_seconds = seconds_before, batch_size, save_seconds
        self._start = self._saved = time.perf_counter()
        self._window_start, self._window_steps, self._window_pause = self._start, 0, 0.0
        self._starting_up = True
        self._wait = DataWait()
        self.asking_for_batch = self._wait.asking

    def close(self) -> None:
        """Ends what measures."""
        self._wait.close()

    @property
    def seconds(self) -> float:
        """Seconds of training, over all starts of the run."""
        return self._before + self.seconds_now

    @property
    def seconds_now(self) -> float:
        """Seconds since this start of the run."""
        return time.perf_counter() - self._start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What runs in this block, evaluations and checkpoints, does not count for the rate."""
        began = time.perf_counter()
        yield
        self._window_pause += time.perf_counter() - began

    def start_up(self) -> None:
        """The next step is compiled first: the rate counts from its end on."""
        self._starting_up = True

    def stepped(self, metrics: Metrics) -> None:
        """A step has been taken; `metrics` are what it computes."""
        self._wait.stepped(metrics)
        if not self._starting_up:
            self._window_steps += 1
            return
        jax.block_until_ready(metrics)
        self._starting_up = False
        self._begin_window()

    def rate(self) -> dict[str, float]:
        """What was since this was last asked, without pauses and start-up; empty where nothing else has happened since.

        Returns:
          images_per_second: of training.
          data_wait: the share of that time in which the devices stood idle because the next batch was not there yet.
        """
        if not self._window_steps:
            return {}
        seconds = time.perf_counter() - self._window_start - self._window_pause
        rate, wait = self._window_steps * self._batch_size / seconds, self._window_steps * self._wait.take() / seconds
        self._begin_window()
        return {"images_per_second": round(rate, 2), "data_wait": round(min(1.0, wait), 4)}

    def _begin_window(self) -> None:
        self._wait.take()
        self._window_start, self._window_steps, self._window_pause = time.perf_counter(), 0, 0.0

    def saved(self) -> None:
        """The state has just been saved."""
        self._saved = time.perf_counter()

    def save_is_late(self, *, all_ask: bool) -> bool:
        """Whether a checkpoint is due by the clock: with several processes, whose clocks differ, by that of process 0.

        It tells the others where `all_ask`, which is the same for each of them and seldom true, as they wait for its answer. Elsewhere
        several processes never find it due.
        """
        late = time.perf_counter() - self._saved > self._save_seconds
        if jax.process_count() == 1:
            return late
        return all_ask and bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
