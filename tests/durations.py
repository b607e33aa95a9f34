"""How long each test file takes, kept in durations.json and compared at the end of a run; it never fails one.

Seconds are CPU time of all cores together, child processes included (but for those that a fork server starts), so that waiting and other
work on the machine don't count; a run on n cores takes at least an n-th of their sum. `pytest --durations-update` writes the table. Do that
after a run of the whole suite, in which each file pays only for the programs that no file before it has compiled.
"""

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("durations.json")
ROOT = Path(__file__).resolve().parents[1]
GROWTH, LEAST = 1.5, 5.0  # A file is named where it takes so many times what it took, and so many seconds more.
SECONDS = pytest.StashKey[Counter[str]]()


def grown(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """The files that take clearly longer than before, the worst first; a new file took nothing."""
    more = {name: seconds - before.get(name, 0.0) for name, seconds in now.items()}
    return sorted((name for name in now if more[name] > LEAST and now[name] > GROWTH * before.get(name, 0.0)), key=lambda name: -more[name])


def merged(before: dict[str, float], now: dict[str, float], root: Path = ROOT) -> dict[str, float]:
    """The table with what has just been measured, without files that are gone."""
    return {name: round(seconds, 1) for name, seconds in sorted({**before, **now}.items()) if (root / name).is_file()}


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--durations-update", action="store_true", help="write tests/durations.json")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin, so that at the end no worker is left with one of them while the others are done.

    pytest-xdist keeps this order because of --no-loadscope-reorder; else the files with the most tests would begin.
    """
    before = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    items.sort(key=lambda item: -before.get(item.path.relative_to(ROOT).as_posix(), 0.0))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SECONDS] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    start = cpu_seconds()
    try:
        return (yield)
    finally:
        item.config.stash[SECONDS][item.path.relative_to(item.config.rootpath).as_posix()] += cpu_seconds() - start


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # A worker of pytest-xdist tells the one who prints.
        session.config.workeroutput["seconds"] = dict(session.config.stash[SECONDS])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    node.config.stash[SECONDS].update(getattr(node, "workeroutput", {}).get("seconds", {}))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    now = dict(config.stash[SECONDS])
    if not now:
        return
    before = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    known = sum(before.get(name, 0.0) for name in now)
    terminalreporter.write_line(f"{sum(now.values()):.0f} s of CPU time in {len(now)} files, {known:.0f} s by tests/durations.json")
    for name in grown(before, now):
        taken = f"it took {before[name]:.0f} s" if name in before else "it is not in the table yet"
        terminalreporter.write_line(f"  longer: {name}: {now[name]:.0f} s, {taken}")
    if config.getoption("durations_update"):
        TABLE.write_text(json.dumps(merged(before, now), indent=2) + "\n")
