"""The one resample: agreement with the matrix, antialiasing, resize modes, fills, margins and reduced decodes."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import augmentation, noise, smooth
from PIL import Image

from imgclf.data import augment
from imgclf.data.augment import Draw

quick = settings(deadline=None, derandomize=True, max_examples=40)


@quick
@given(
    in_size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    out_size=st.tuples(st.integers(30, 50), st.integers(30, 50)),
    resize=st.sampled_from(augment.RESIZE_MODES),
    flips=st.tuples(st.booleans(), st.booleans()),
    offset=st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
    fill=st.sampled_from(["nearest", "constant"]),
)
def test_direct_path_is_the_matrix(in_size, out_size, resize, flips, offset, fill):
    """Enlarging, both are bilinear: the direct resize and the warp by the public matrix show the same picture."""
    in_size = min(in_size[0], out_size[0]), min(in_size[1], out_size[1])
    image, drawn = smooth(*in_size), Draw(flip=flips[0], vertical_flip=flips[1], offset=offset)
    direct = augment.render(image, drawn, out_size, resize, fill=fill)
    to_input = augment.matrix(drawn, in_size, out_size, resize)
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, augment.BORDERS["nearest"]
    warped = cv2.warpAffine(image, to_input[:2], out_size[::-1], flags=flags, borderMode=border)
    x, y, _ = np.einsum(
        "ij,jhw->ihw", to_input, np.stack([*np.meshgrid(np.arange(out_size[1]), np.arange(out_size[0])), np.ones(out_size)])
    )
    inside = (x >= 0) & (y >= 0) & (x <= in_size[1] - 1) & (y <= in_size[0] - 1)
    assert np.abs(direct[inside].astype(int) - warped[inside]).max(initial=0) <= 2
    if fill == "nearest":
        assert np.abs(direct.astype(int) - warped).max() <= 2


@pytest.mark.parametrize("out_size", [(224, 224), (128, 128), (200, 150), (32, 32)])
def test_shrinking_is_antialiased(out_size):
    """Close to Pillow's antialiased resize on a picture with detail, where a plain bilinear one is far off."""
    y, x = np.mgrid[:533, :400]
    detail = 60 * np.sin(x / 1.7) * np.cos(y / 2.3)
    image = np.clip(smooth(533, 400) * 0.5 + 64 + detail[..., None], 0, 255).astype(np.uint8)
    pillow = np.asarray(Image.fromarray(image).resize(out_size[::-1], Image.Resampling.BILINEAR)).astype(int)
    plain = cv2.resize(image, out_size[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    ours = augment.view(image, out_size, "squash").astype(int)
    turned = augment.render(image, Draw(rotate=1e-9), out_size).astype(int)  # the general path
    limit = 0.6 * np.abs(plain - pillow).mean()
    assert np.abs(ours - pillow).mean() < limit
    assert np.abs(turned - pillow).mean() < limit


def test_a_checkerboard_turned_and_shrunk_is_grey():
    image = np.repeat(((np.indices((400, 400)).sum(0) % 2) * 255).astype(np.uint8)[..., None], 3, -1)
    out = augment.render(image, Draw(rotate=33.0), (50, 50), fill="reflect")
    assert np.abs(out.astype(int) - 127).max() <= 16


def test_enlarging_a_digit_is_bilinear():
    image = noise(8, 8)
    np.testing.assert_array_equal(augment.view(image, (32, 32)), cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR))


def test_resize_modes_on_a_wide_image():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :50, 0] = image[:, 150:, 0] = 255  # red wings
    image[:, 50:150, 1] = 255  # green centre square
    fields = augmentation(fill="constant", fill_value=7)
    red, green = np.array([255, 0, 0]), np.array([0, 255, 0])
    crop, squash, pad = (augment.view(image, (50, 50), mode, fields) for mode in ("crop", "squash", "pad"))
    assert (crop == green).all()
    assert (squash[:, :12] == red).all()
    assert (squash[:, 14:36] == green).all()
    assert (pad[:12] == 7).all()
    assert (pad[38:] == 7).all()
    assert (pad[14:36, :12] == red).all()
    tall = augment.view(image, (200, 150), "pad", fields)
    assert tall.shape == (200, 150, 3)
    assert (tall[:62] == 7).all()


