"""Colour as one matrix: torchvision's adjustments and DALI's hue, and nothing at strength 0."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import color
from imgclf.data.augment.color import Color

LUMA = np.array([0.299, 0.587, 0.114])
quick = settings(max_examples=25, deadline=None)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def applied(drawn: Color, image: np.ndarray) -> np.ndarray:
    """float64, not clipped."""
    affine = color.matrix(drawn, image).astype(np.float64)
    return image @ affine[:, :3].T + affine[:, 3]


def fields(**changed) -> SimpleNamespace:
    return SimpleNamespace(**(default_config().augment.to_dict() | changed))


def test_nothing_is_the_identity():
    np.testing.assert_array_equal(color.matrix(Color(), noise()), color.IDENTITY)
    np.testing.assert_array_equal(color.apply(noise(), color.IDENTITY), noise())
    assert augment.draw(augment.view_rng(0, "a", 0), fields(flip=0.5)).color is None


@quick
@given(factor=st.floats(0, 2), seed=st.integers(0, 5))
def test_brightness_contrast_and_saturation_are_torchvisions(factor, seed):
    """torchvision.transforms.v2.functional: blends with black, the mean of the grey image, and the grey image."""
    image = noise(seed)
    grey = image @ LUMA
    for drawn, other in (
        (Color(brightness=factor), np.zeros_like(image)),
        (Color(contrast=factor), np.full(image.shape, grey.mean())),
        (Color(saturation=factor), np.repeat(grey[..., None], 3, axis=2)),
    ):
        np.testing.assert_allclose(applied(drawn, image), factor * image + (1 - factor) * other, atol=1e-3)


@quick
@given(hue=st.floats(-180, 180), saturation=st.floats(0, 2))
def test_hue_and_saturation_leave_grey_and_luma(hue, saturation):
    drawn = Color(hue=hue, saturation=saturation)
    np.testing.assert_allclose(applied(drawn, noise()) @ LUMA, noise() @ LUMA, atol=1e-3)
    grey = np.full((2, 2, 3), 77, np.uint8)
    np.testing.assert_allclose(applied(drawn, grey), grey, atol=1e-3)


def test_hue_turns_and_turns_back():
    there, back = (color.matrix(Color(hue=hue), noise())[:, :3].astype(float) for hue in (50.0, -50.0))
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-5)
    # DALI's matrix for 90 degrees in YIQ: I and Q, the chroma's axes, change places.
    expected = color._FROM_YIQ @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ color._TO_YIQ
    np.testing.assert_allclose(color.matrix(Color(hue=90.0), noise())[:, :3], expected, atol=1e-5)
    assert np.abs(there - np.eye(3)).max() > 0.3


def test_grayscale_has_no_colour_and_the_order_is_contrast_then_brightness():
    out = applied(Color(grayscale=True, saturation=1.7, contrast=0.5, brightness=0.8), noise())
    grey = noise() @ LUMA
    np.testing.assert_allclose(out, np.repeat((0.8 * (0.5 * grey + 0.5 * grey.mean()))[..., None], 3, axis=2), atol=1e-3)


def test_draws_fill_their_ranges_and_leave_the_geometry():
    wanted = fields(brightness=0.3, contrast=0.2, saturation=1.0, hue=30.0, grayscale=0.25, rotate=10.0)
    drawn = [augment.draw(augment.view_rng(0, str(n), 3), wanted) for n in range(400)]
    for name, middle, width in (("brightness", 1, 0.3), ("contrast", 1, 0.2), ("saturation", 1, 1.0), ("hue", 0, 30.0)):
        values = np.array([getattr(view.color, name) for view in drawn])
        assert np.abs(values - middle).max() <= width
        assert values.max() - values.min() > 1.95 * width
        assert abs(values.mean() - middle) < 0.1 * width
    assert np.mean([view.color.grayscale for view in drawn]) == pytest.approx(0.25, abs=0.06)
    plain = fields(rotate=10.0)
    assert [view.rotate for view in drawn] == [augment.draw(augment.view_rng(0, str(n), 3), plain).rotate for n in range(400)]


def test_written_copies_are_rounded_and_end_at_white():
    drawn = Color(brightness=1.4, contrast=0.7, hue=20.0)
    expected = np.clip(np.rint(applied(drawn, noise())), 0, 255)
    assert np.abs(color.apply(noise(), color.matrix(drawn, noise())) - expected).max() <= 1  # at halves
    assert expected.max() == 255
