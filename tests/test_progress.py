"""Progress on a terminal, in a notebook's cell, and in a log."""

import io
import re
import time

import pytest
from rich.console import Console

from imgclf import progress


@pytest.fixture(autouse=True)
def colours_are_not_forced(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def shown(bar_of, *, terminal: bool = True, total: int = 10, done: int = 3, **fields: str) -> str:
    """What a console has got to see of a bar."""
    console = Console(file=io.StringIO(), force_terminal=terminal, force_jupyter=False, width=160)
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


def test_a_log_is_told_nothing_of_what_is_quick():
    assert shown(progress.bar, terminal=False) == ""


def test_forced_colours_make_no_terminal_of_a_log(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console(file=io.StringIO()).is_terminal
    assert shown(progress.bar) == ""


def test_a_log_gets_a_line_at_each_interval_and_none_more(monkeypatch):
    """Also while the work stands still, as when a step is compiled."""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.1)
    console = Console(file=io.StringIO(), force_terminal=False, force_jupyter=False, width=20)  # a narrow log breaks no line
    began = time.monotonic()
    with progress.bar(console, "{task.fields[note]}", rate="steps") as bar:
        task = bar.add_task("training", total=400, completed=100, note="compiling the step")
        bar.add_task("done before it began", total=1, completed=1, note="")
        time.sleep(0.15)
        for step in range(101, 141):
            bar.update(task, completed=step, note="loss 0.5000")
            time.sleep(0.005)
    lines, took = console.file.getvalue().splitlines(), time.monotonic() - began
    assert 2 <= len(lines) <= took / 0.1
    assert re.fullmatch(r"training: 100/400, compiling the step, [\d.]+ s so far", lines[0])
    assert re.fullmatch(r"training: 1\d\d/400, [\d,.]+ steps/s, loss 0.5000, [\d.]+ s so far, [\d.]+ (s|min) left", lines[-1])


@pytest.mark.parametrize(("earlier", "now", "left"), [(0, 1, "2 min 15 s"), (6, 7, "45 s"), (6, 6, None)])
def test_the_time_left_of_slow_steps_is_by_all_the_time(earlier, now, left):
    """One step in the last half minute gives no speed of it. What an earlier start has done is not counted: 15 s a step."""
    clock = [100.0]
    console = Console(file=io.StringIO(), force_terminal=False, force_jupyter=False, get_time=lambda: clock[0])
    bar = progress.bar(console)
    bar.add_task("training", total=10, completed=earlier)
    clock[0] += 15
    bar.update(0, completed=now)
    told = bar.sentence(bar.tasks[0])
    assert told == f"training: {now}/10, 15 s so far" + (f", {left} left" if left else "")


def test_a_quiet_console_gets_nothing(monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.01)
    console = Console(file=io.StringIO(), force_terminal=False, quiet=True)
    with progress.bar(console) as bar:
        bar.add_task("Counting sheep", total=10)
        time.sleep(0.05)
    assert console.file.getvalue() == ""


def test_a_cell_gets_a_bar_that_vanishes(monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0.02)
    monkeypatch.setattr("IPython.display.DisplayHandle.display", lambda self, data, raw: shown.append(("display", data)))
    monkeypatch.setattr("IPython.display.DisplayHandle.update", lambda self, data, raw: shown.append(("update", data)))
    console = Console(file=io.StringIO(), force_jupyter=True)
    with progress.bar(console, rate="sheep") as bar:
        bar.add_task("<sheep>", total=10, completed=3)
        time.sleep(0.1)
    (first, data), (last, end) = shown[0], shown[-1]
    assert (first, last) == ("display", "update")
    assert '<progress max="10" value=3' in data["text/html"]
    assert "&lt;sheep&gt;:" in data["text/html"]
    assert data["text/plain"].startswith("<sheep>: 3/10")
    assert end == {"text/html": "", "text/plain": ""}
