"""The boxes of random erasing and cutout."""

from types import SimpleNamespace

import numpy as np
import pytest

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import erase


def boxes(size: tuple[int, int], count: int = 500, **fields) -> np.ndarray:
    wanted = SimpleNamespace(**(default_config().augment.to_dict() | fields))
    views = (augment.draw(augment.view_rng(0, str(n), 1), wanted) for n in range(count))
    return np.stack([erase.boxes(view.erase, wanted, size) for view in views])


def test_random_erasing_has_torchvisions_ranges():
    found = boxes((60, 90), erase=0.6, erase_area=(0.05, 0.3), erase_ratio=(0.5, 3.0))
    assert found.shape == (500, 1, 4)
    assert found.dtype == np.int32
    found = found[:, 0]
    some = found[found.any(axis=1)]
    assert len(some) / 500 == pytest.approx(0.6, abs=0.07)
    h, w = (some[:, 2:] - some[:, :2]).T
    assert some.min() >= 0
    assert (some[:, 2] <= 60).all()
    assert (some[:, 3] <= 90).all()
    share, ratio = h * w / 5400, h / w
    assert 0.045 <= share.min() < 0.08
    assert 0.27 < share.max() <= 0.31
    assert 0.46 <= ratio.min() < 0.6
    assert 2.3 < ratio.max() <= 3.1
    assert {some[:, 0].min(), some[:, 1].min()} == {0}  # every place can be had
    assert some[:, 2].max() == 60
    assert (found == boxes((60, 90), erase=0.6, erase_area=(0.05, 0.3), erase_ratio=(0.5, 3.0))[:, 0]).all()


def test_what_never_fits_is_not_erased():
    assert not boxes((20, 20), 50, erase=1.0, erase_area=(0.9, 1.0), erase_ratio=(3.0, 3.3)).any()


def test_cutout_is_a_square_around_any_place_cut_off_at_the_edges():
    found = boxes((20, 30), cutout=8)[:, 0]
    h, w = (found[:, 2:] - found[:, :2]).T
    assert h.max() == w.max() == 8
    assert h.min() == w.min() == 4  # DeVries: the centre lies in the image
    assert found.min() == 0
    assert found[:, 2].max() == 20
    assert found[:, 3].max() == 30


def test_both_are_two_boxes():
    both = boxes((24, 24), 30, erase=1.0, cutout=6)
    assert both.shape == (30, 2, 4)
    np.testing.assert_array_equal(both[:, :1], boxes((24, 24), 30, erase=1.0))  # each has its own draws
    np.testing.assert_array_equal(both[:, 1:], boxes((24, 24), 30, cutout=6))
