"""The overlay: colours by sign, strength by size."""

import io

import numpy as np
from PIL import Image

from imgclf.explanation import overlay


def test_what_speaks_for_the_class_is_orange_and_what_speaks_against_it_is_blue():
    over = overlay.layer(np.array([[2.0, -1.0]], np.float32), (8, 16))
    assert over.shape == (8, 16, 4)
    assert over.dtype == np.uint8
    assert tuple(over[0, 0, :3]) == overlay.FOR
    assert tuple(over[0, -1, :3]) == overlay.AGAINST
    assert over[0, 0, 3] == 204  # the strongest
    assert over[0, -1, 3] == 102  # half of it


def test_maps_of_one_scale_can_be_compared():
    weak = overlay.layer(np.full((2, 2), 0.5, np.float32), (4, 4), scale=1.0)
    assert (weak[..., 3] == 102).all()
    assert overlay.scale_of(np.zeros((2, 2))) > 0


def test_a_map_of_zeros_leaves_the_view_in_grey():
    view = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    shown = overlay.overlay(view, np.zeros((2, 2), np.float32))
    assert shown.shape == view.shape
    assert (shown[..., 0] == shown[..., 2]).all()
    assert np.asarray(Image.open(io.BytesIO(overlay.png(shown)))).tolist() == shown.tolist()
