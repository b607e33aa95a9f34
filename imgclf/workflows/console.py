"""Where workflows tell what they do."""

from rich.console import Console


def or_terminal(console: Console | None, *, quiet: bool = False) -> Console:
    """The console given, or where it is None one on the terminal (in a notebook: the cell's output).

    This is the rule of all workflows: they tell what happens unless they are given `rich.console.Console(quiet=True)`.

    Args:
      console: the workflow's own argument.
      quiet: whether the one made here says nothing, as in all but the first process of several hosts.
    """
    return console if console is not None else Console(quiet=quiet, soft_wrap=True, highlight=False)
