"""Fixtures for all tests. Nothing here touches the network; what needs the shared real data skips where it is absent."""

import os
import tempfile
from pathlib import Path

import pytest

# Before JAX starts: one cache of compiled programs for the whole session and its subprocesses, apart from the user's.
os.environ.setdefault("IMGCLF_CACHE", tempfile.mkdtemp(prefix="imgclf-tests-"))


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
