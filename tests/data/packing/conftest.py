"""A packing that ends in the middle."""

from collections.abc import Callable

import pytest

from imgclf.data.packing.forms import Form


@pytest.fixture
def photos_left(monkeypatch) -> Callable[[int], None]:
    """Called with a number, it lets so many more photos be packed before Ctrl-C."""
    store, left = Form.store, 0

    def ended(self, *asked):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return store(self, *asked)

    def set_left(count: int) -> None:
        nonlocal left
        left = count

    monkeypatch.setattr(Form, "store", ended)
    return set_left
