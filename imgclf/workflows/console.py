"""Where workflows tell what they do."""

from typing import Any

from rich.console import Console


def bars_only(console: Console) -> Console:
    """A console in the same place that shows progress, but no text: for work of which its caller tells in a line of its own."""
    return _BarsOnly(file=console.file, force_terminal=console.is_terminal, force_jupyter=console.is_jupyter, quiet=console.quiet)


class _BarsOnly(Console):
    def print(self, *objects: Any, **how: Any) -> None:
        if not any(isinstance(one, str) for one in objects):  # bars are drawn by renderables and control codes
            super().print(*objects, **how)


def or_terminal(console: Console | None, *, quiet: bool = False) -> Console:
    """The console given, or where it is None one on the terminal (in a notebook: the cell's output).

    This is the rule of all workflows: they tell what happens unless they are given `rich.console.Console(quiet=True)`.

    Args:
      console: the workflow's own argument.
      quiet: whether the one made here says nothing, as in all but the first process of several hosts.
    """
    return console if console is not None else Console(quiet=quiet, soft_wrap=True, highlight=False)
