"""Where joblib does work that several processes share: on this machine, or on a cluster that sees the same files."""

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from rich.console import Console

from imgclf import progress
from imgclf.errors import missing_extra


@contextlib.contextmanager
def backend(engine: str, jobs: int) -> Iterator[None]:
    """Makes `joblib.Parallel` use an engine within the block, and leaves nothing of it running.

    Args:
      engine: "threads" or "processes" of this machine; "ray", the cluster that RAY_ADDRESS names, or one that is started here; or "dask",
        the scheduler that DASK_SCHEDULER_ADDRESS names, or one that is started here.
      jobs: how many calls run at a time; a single process is this one.

    Raises:
      UserError: if the engine is not installed.
    """
    with contextlib.ExitStack() as stack:
        if engine == "processes" and jobs != 1:
            stack.callback(lambda: get_reusable_executor().shutdown())  # its processes would wait for more work
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
    """Yields the results of joblib's delayed calls as they come, under a progress bar.

    Args:
      work: the calls, made by `joblib.delayed`.
      engine: where they are done, with `jobs` at a time; see `backend`.
      name: what the bar calls the work.
      console: for the bar.
    """
    with progress.bar(console) as bar, backend(engine if work else "threads", jobs):
        task = bar.add_task(name, total=len(work))
        return_as = "list" if engine == "ray" else "generator_unordered"  # Ray's back end has all results at the end only
        for result in joblib.Parallel(return_as=return_as)(work):
            bar.advance(task)
            yield result


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise missing_extra(f"--engine={package}", package, package) from None
