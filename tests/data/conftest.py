from pathlib import Path

import pytest
from pictures import save


@pytest.fixture
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own for a test: `pytestmark = pytest.mark.usefixtures("cache")`."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IMGCLF_CACHE", str(folder))
    return folder


@pytest.fixture
def two_classes(tmp_path) -> Path:
    root = tmp_path / "photos"
    for row, name in enumerate(("cat/b.jpg", "cat/deep/er/a.png", "dog/a.jpg", "dog/c.gif")):
        save(root / name, row)
    return root
