"""Progress bars, all alike: what is done, how much of it, since when, and for how long still."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def bar(console: Console, *columns: ProgressColumn, amount: ProgressColumn | None = None) -> Progress:
    """A progress bar that vanishes when it is done, and is not shown where the console is no terminal.

    Args:
      console: where it is shown.
      columns: further ones, between the amount and the times.
      amount: in place of "3/10", such as rich's DownloadColumn.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount or MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
