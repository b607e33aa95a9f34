"""Pixel operations: Pillow's results to one grey level, and what every operation keeps."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image, ImageEnhance, ImageOps

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.augment import PIXELS, Draw, pixels, policies, view_rng
from imgclf.data.augment.pixels import Operation
from imgclf.errors import UserError

quick = settings(deadline=None, derandomize=True, max_examples=25)
images = st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)))
narrow = images.map(lambda image: (image // 5 + 90).astype(np.uint8))  # what equalize and autocontrast are for

# operation → (an amount without effect, or None, and one with)
AMOUNTS = {
    "brightness": (1.0, 1.6),
    "contrast": (1.0, 0.3),
    "color": (1.0, 0.2),
    "sharpness": (1.0, 1.9),
    "clahe": (None, 3.0),
    "posterize": (8, 3),
    "solarize": (256, 100),
    "invert": (None, 0.0),
    "equalize": (None, 0.0),
    "autocontrast": (None, 0.0),
    "blur": (0.0, 1.3),
    "noise": (0.0, 20.0),
    "jpeg": (None, 30),
}
FIELDS = {
    "equalize": 0.5,
    "autocontrast": 0.5,
    "posterize": 4,
    "solarize": 0.5,
    "sharpness": 0.9,
    "blur": 2.0,
    "noise": 20.0,
    "jpeg": 70,
    "clahe": 4.0,
}


def picture(h: int = 40, w: int = 50) -> np.ndarray:
    """Smooth, with an edge, a little dull, and coloured."""
    y, x = np.mgrid[:h, :w]
    image = np.stack([40 + 150 * y / h, 60 + 120 * x / w, 90 + 60 * (x > y)], -1)
    return image.astype(np.uint8)


def config(**fields) -> SimpleNamespace:
    return SimpleNamespace(**(default_config().augment.to_dict() | fields))


def apart(ours: np.ndarray, pillow: Image.Image) -> int:
    return int(np.abs(ours.astype(int) - np.asarray(pillow)).max())


@quick
@given(image=images | narrow, factor=st.floats(0, 2), bits=st.integers(1, 8), threshold=st.integers(0, 256))
def test_pillow_gives_the_same_to_one_grey_level(image, factor, bits, threshold):
    pillow = Image.fromarray(image)
    for ours, enhance in (
        (pixels.brightness, ImageEnhance.Brightness),
        (pixels.contrast, ImageEnhance.Contrast),
        (pixels.color, ImageEnhance.Color),
        (pixels.sharpness, ImageEnhance.Sharpness),
    ):
        assert apart(ours(image, factor), enhance(pillow).enhance(factor)) <= 1, ours.__name__
    assert apart(pixels.posterize(image, bits), ImageOps.posterize(pillow, bits)) == 0
    assert apart(pixels.solarize(image, threshold), ImageOps.solarize(pillow, threshold)) == 0
    assert apart(pixels.invert(image), ImageOps.invert(pillow)) == 0
    assert apart(pixels.autocontrast(image), ImageOps.autocontrast(pillow)) <= 1
    assert apart(pixels.equalize(image), ImageOps.equalize(pillow)) == 0


def test_equalize_of_many_pixels_is_pillows():
    """Below 255 pixels beside the brightest it does nothing."""
    image = np.random.default_rng(0).normal(120, 20, (70, 60, 3)).clip(0, 255).astype(np.uint8)
    image[..., 2] = 77
    ours = pixels.equalize(image)
    assert apart(ours, ImageOps.equalize(Image.fromarray(image))) == 0
    assert ours[..., 0].std() > 60
    assert (ours[..., 2] == 77).all()


@pytest.mark.parametrize("name", AMOUNTS)
def test_an_operation_keeps_shape_and_type_its_input_and_its_result(name):
    without, amount = AMOUNTS[name]
    image = picture()
    before = image.copy()
    first, again = (pixels.apply(image, (Operation(name, amount, seed=3),)) for _ in range(2))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, again)
    assert (first.shape, first.dtype) == (image.shape, np.uint8)
    assert (first != image).any()
    if without is not None:
        assert pixels.apply(image, (Operation(name, without, seed=3),)) is image


@quick
@given(image=images)
def test_what_undoes_itself(image):
    np.testing.assert_array_equal(pixels.invert(pixels.invert(image)), image)
    np.testing.assert_array_equal(pixels.solarize(image, 0), pixels.invert(image))
    once = pixels.posterize(image, 3)
    np.testing.assert_array_equal(pixels.posterize(once, 3), once)
    once = pixels.autocontrast(image)
    np.testing.assert_allclose(pixels.autocontrast(once), once.astype(int), atol=1)


def test_operations_follow_in_their_order():
    image = picture()
    both = pixels.apply(image, (Operation("invert"), Operation("posterize", 2)))
    np.testing.assert_array_equal(both, pixels.posterize(255 - image, 2))
    assert (both != 255 - pixels.posterize(image, 2)).any()


def test_blur_is_gaussian_and_keeps_the_mean():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    image[:, :, 1] = 99
    out = pixels.blur(image, 1.0)
    y, x = np.mgrid[-20:21, -20:21]
    np.testing.assert_allclose(out[..., 0], 255 * np.exp(-(y**2 + x**2) / 2) / (2 * np.pi), atol=1)
    assert (out[..., 1] == 99).all()


def test_noise_is_normal_and_differs_by_seed_channel_and_pixel():
    grey = np.full((200, 150, 3), 128, np.uint8)
    first, second = (pixels.noise(grey, 10.0, seed).astype(float) - 128 for seed in (1, 2))
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 10) < 0.1
    assert abs((np.abs(first) < 10.5).mean() - 0.706) < 0.01  # the normal distribution's share within 1.05 σ
    for other in (second, first[..., [1, 2, 0]], np.roll(first, 1, 0), np.roll(first, 1, 1)):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02
    assert pixels.noise(np.full((9, 9, 3), 255, np.uint8), 50.0, 0).min() < 255  # ends at white, and does not wrap to black
    assert pixels.noise(np.full((9, 9, 3), 255, np.uint8), 50.0, 0).min() > 50


def test_clahe_raises_local_contrast_and_keeps_hue():
    wave = 100 + 20 * np.sin(np.arange(256) / 7)
    image = np.repeat((wave[:, None] + 30 * (np.arange(256) > 128))[:, :, None], 3, axis=2).astype(np.uint8)
    strong, weak = pixels.clahe(image, 4.0), pixels.clahe(image, 1.5)
    spread = [part[32:-32, 160:224].std() for part in (image, weak, strong)]
    assert spread[0] < spread[1] < spread[2]
    assert np.ptp(strong.astype(int), axis=2).max() <= 2  # grey stays grey


def test_jpeg_loses_more_at_lower_quality_and_keeps_the_channels():
    image = picture(64, 64)
    lost = [np.abs(pixels.jpeg(image, quality).astype(int) - image).mean() for quality in (95, 50, 5)]
    assert lost[0] < lost[1] < lost[2]
    assert lost[0] < 2


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_is_drawn_and_only_its_own_changes(field):
    """Of 200 views: strengths over their whole range, nothing of the other fields, and not neutral."""
    fields = config(**{field: FIELDS[field]})
    assert not augment.is_neutral(fields)
    drawn = [pixels.draw(view_rng(0, str(n), 0, PIXELS), fields) for n in range(200)]
    everything = [pixels.draw(view_rng(0, str(n), 0, PIXELS), config(**FIELDS)) for n in range(200)]
    assert {operation.name for operations in drawn for operation in operations} == {field}
    for alone, among in zip(drawn, everything, strict=True):
        assert set(alone) <= set(among)  # the other fields leave the draw as it was
    amounts = [operation.amount for operations in drawn for operation in operations]
    if field in ("equalize", "autocontrast", "solarize"):
        assert 75 < len(amounts) < 125
    else:
        low, high = {"clahe": (1, 4), "posterize": (4, 8), "sharpness": (0.1, 1.9), "blur": (0, 2), "noise": (0, 20), "jpeg": (30, 99)}[
            field
        ]
        assert low <= min(amounts) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(amounts) <= high


@pytest.mark.parametrize(
    ("field", "value", "expected"), [("jpeg", 100, "between 0 and 99"), ("blur", -1.0, "0 or more"), ("solarize", 1.5, "0 and 1")]
)
def test_values_out_of_range_are_refused_by_name(field, value, expected):
    settings = default_config()
    settings.augment[field] = value
    with pytest.raises(UserError, match=rf"config\.augment\.{field}={value}.*{expected}"):
        policies.check(settings)


def test_places_in_the_stream_are_given_once_and_in_turn():
    assert sorted(field.place for field in pixels.FIELDS) == list(range(len(pixels.FIELDS)))
    assert [field.name for field in sorted(pixels.FIELDS, key=lambda field: field.place)][:8] == list(FIELDS)[:8]


def test_pixel_operations_follow_the_resample_and_leave_geometry_as_it_was():
    image, geometry = picture(60, 80), {"flip": 0.5, "rotate": 30.0}
    for n in range(8):
        plain = augment.draw(view_rng(0, str(n), 1), config(**geometry))
        drawn = augment.draw(view_rng(0, str(n), 1), config(**geometry, **FIELDS))
        assert (drawn.flip, drawn.rotate) == (plain.flip, plain.rotate)
        expected = pixels.apply(augment.render(image, plain, (32, 32)), drawn.pixels)
        np.testing.assert_array_equal(augment.render(image, drawn, (32, 32)), expected)
    assert Draw().pixels == ()
