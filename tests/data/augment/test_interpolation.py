"""The evaluation view of published weights: Pillow's bicubic resize and the centre crop, as timm has them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import noise, smooth
from PIL import Image

from imgclf.data import augment
from imgclf.data.augment import Draw

quick = settings(deadline=None, derandomize=True, max_examples=40)


def photo(height, width):
    """Smooth areas with edges and fine texture in them."""
    return np.where(smooth(height, width) > 120, smooth(height, width), noise(height, width) // 4 + 90).astype(np.uint8)


def published(image, side, fraction):
    """timm.data.create_transform(side, crop_pct=fraction, interpolation="bicubic"): torchvision's Resize and CenterCrop, by Pillow."""
    (h, w), shorter = image.shape[:2], math.floor(side / fraction)
    height, width = (shorter, int(shorter * w / h)) if h <= w else (int(shorter * h / w), shorter)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    top, left = round((height - side) / 2.0), round((width - side) / 2.0)
    return resized[top : top + side, left : left + side]


@quick
@given(st.integers(40, 400), st.integers(40, 400), st.integers(16, 96), st.sampled_from([0.875, 0.9, 0.95, 1.0]))
def test_bicubic_is_pillows_resize_and_centre_crop(height, width, side, fraction):
    """Mean below a grey level for any shape, fraction and side; the largest differences stand at edges, where two resizes round apart."""
    image = photo(height, width)
    ours = augment.view(image, (side, side), "crop", crop_fraction=fraction, interpolation="bicubic")
    difference = np.abs(ours.astype(int) - published(image, side, fraction))
    assert difference.mean() < 1
    assert difference.max() <= 24


def test_a_photo_at_the_size_of_the_resize_is_only_cut():
    image = noise(256, 341)
    view = augment.view(image, (224, 224), "crop", crop_fraction=0.875, interpolation="bicubic")
    np.testing.assert_array_equal(view, image[16:240, 58:282])


@pytest.mark.parametrize("resize", augment.RESIZE_MODES)
def test_bicubic_shows_what_bilinear_shows_more_sharply(resize):
    """The same part of a smooth picture to a few grey levels, for a wide output too; and another picture where there is texture."""
    for size in ((40, 40), (30, 64)):
        options = {"crop_fraction": 0.9, "fill": "constant"}
        views = [
            augment.render(smooth(150, 211), Draw(flip=True), size, resize, interpolation=how, **options) for how in augment.INTERPOLATIONS
        ]
        assert np.abs(views[0].astype(int) - views[1]).mean() < 3
    plain, sharp = (augment.view(noise(100, 100), (64, 64), resize, interpolation=how) for how in augment.INTERPOLATIONS)
    assert sharp.std() > plain.std()


def test_the_matrix_of_a_bicubic_crop_is_that_of_its_view():
    """A warp by an angle too small to be seen lands where the resize does, to the difference between the interpolations."""
    for height, width in ((90, 131), (131, 90)):
        options = {"crop_fraction": 0.875, "interpolation": "bicubic"}
        direct, turned = (
            augment.render(smooth(height, width), Draw(rotate=turn), (80, 80), "crop", **options).astype(int) for turn in (0.0, 1e-9)
        )
        assert np.abs(direct - turned).max() <= 2


def test_random_crops_do_not_change():
    drawn = Draw(crops=((0.5, 1.2, 0.3, 0.7),))
    views = [augment.render(noise(90, 120), drawn, (48, 48), "crop", interpolation=how) for how in augment.INTERPOLATIONS]
    np.testing.assert_array_equal(*views)


def test_a_reduced_decode_shows_the_same_bicubic_view():
    image = smooth(800, 1200)
    smaller = image.reshape(200, 4, 300, 4, 3).mean((1, 3)).round().astype(np.uint8)
    options = {"resize": "crop", "crop_fraction": 0.875, "interpolation": "bicubic"}
    whole, reduced = (augment.render(each, Draw(), (100, 100), full_size=(800, 1200), **options).astype(int) for each in (image, smaller))
    assert np.abs(whole - reduced).max() <= 2


def test_a_single_pixel_enlarges():
    assert (augment.view(np.full((1, 1, 3), 7, np.uint8), (8, 8), "crop", crop_fraction=0.875, interpolation="bicubic") == 7).all()
