"""Images that fit a small network."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [5, 16, 16, 3]."""
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
