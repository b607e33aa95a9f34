"""What a run tells while it trains: `metrics.jsonl`, TensorBoard events, and the check that losses are finite."""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from imgclf import files

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

_SHOWN_AFTER = 10.0  # seconds after which TensorBoard sees what was written: it is waited until the disk has it


class NotFinite(Exception):
    """A training loss is NaN or infinite at `steps`."""

    def __init__(self, steps: list[int]):
        super().__init__(f"loss not finite at steps {steps}")
        self.steps = steps


class MetricsWindow:
    """The metrics of the steps since the last log line. They stay on the device until asked for: reading them waits for the step."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._values: list[dict[str, float]] = []

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._pending.append((step, metrics))

    def read(self) -> None:
        """Waits for the pending steps and reads their metrics.

        Raises:
          NotFinite: if a loss is NaN or infinite.
        """
        values = jax.device_get([metrics for _, metrics in self._pending])
        bad = [step for (step, _), metrics in zip(self._pending, values, strict=True) if not math.isfinite(metrics["train_loss"])]
        self._pending = []
        self._values += values
        if bad:
            raise NotFinite(bad)

    def means(self) -> dict[str, float]:
        """Returns the means since the last call; after a resume, since the resume."""
        self.read()
        values, self._values = self._values, []
        return {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}


class MetricsLog:
    """Appends to `metrics.jsonl` and TensorBoard events, on process 0; opening it at a step forgets what came after."""

    def __init__(self, run: Path, step: int, steps_per_epoch: float):
        self._per_epoch = steps_per_epoch
        self._active = jax.process_index() == 0
        if not self._active:
            return
        path = run / "metrics.jsonl"
        files.write_text(path, "".join(line + "\n" for line in _lines_until(path, step)))
        with contextlib.ExitStack() as opened:
            self._file = opened.enter_context(path.open("a"))
            self._board = _Board(run / "tensorboard", step)
            opened.callback(self._board.close)
            self._opened = opened.pop_all()  # both are there, and stay open

    def write(self, step: int, metrics: dict[str, float]) -> None:
        if not self._active:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record = {"step": step, "epoch": round(step / self._per_epoch, 4), "time": round(time.time(), 3), **finite}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._board.write(step, {name.replace("_", "/", 1): value for name, value in metrics.items()})

    def flush(self) -> None:
        """Writes all that `write` was given.

        Raises:
          OSError: where it can't be written.
        """
        if self._active:
            self._board.flush()

    def close(self) -> None:
        if self._active:
            self._opened.close()


class _Board:
    """TensorBoard's events, kept until ten seconds are over or a checkpoint is saved, then written by the thread that calls.

    tensorboardX's own SummaryWriter has a thread for it, in which a full disk ends nothing but that thread, with a traceback, and closing
    it fails once more while Python ends. It is imported when something is written: with what it finds to write to clouds, that takes a
    tenth to three quarters of a second, which the first step need not wait for.
    """

    def __init__(self, folder: Path, step: int):
        """
        Args:
          folder: that gets a new file of events, and is made where it is not there.
          step: after which TensorBoard forgets what older files hold; 0 = they are of a run that is begun anew here, and go.
        """
        folder.mkdir(exist_ok=True)
        for older in [] if step else folder.glob("events.*"):
            older.unlink()
        self._prefix = str(folder / f"events.{step}")  # a name of its own, also where a run is continued within a second
        self._events: EventsWriter | None = None
        self._forgotten_after = step
        self._waiting: list[tuple[float, int, dict[str, float]]] = []  # time, step, values
        self._written = time.monotonic()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes scalars of a step, and writes all that wait where the last time is long ago.

        Raises:
          OSError: where they can't be written.
        """
        self._waiting.append((time.time(), step, values))
        if time.monotonic() - self._written > _SHOWN_AFTER:
            self.flush()

    def close(self) -> None:
        """Writes what waits.

        Raises:
          OSError: where it can't be written.
        """
        try:
            self.flush()
        finally:
            if self._events is not None:
                self._events.close()

    def flush(self) -> None:
        """Writes what waits, so that the disk has it."""
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if self._events is None:
            self._events = EventsWriter(self._prefix)
            if self._forgotten_after:
                start = SessionLog(status=SessionLog.SessionStatus.START)
                self._events.write_event(Event(wall_time=time.time(), step=self._forgotten_after + 1, session_log=start))
        for moment, step, values in self._waiting:
            for name, value in values.items():
                self._events.write_event(Event(wall_time=moment, step=step, summary=summary.scalar(name, value)))
        self._events.flush()
        self._waiting, self._written = [], time.monotonic()


def _lines_until(path: Path, step: int) -> list[str]:
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break  # cut off by a kill; it and what followed are written again
        if record["step"] > step:
            break
        lines.append(line)
    return lines
