"""Fixtures for all tests. Nothing here touches the network; what needs the shared real data skips where it is absent."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Before JAX starts: one cache of compiled programs for the whole session and its subprocesses, apart from the user's.
if "IMGCLF_CACHE" not in os.environ:
    _cache = os.environ["IMGCLF_CACHE"] = tempfile.mkdtemp(prefix="imgclf-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.environ["IMGCLF_CACHE"], "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the checkout."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("the shared real data are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]
