"""Views by the one matrix: exactness where it is promised, and the published semantics."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import EVERYTHING, augmentation, noise, smooth

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import Draw

quick = settings(deadline=None, derandomize=True, max_examples=40)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
degrees = st.floats(-180, 180)
shares = st.floats(-0.4, 0.4)
zooms = st.floats(0.5, 2.0)
affine_draws = st.builds(
    Draw,
    flip=st.booleans(),
    vertical_flip=st.booleans(),
    rotate=degrees,
    shift=st.tuples(shares, shares),
    shear=st.floats(-30, 30),
    zoom=st.tuples(zooms, zooms),
)


@quick
@given(size=sizes, resize=st.sampled_from(augment.RESIZE_MODES))
def test_neutral_view_at_the_same_size_is_the_image(size, resize):
    image = noise(*size)
    out = augment.view(image, size, resize, default_config().augment, augment.view_rng(0, "a", 0))
    np.testing.assert_array_equal(out, image)
    assert not np.may_share_memory(out, image)


@quick
@given(
    in_size=sizes,
    out_size=sizes,
    resize=st.sampled_from(augment.RESIZE_MODES),
    fill=st.sampled_from(list(augment.BORDERS)),
    n=st.integers(),
)
def test_every_view_has_its_size_and_is_redrawn_exactly(in_size, out_size, resize, fill, n):
    image, fields = noise(*in_size), augmentation(**EVERYTHING, fill=fill)
    first, again = (augment.view(image, out_size, resize, fields, augment.view_rng(1, str(n), 3), crop_fraction=0.9) for _ in range(2))
    assert first.shape == (*out_size, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


@quick
@given(size=sizes, resize=st.sampled_from(augment.RESIZE_MODES), value=st.integers(0, 255), n=st.integers(0, 9))
def test_a_constant_image_stays_constant(size, resize, value, n):
    image = np.full((17, 23, 3), value, np.uint8)
    fields = augmentation(**EVERYTHING, fill="constant", fill_value=value)
    out = augment.view(image, size, resize, fields, augment.view_rng(0, str(n), 0))
    assert (out == value).all()


@quick
@given(size=sizes, vertical=st.booleans())
def test_flip_of_flip_is_the_image(size, vertical):
    drawn = Draw(flip=not vertical, vertical_flip=vertical)
    image = noise(*size)
    once = augment.render(image, drawn, size)
    np.testing.assert_array_equal(once, image[::-1] if vertical else image[:, ::-1])
    np.testing.assert_array_equal(augment.render(once, drawn, size), image)


@pytest.mark.parametrize("size", [(16, 16), (15, 15)])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_right_angles_are_exact(size, quarters):
    """The corrected centre, size/2 - 0.5: with the old one a quarter turn moves the image by a pixel."""
    image = noise(*size)
    drawn = Draw(rotate=-90.0 * quarters)  # counter-clockwise, as rot90
    np.testing.assert_array_equal(augment.render(image, drawn, size, fill="constant"), np.rot90(image, quarters))


@quick
@given(drawn=affine_draws, size=sizes)
def test_matrix_fixes_the_centre_and_is_invertible(drawn, size):
    centred = Draw(rotate=drawn.rotate, shear=drawn.shear, zoom=drawn.zoom, flip=drawn.flip)
    to_input = augment.matrix(centred, size, size)
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
    np.testing.assert_allclose(to_input @ centre, centre, atol=1e-9)
    whole = augment.matrix(drawn, size, size)
    np.testing.assert_allclose(np.linalg.inv(whole) @ whole, np.eye(3), atol=1e-8)


@quick
@given(rotate=st.floats(-60, 60))
def test_a_turn_and_its_inverse_compose_to_nothing(rotate):
    there, back = (augment.matrix(Draw(rotate=angle), (31, 31), (31, 31)) for angle in (rotate, -rotate))
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-9)
    turned = augment.render(smooth(31, 31), Draw(rotate=rotate), (31, 31))
    restored = augment.render(turned, Draw(rotate=-rotate), (31, 31))
    inner = np.s_[11:20, 11:20]
    assert np.abs(restored[inner].astype(int) - smooth(31, 31)[inner]).max() <= 3


@quick
@given(drawn=affine_draws, height=st.integers(2, 60), width=st.integers(2, 60))
def test_matrix_is_keras_affine_with_the_corrected_centre(drawn, height, width):
    """Against ImageDataGenerator's own composition on (row, column), its centre at size/2 - 0.5."""
    size = height, width
    turn, shear = math.radians(drawn.rotate), math.radians(drawn.shear)
    rotation = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    shift = np.array([[1, 0, drawn.shift[0] * height], [0, 1, drawn.shift[1] * width], [0, 0, 1]])
    sheared = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([*drawn.zoom, 1.0])
    offset = np.array([[1, 0, height / 2 - 0.5], [0, 1, width / 2 - 0.5], [0, 0, 1]])
    expected = offset @ rotation @ shift @ sheared @ zoom @ np.linalg.inv(offset)
    unflipped = Draw(rotate=drawn.rotate, shift=drawn.shift, shear=drawn.shear, zoom=drawn.zoom)
    swap = np.eye(3)[[1, 0, 2]]
    np.testing.assert_allclose(augment.matrix(unflipped, size, size), swap @ expected @ swap, atol=1e-8)


