"""Fixtures for all tests. Nothing here touches the network; what needs the shared real data skips where it is absent."""

import atexit
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

pytest_plugins = ["durations"]

# The same cases at every run: a test that fails has found something that the last change did.
hypothesis.settings.register_profile("deterministic", derandomize=True)
hypothesis.settings.load_profile("deterministic")

# Before JAX starts: one cache of compiled programs for the whole session and its subprocesses, apart from the user's.
if "IMGCLF_CACHE" not in os.environ:
    _cache = os.environ["IMGCLF_CACHE"] = tempfile.mkdtemp(prefix="imgclf-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.environ["IMGCLF_CACHE"], "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tests start many processes, each of which would compile all of imgclf's modules anew where Python is told to keep none.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# LLVM gets each program whole: for small ones that is less work than its parts are. XLA ends at flags that it doesn't know.
if "XLA_FLAGS" not in os.environ and importlib.metadata.version("jaxlib").startswith(("0.10.", "0.12.")):
    os.environ["XLA_FLAGS"] = "--xla_cpu_parallel_codegen_split_count=1"


def pytest_configure(config: pytest.Config) -> None:
    """Programs of the fast tests are compiled without LLVM's optimisation, which takes longer than the few steps it would speed up.

    XLA's own passes are the same. The slow tests, the quick start and the benchmarks run what users run.
    """
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    given = os.environ.get("XLA_FLAGS", "")  # workers have those of the process that started them
    if config.getoption("markexpr") == "not slow" and "jax" not in sys.modules and flags not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flags}".strip()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores: many tests wait for the processes, servers and signals that they are about."""
    del config
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) + 1


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the checkout."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("the shared real data are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Callable[[str], str]:
    """Returns `config.model.weights` of a file of random weights for one of the small models; see tests/models/tiny_weights.py."""
    if (folder := str(Path(__file__).parent / "models")) not in sys.path:
        sys.path.append(folder)
    import tiny_weights

    files = tmp_path_factory.mktemp("weights")
    return lambda model: tiny_weights.save(model, files / f"{model}.safetensors")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def color_folder(tmp_path_factory) -> Path:
    """Labeled pictures of three colours; see color_images.py."""
    import color_images

    return color_images.write_folder(tmp_path_factory.mktemp("data") / "image")


@pytest.fixture(scope="session")
def color_classifier(tmp_path_factory, color_folder) -> tuple[Any, tuple[Any, Any]]:
    """A probe on an untrained backbone, and the two parts of the pictures: 60 that it was created from, and 15."""
    import color_images

    import imgclf

    parts = imgclf.load_images(color_folder, verbose=False).split(0.8, seed=2, verbose=False)
    workdir = tmp_path_factory.mktemp("runs") / "run"
    options = {"model": "mobilenet_v2_tiny", "method": "probe", "config": color_images.QUICK, "verbose": False}
    return imgclf.create(parts[0], workdir=workdir, **options), parts
