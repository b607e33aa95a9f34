"""Work that several processes share."""

import io
import os
import time

import pytest
from joblib import delayed
from joblib.externals.loky import get_reusable_executor
from rich.console import Console

from imgclf.errors import UserError
from imgclf.runtime import parallel

QUIET = Console(quiet=True)


def square(number: int, wait: float = 0.0) -> tuple[int, int]:
    time.sleep(wait)
    return number * number, os.getpid()


@pytest.mark.parametrize(("engine", "jobs"), [("threads", 1), ("threads", 3), ("processes", 1), ("processes", 2)])
def test_each_engine_does_all_work(engine, jobs):
    work = [delayed(square)(number) for number in range(6)]
    results = list(parallel.each(work, engine, jobs, "squares", QUIET))
    assert sorted(result for result, _ in results) == [0, 1, 4, 9, 16, 25]
    here = {process == os.getpid() for _, process in results}
    assert here == {engine == "threads" or jobs == 1}


def test_results_come_as_they_are_done():
    work = [delayed(square)(1, 0.5), delayed(square)(2)]
    assert [result for result, _ in parallel.each(work, "threads", 2, "squares", QUIET)] == [4, 1]


def test_no_work_starts_no_engine():
    assert list(parallel.each([], "no such engine", 4, "nothing", QUIET)) == []


def test_processes_end_with_the_work():
    with parallel.backend("processes", 2):
        list(parallel.each([delayed(square)(1)], "processes", 2, "squares", QUIET))
        executor = get_reusable_executor()
    assert executor is not get_reusable_executor()
    get_reusable_executor().shutdown()


def test_an_engine_that_is_not_installed_is_told(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(parallel.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"engine=dask needs dask: python -m pip install 'imgclf\[dask\]'"), parallel.backend("dask", 2):
        pass


def test_the_bar_names_the_work():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    list(parallel.each([delayed(square)(1)], "threads", 1, "squares", console))
    assert "squares" in console.file.getvalue()