def test_crop_fraction_is_the_share_of_the_shorter_side():
    """0.875 is the centre 224 of 256."""
    image = noise(256, 300)
    np.testing.assert_array_equal(augment.view(image, (224, 224), "crop", crop_fraction=0.875), image[16:240, 38:262])


@pytest.mark.parametrize(
    ("fill", "expected"), [("nearest", [0, 0, 0, 1]), ("constant", [9, 9, 0, 1]), ("reflect", [1, 0, 0, 1]), ("wrap", [2, 3, 0, 1])]
)
def test_fill(fill, expected):
    image = np.repeat(np.arange(4, dtype=np.uint8)[None, :, None], 4, 0).repeat(3, -1)
    for drawn in (Draw(shift=(0.0, -0.5)), Draw(offset=(0, -2))):  # the warp and the direct path
        out = augment.render(image, drawn, (4, 4), fill=fill, fill_value=9)
        assert out[0, :, 0].tolist() == expected


def test_pad_crop_is_the_cifar_recipe():
    image, fields = noise(32, 32), augmentation(pad_crop=4, fill="constant")
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    places = set()
    for n in range(300):
        rng = augment.view_rng(0, str(n), 0)
        y, x = augment.draw(augment.view_rng(0, str(n), 0), fields).offset
        np.testing.assert_array_equal(augment.view(image, (32, 32), "squash", fields, rng), padded[y + 4 : y + 36, x + 4 : x + 36])
        places.add((y, x))
    assert {y for y, _ in places} == {x for _, x in places} == set(range(-4, 5))


def test_a_margin_is_retrain_pys_distortion():
    """Resized to int(size · (1 + crop) · scale), then cropped at a whole pixel; all places and scales are drawn."""
    image, fields = noise(60, 90), augmentation(margin_crop=0.1, margin_scale=0.2, flip=0.5)
    scales, places, flips = [], set(), 0
    for n in range(400):
        drawn = augment.draw(augment.view_rng(0, str(n), 0), fields)
        scale = drawn.margin[0]
        larger = cv2.resize(image, (int(40 * scale), int(32 * scale)), interpolation=cv2.INTER_AREA)
        found = augment.render(image, drawn, (32, 40))
        found = found[:, ::-1] if drawn.flip else found
        y, x = (int(u * (m - n + 1)) for u, m, n in zip(drawn.margin[1:], larger.shape[:2], (32, 40), strict=True))
        np.testing.assert_array_equal(found, larger[y : y + 32, x : x + 40])
        scales.append(scale)
        places.add((y, x))
        flips += drawn.flip
    assert 1.1 <= min(scales) < 1.11
    assert 1.31 < max(scales) <= 1.32
    assert abs(np.mean(scales) - 1.1 * 1.1) < 0.01  # uniform in 1.1 times 1 to 1.2
    assert len({y for y, _ in places}) >= 9
    assert 160 < flips < 240


@quick
@given(
    margin=st.tuples(st.floats(1, 2), st.floats(0, 0.99), st.floats(0, 0.99)),
    resize=st.sampled_from(["squash", "pad"]),
    flips=st.tuples(st.booleans(), st.booleans()),
)
def test_a_margin_is_in_the_matrix(margin, resize, flips):
    """The general path, taken with a turn by nothing to speak of, shows what the direct one does."""
    image, drawn = smooth(24, 40), Draw(flip=flips[0], vertical_flip=flips[1], margin=margin)
    direct, turned = (augment.render(image, view, (40, 50), resize) for view in (drawn, dataclasses.replace(drawn, rotate=1e-9)))
    assert np.abs(direct.astype(int) - turned).max() <= 2


