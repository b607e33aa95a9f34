"""Progress bars on a terminal, and the silence of those that have none."""

import io

from rich.console import Console

from imgclf import progress


def shown(bar_of, *, terminal: bool = True, total: int = 10, done: int = 3, **fields: str) -> str:
    """What a console has got to see of a bar."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with bar_of(console) as bar:
        bar.add_task("Counting sheep", total=total, completed=done, **fields)
        bar.refresh()
    return console.file.getvalue()


def test_a_bar_says_what_and_how_much():
    text = shown(lambda console: progress.bar(console, "{task.fields[note]}"), note="all white")
    for part in ("Counting sheep", "3/10", "all white", "0:00:00"):
        assert part in text
    assert text.endswith("\x1b[2K")  # it vanishes


def test_a_bar_of_bytes():
    assert "3.0/10.0 MB" in shown(lambda console: progress.bar(console, amount="bytes"), total=10_000_000, done=3_000_000)


def test_a_rate_has_the_name_of_the_things(monkeypatch):
    monkeypatch.setattr(progress.Task, "speed", 1234.56)
    assert "1,234.6 sheep/s" in shown(lambda console: progress.bar(console, rate="sheep"))


def test_no_terminal_no_bar():
    assert shown(progress.bar, terminal=False) == ""
