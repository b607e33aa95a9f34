"""Where joblib runs what several processes share: here, or on a cluster that sees the same files."""

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imgclf.errors import UserError


@contextlib.contextmanager
def backend(engine: str, jobs: int) -> Iterator[None]:
    """Makes `joblib.Parallel` use an engine, and leaves nothing of it running.

    Args:
      engine: "threads" or "processes" of this machine; "ray": the cluster that RAY_ADDRESS names, else one started here; "dask": the
        scheduler that DASK_SCHEDULER_ADDRESS names, else likewise.
      jobs: how many at a time; 1 process is this one.

    Raises:
      UserError: if the engine is not installed.
    """
    with contextlib.ExitStack() as stack:
        if engine == "processes" and jobs != 1:
            stack.callback(lambda: get_reusable_executor().shutdown())  # they would wait for more work
        elif engine == "ray":
            ray = _module("ray")
            _module("ray.util.joblib").register_ray()
            if not ray.is_initialized():
                ray.init(include_dashboard=False, log_to_driver=False)
                stack.callback(ray.shutdown)
        elif engine == "dask":
            address = os.environ.get("DASK_SCHEDULER_ADDRESS")
            options = {} if address else {"dashboard_address": None, "threads_per_worker": 1}
            stack.enter_context(_module("dask.distributed").Client(address, **options))
        name = {"threads": "threading", "processes": "loky"}.get(engine, engine)
        stack.enter_context(joblib.parallel_config(backend=name, n_jobs=jobs))
        yield


def each(work: Sequence[Any], engine: str, jobs: int, name: str, console: Console) -> Iterator[Any]:
    """Does joblib's delayed calls on an engine (see `backend`), under a progress bar; yields their results as they come."""
    bar = Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar, backend(engine if work else "threads", jobs):
        task = bar.add_task(name, total=len(work))
        return_as = "list" if engine == "ray" else "generator_unordered"  # Ray's back end tells of all at the end
        for result in joblib.Parallel(return_as=return_as)(work):
            bar.advance(task)
            yield result


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"--engine={package} needs {package}: python -m pip install 'imgclf[{package}]'.") from None
