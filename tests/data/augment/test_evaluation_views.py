"""What evaluation shows of an image: the plain view, other framings, and their mirror images."""

import numpy as np
import pytest
from pictures import noise

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import Preprocessing


def shown_by(views, size=(224, 224), resize="crop", fraction=0.875, interpolation="bilinear"):
    config = default_config()
    config.data.image_size, config.data.resize, config.data.crop_fraction = size, resize, fraction
    config.data.interpolation, config.eval.views = interpolation, views
    return Preprocessing.of(config)


@pytest.mark.parametrize("views", augment.VIEWS)
@pytest.mark.parametrize("resize", augment.RESIZE_MODES)
def test_the_first_view_is_the_plain_one_and_all_have_the_size_of_the_input(views, resize):
    preprocessing, image = shown_by(views, (20, 30), resize), noise(50, 41)
    shown = preprocessing.shown(image)
    assert shown.shape == preprocessing.shape
    assert shown.dtype == np.uint8
    several = shown if shown.ndim == 4 else shown[None]
    np.testing.assert_array_equal(several[0], augment.view(image, (20, 30), resize, crop_fraction=0.875))
    assert len({view.tobytes() for view in several}) == len(several) == {"plain": 1, "flip": 2, "framings": 4, "crops": 6}[views]


@pytest.mark.parametrize("interpolation", augment.INTERPOLATIONS)
def test_a_mirror_image_is_the_mirror_image_to_the_bit(interpolation):
    plain, mirrored = shown_by("flip", (48, 64), interpolation=interpolation).shown(noise(90, 131))
    np.testing.assert_array_equal(plain[:, ::-1], mirrored)


@pytest.mark.parametrize(
    ("plain", "others"),
    [
        (("crop", 0.875), [("crop", 1.0), ("squash", 1.0)]),
        (("crop", 0.95), [("crop", 1.0), ("squash", 1.0)]),
        (("crop", 1.0), [("squash", 1.0), ("crop", 0.875)]),
        (("squash", 1.0), [("crop", 1.0), ("crop", 0.875)]),
        (("pad", 1.0), [("crop", 1.0), ("squash", 1.0)]),
    ],
)
@pytest.mark.parametrize("interpolation", augment.INTERPOLATIONS)
def test_crops_are_three_framings_and_their_mirror_images(plain, others, interpolation):
    image = noise(80, 121)
    shown = shown_by("crops", (32, 32), *plain, interpolation).shown(image)
    for number, (resize, fraction) in enumerate([plain, *others]):
        expected = augment.view(image, (32, 32), resize, crop_fraction=fraction, interpolation=interpolation)
        np.testing.assert_array_equal(shown[2 * number], expected)
        np.testing.assert_array_equal(shown[2 * number + 1], expected[:, ::-1])


@pytest.mark.parametrize(
    ("plain", "other"),
    [(("crop", 0.875), ("squash", 1.0)), (("squash", 1.0), ("crop", 0.875)), (("pad", 1.0), ("squash", 1.0))],
)
def test_framings_are_the_plain_one_and_all_of_the_image_and_their_mirror_images(plain, other):
    assert shown_by("framings", (32, 32), *plain).evaluation == tuple((*one, flip) for one in (plain, other) for flip in (False, True))


def test_the_least_size_enlarges_no_view():
    assert shown_by("plain").least_size == shown_by("crops").least_size == (256, 256)
    assert shown_by("plain", fraction=1.0).least_size == (224, 224)
    assert shown_by("crops", fraction=1.0).least_size == (256, 256)
    assert shown_by("flip", (20, 30), "squash", 1.0).least_size == (20, 30)
