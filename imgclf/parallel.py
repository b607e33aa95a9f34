"""Where joblib runs what several processes share: here, or on a cluster that sees the same files."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from types import ModuleType

import joblib
from joblib.externals.loky import get_reusable_executor

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


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"--engine={package} needs {package}: python -m pip install 'imgclf[{package}]'.") from None