def test_crop_that_never_fits_falls_back_to_the_centre():
    drawn = augment.draw(augment.view_rng(0, "a", 0), augmentation(crop_scale=(0.9, 0.95)))
    image = noise(30, 3000)
    np.testing.assert_array_equal(augment.render(image, drawn, (30, 40)), image[:, 1480:1520])


@pytest.mark.parametrize(
    "drawn",
    [
        Draw(),
        Draw(rotate=20.0),
        Draw(perspective=(0.2, 0.1) * 4),
        Draw(flip=True),
        Draw(crops=((0.5, 1.2, 0.3, 0.7),)),
        Draw(margin=(1.3, 0.4, 0.8)),
    ],
)
def test_a_reduced_decode_shows_the_same_view(drawn):
    image, size = smooth(801, 1203), (100, 130)
    factor = augment.reduction(drawn, image.shape[:2], size)
    assert factor in (2, 4, 8)
    smaller = cv2.resize(image, (math.ceil(1203 / factor), math.ceil(801 / factor)), interpolation=cv2.INTER_AREA)
    whole = augment.render(image, drawn, size, fill="reflect").astype(int)
    reduced = augment.render(smaller, drawn, size, fill="reflect", full_size=image.shape[:2]).astype(int)
    assert np.abs(whole - reduced).max() <= 3  # of 255 over the image: within half an output pixel


def test_no_reduction_below_what_is_shown():
    assert augment.reduction(Draw(), (400, 400), (224, 224)) == 1
    assert augment.reduction(Draw(), (448, 448), (224, 224)) == 2
    assert augment.reduction(Draw(), (448, 448), (224, 224), "crop", 0.875) == 1
    assert augment.reduction(Draw(crops=((0.1, 1.0, 0.5, 0.5),)), (448, 448), (224, 224)) == 1
    assert augment.reduction(Draw(), (8, 8), (32, 32)) == 1


def test_a_perspective_warp_reads_where_its_matrix_says():
    image, drawn = smooth(60, 80), Draw(perspective=(0.3, 0.1, 0.2, 0.3, 0.0, 0.2, 0.1, 0.1), flip=True, rotate=5.0)
    filled, found = (augment.render(image, drawn, (60, 80), fill=fill, fill_value=255) for fill in ("constant", "nearest"))
    places = augment.matrix(drawn, (60, 80), (60, 80)) @ np.stack([*np.indices((60, 80))[::-1].reshape(2, -1), np.ones(4800)])
    x, y = places[:2] / places[2]
    inside = (x >= 0) & (y >= 0) & (x <= 79) & (y <= 59)
    assert 0.5 < inside.mean() < 0.95
    expected = np.stack([255 * y / 59, 255 * x / 79], -1)
    assert np.abs(found.reshape(-1, 3)[inside, :2] - expected[inside]).max() <= 2.5  # the slopes are floored
    outside = (x < -3) | (y < -3) | (x > 82) | (y > 62)
    assert (filled.reshape(-1, 3)[outside] == 255).all()


def test_a_perspective_is_antialiased_where_it_shrinks():
    """The far side of a checkerboard is grey, where one bilinear sample per pixel would be black or white."""
    image = np.repeat(((np.indices((300, 300)).sum(0) % 2) * 255).astype(np.uint8)[..., None], 3, -1)
    drawn = Draw(perspective=(0.6, 0.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0))
    far = augment.render(image, drawn, (100, 100), fill="constant", fill_value=127)[:10, 40:60].astype(int)
    plain = cv2.warpPerspective(
        image, augment.matrix(drawn, (300, 300), (100, 100)), (100, 100), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )[:10, 40:60]
    assert np.abs(far - 127).mean() < 0.35 * np.abs(plain.astype(int) - 127).mean()
    assert np.abs(far - 127).mean() < 25


def test_a_perspective_of_nothing_to_speak_of_is_the_affine_warp():
    image = noise(50, 70)
    affine, perspective = (augment.render(image, Draw(rotate=10.0, perspective=(each,) * 8), (40, 40)) for each in (0.0, 1e-7))
    assert np.abs(affine.astype(int) - perspective).max() <= 1
