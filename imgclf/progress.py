"""The one place where progress bars are made, so that all of them show the same: what is done, how much of it, and for how long still."""

from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

__all__ = ["Progress", "bar"]  # Progress is for signatures


def bar(console: Console, *columns: str | ProgressColumn, amount: Literal["count", "bytes"] = "count", rate: str = "") -> Progress:
    """Makes a progress bar that vanishes when it is done, and that is not shown where the console is no terminal.

    Args:
      console: where it is shown.
      columns: what stands between the amount and the times; a text is a template of the task, such as "{task.fields[note]}".
      amount: what a task's total is: a number of things (shown as 3/10), or of bytes (shown in MB, with the bytes per second).
      rate: the name of the things, where their number per second is to be shown: "images" is shown as "120.5 images/s".

    Returns:
      The bar, to be entered by `with`; its tasks have a description, which is shown first.
    """
    shown = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    amounts = [MofNCompleteColumn()] if amount == "count" else [DownloadColumn(), TransferSpeedColumn()]
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amounts,
        *([_Rate(rate)] if rate else []),
        *shown,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class _Rate(ProgressColumn):
    """Things per second over the last half minute, as rich estimates them."""

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {self._name}/s" if speed else "")
