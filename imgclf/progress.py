"""The one place where progress bars are made, so that all of them show the same: what is done, how much of it, and for how long still.

On a terminal they are drawn by rich. A notebook's cell gets a bar in HTML, which needs no widgets. Anywhere else, as in the log of a
cluster's job or in a pipe, nothing can be drawn over: there a line is written every 30 seconds, and none of what takes less.
"""

import html
import os
import threading
from typing import Any, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from imgclf import formatting

__all__ = ["Progress", "bar"]  # Progress is for signatures

LOG_SECONDS = 30.0  # between two lines where there is no terminal
NOTEBOOK_SECONDS = 0.5  # between two states of a notebook's bar, and before its first


def bar(console: Console, *columns: str | ProgressColumn, amount: Literal["count", "bytes"] = "count", rate: str = "") -> Progress:
    """Makes a progress bar: on a terminal and in a notebook one that vanishes when it is done, elsewhere a line every 30 seconds.

    Args:
      console: where it is shown; a quiet one shows nothing.
      columns: what stands between the amount and the times; a text is a template of the task, such as "{task.fields[note]}".
      amount: what a task's total is: a number of things (shown as 3/10), or of bytes (shown in MB, with the bytes per second).
      rate: the name of the things, where their number per second is to be shown: "images" is shown as "120.5 images/s".

    Returns:
      The bar, to be entered by `with`; its tasks have a description, which is shown first.
    """
    shown = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    amounts = [MofNCompleteColumn()] if amount == "count" else [DownloadColumn(), TransferSpeedColumn()]
    told = [*amounts, *([_Rate(rate)] if rate else []), *shown]
    if console.quiet:
        return Progress(console=console, disable=True)
    if console.is_jupyter:
        return _InNotebook(told, console)
    if not _can_be_drawn_over(console):
        return _InLog(told, console)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *told, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True
    )


def _can_be_drawn_over(console: Console) -> bool:
    """Whether it is a terminal. FORCE_COLOR, which CI and the kernels of notebooks set, makes rich take a log for one."""
    return console.is_terminal and (os.environ.get("FORCE_COLOR") is None or console.file.isatty())


class _Rate(ProgressColumn):
    """Things per second over the last half minute, as rich estimates them."""

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {self._name}/s" if speed else "")


class _Told(Progress):
    """A bar that is told in sentences again and again, by a thread, so that work which stands still is told of, too."""

    def __init__(self, told: list[ProgressColumn], console: Console, seconds: float):
        super().__init__(console=console, disable=True)  # rich draws nothing
        self._told, self._seconds = told, seconds
        self._first: dict[TaskID, float] = {}
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell_again, name="progress", daemon=True)

    def add_task(self, description: str, *args: Any, **how: Any) -> TaskID:
        task = super().add_task(description, *args, **how)
        self._first[task] = self._tasks[task].completed  # what an earlier start has done is no speed of this one
        return task

    def start(self) -> None:
        self._teller.start()

    def stop(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self._teller.join()

    def show(self, tasks: list[Task]) -> None:
        """Tells of the tasks that are going on."""
        raise NotImplementedError

    def sentence(self, task: Task) -> str:
        """What is done, how much, what the columns say, for how long, and for how long still."""
        parts = [str(column.render(task)).strip() for column in self._told]
        times = [f"{formatting.duration(task.elapsed or 0.0)} so far"]
        if (left := self._seconds_left(task)) is not None:
            times.append(f"{formatting.duration(left)} left")
        return f"{task.description}: " + ", ".join(part for part in [*parts, *times] if part)

    def _seconds_left(self, task: Task) -> float | None:
        """By the speed of the last half minute; where hardly anything was done in it, as of slow steps, by that of all the time."""
        done, elapsed = task.completed - self._first[task.id], task.elapsed
        if task.time_remaining is not None:
            return task.time_remaining
        if task.total is None or not done or not elapsed:
            return None
        return max(0.0, task.total - task.completed) * elapsed / done

    def _tell_again(self) -> None:
        while not self._over.wait(self._seconds):
            if going := [task for task in self.tasks if task.visible and (task.total is None or task.completed < task.total)]:
                self.show(going)


class _InLog(_Told):
    """A line for each task that is going on."""

    def __init__(self, told: list[ProgressColumn], console: Console):
        super().__init__(told, console, LOG_SECONDS)

    def show(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.console.print(Text(self.sentence(task)), soft_wrap=True)


class _InNotebook(_Told):
    """A bar below the cell, in HTML, that vanishes at the end."""

    def __init__(self, told: list[ProgressColumn], console: Console):
        from IPython.display import DisplayHandle  # it is there: a cell is being run

        super().__init__(told, console, NOTEBOOK_SECONDS)
        self._place, self._shown = DisplayHandle(), False

    def show(self, tasks: list[Task]) -> None:
        lines = [self.sentence(task) for task in tasks]
        bars = "".join(
            f'<div><progress max="{task.total or 1}"{"" if task.total is None else f" value={task.completed:g}"} style="width:16em">'
            f"</progress> {html.escape(line)}</div>"
            for task, line in zip(tasks, lines, strict=True)
        )
        self._put(bars, "\n".join(lines))

    def stop(self) -> None:
        super().stop()
        if self._shown:
            self._put("", "")

    def _put(self, page: str, text: str) -> None:
        how = self._place.update if self._shown else self._place.display
        how({"text/html": page, "text/plain": text}, raw=True)
        self._shown = True