def test_zoom_above_one_zooms_out_along_its_own_axis():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 255
    out = augment.render(image, Draw(zoom=(2.0, 1.0)), (40, 40), fill="constant")[..., 0] > 127
    assert out.any(1).sum() == 10  # rows
    assert out.any(0).sum() == 20  # columns


def test_shear_is_in_degrees():
    barely, visibly = (np.abs(augment.matrix(Draw(shear=angle), (100, 100), (100, 100)) - np.eye(3)).max() for angle in (0.2, 20.0))
    assert barely < 0.2  # pixels: S0's shear_range=0.2 does nothing
    assert visibly > 10


def test_shift_moves_by_shares_of_height_and_width():
    image = noise(20, 40)
    out = augment.render(image, Draw(shift=(0.25, -0.1)), (20, 40), fill="constant", fill_value=9)
    np.testing.assert_array_equal(out[:15, 4:], image[5:, :36])
    assert (out[15:] == 9).all()
    assert (out[:, :4] == 9).all()


@quick
@given(share=st.floats(0, 1), n=st.integers(0, 10_000), height=st.integers(2, 60), width=st.integers(2, 60))
def test_perspective_moves_the_corners_inwards_and_keeps_the_horizon_out_of_view(share, n, height, width):
    """torchvision's RandomPerspective: the picture's corners come to lie anywhere within so large a share of their quarter."""
    drawn = augment.draw(augment.view_rng(n, "a", 0), augmentation(perspective=share))
    to_input = augment.matrix(drawn, (height, width), (height, width))
    right, bottom = width - 1, height - 1
    corners = np.array([[0, right, right, 0], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    moved = np.linalg.inv(to_input) @ corners
    inwards = np.abs((moved / moved[2] - corners)[:2]) / [[max(1, right) / 2], [max(1, bottom) / 2]]
    assert inwards.max() <= share + 1e-5
    if share < 0.4:  # else the horizon could be in view
        np.testing.assert_allclose(inwards.T.ravel(), drawn.perspective, atol=1e-5)
    depth = to_input[2] @ corners
    assert depth.min() > 0.05 * depth.max() > 0
    np.testing.assert_allclose(to_input @ np.linalg.inv(to_input), np.eye(3), atol=1e-6)


def test_perspective_has_torchvisions_coefficients():
    """`_get_perspective_coeffs`: least squares for the map from the moved to the old corners, in the same order."""
    h, w = 41, 61
    start = np.array([(0, 0), (w - 1, 0), (w - 1, h - 1), (0, h - 1)], float)
    end = np.array([(9, 3), (w - 1 - 6, 8), (w - 1, h - 1 - 5), (12, h - 1)], float)
    rows = [[x, y, 1, 0, 0, 0, -u * x, -u * y] for (x, y), (u, _) in zip(end, start, strict=True)]
    rows += [[0, 0, 0, x, y, 1, -v * x, -v * y] for (x, y), (_, v) in zip(end, start, strict=True)]
    expected = np.append(np.linalg.lstsq(np.array(rows), start.T.ravel(), rcond=None)[0], 1).reshape(3, 3)
    inwards = np.abs(end - start) / [(w - 1) / 2, (h - 1) / 2]
    found = augment.matrix(Draw(perspective=tuple(inwards.ravel())), (h, w), (h, w))
    np.testing.assert_allclose(found / found[2, 2], expected, atol=1e-5)


def test_one_zoom_for_both_axes():
    for n in range(20):
        joint, apart = (augment.draw(augment.view_rng(n, "a", 0), augmentation(zoom=(0.5, 2.0), zoom_joint=j)).zoom for j in (True, False))
        assert joint[0] == joint[1] == apart[0] != apart[1]
