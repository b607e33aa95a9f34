"""Geometry: exactness where it is promised, agreement of the matrix with the direct path, and the published semantics."""

import dataclasses
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def smooth(h: int, w: int) -> np.ndarray:
    """An image on which bilinear interpolation is exact, up to rounding: linear in x and y."""
    y, x = np.mgrid[:h, :w]
    return np.stack([255 * y / max(1, h - 1), 255 * x / max(1, w - 1), 127 * (y / h + x / w)], -1).astype(np.uint8)


def config(**fields) -> SimpleNamespace:
    return SimpleNamespace(**(default_config().augment.to_dict() | fields))


EVERYTHING = {
    "crop_scale": (0.2, 1.0),
    "flip": 0.5,
    "vertical_flip": 0.5,
    "rotate": 40.0,
    "shift": (0.2, 0.1),
    "shear": 10.0,
    "zoom": (0.8, 1.2),
    "pad_crop": 3,
    "margin_crop": 0.2,
    "margin_scale": 0.3,
}


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
    image, fields = noise(*in_size), config(**EVERYTHING, fill=fill)
    first, again = (augment.view(image, out_size, resize, fields, augment.view_rng(1, str(n), 3), crop_fraction=0.9) for _ in range(2))
    assert first.shape == (*out_size, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


@quick
@given(size=sizes, resize=st.sampled_from(augment.RESIZE_MODES), value=st.integers(0, 255), n=st.integers(0, 9))
def test_a_constant_image_stays_constant(size, resize, value, n):
    image = np.full((17, 23, 3), value, np.uint8)
    fields = config(**EVERYTHING, fill="constant", fill_value=value)
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
    fields = config(fill="constant", fill_value=7)
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


@pytest.mark.parametrize(("fill", "expected"), [("nearest", [0, 0, 0, 1]), ("constant", [9, 9, 0, 1]), ("reflect", [1, 0, 0, 1])])
def test_fill(fill, expected):
    image = np.repeat(np.arange(4, dtype=np.uint8)[None, :, None], 4, 0).repeat(3, -1)
    for drawn in (Draw(shift=(0.0, -0.5)), Draw(offset=(0, -2))):  # the warp and the direct path
        out = augment.render(image, drawn, (4, 4), fill=fill, fill_value=9)
        assert out[0, :, 0].tolist() == expected


def test_pad_crop_is_the_cifar_recipe():
    image, fields = noise(32, 32), config(pad_crop=4, fill="constant")
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
    image, fields = noise(60, 90), config(margin_crop=0.1, margin_scale=0.2, flip=0.5)
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


def test_views_of_old_configs_are_as_they_were():
    """What a run with the fields of before drew, it draws again, so that it can be resumed and repeated."""
    drawn = augment.draw(augment.view_rng(7, "a/1.jpg", 3), config(**EVERYTHING | {"margin_crop": 0.0, "margin_scale": 0.0}))
    rng = augment.view_rng(7, "a/1.jpg", 3)
    u, tries = rng.random(10), rng.random((10, 4))
    assert drawn.rotate == 40.0 * (2 * u[2] - 1)
    assert drawn.offset == (int(u[8] * 7) - 3, int(u[9] * 7) - 3)
    assert [crop[2:] for crop in drawn.crops] == [tuple(row[2:]) for row in tries.tolist()]
    assert drawn.margin[0] == 1.0
    assert drawn.color is drawn.erase is None


def test_random_resized_crop_has_torchvisions_distribution():
    """Area shares and log ratios are uniform over what fits, every place is reachable, and the result is a crop of the image."""
    fields = config(crop_scale=(0.08, 1.0))
    image = noise(100, 100)
    shares, logs = [], []
    for n in range(2000):
        drawn = augment.draw(augment.view_rng(0, str(n), 0), fields)
        x_scale, _, x, _, y_scale, y = augment.matrix(drawn, (100, 100), (50, 50))[:2].ravel()
        w, h = x_scale * 50, y_scale * 50
        left, top = x - (x_scale - 1) / 2, y - (y_scale - 1) / 2
        assert min(left, top) > -1e-6
        assert max(left + w, top + h) < 100 + 1e-6
        shares.append(w * h / 1e4)
        logs.append(math.log(w / h))
        if n < 20:
            t, le, b, r = (round(v) for v in (top, left, top + h, left + w))
            expected = augment.view(image[t:b, le:r], (50, 50))
            np.testing.assert_array_equal(augment.render(image, drawn, (50, 50)), expected)
    assert 0.07 < min(shares) < 0.1
    assert max(shares) > 0.9
    assert max(map(abs, logs)) < math.log(4 / 3) + 0.06
    assert abs(np.mean(logs)) < 0.02
    assert abs(np.mean(shares) - 0.480) < 0.015  # torchvision 0.28: mean 0.480, standard deviation 0.235 over 20,000 draws
    assert abs(np.std(shares) - 0.235) < 0.01


def test_crop_that_never_fits_falls_back_to_the_centre():
    drawn = augment.draw(augment.view_rng(0, "a", 0), config(crop_scale=(0.9, 0.95)))
    image = noise(30, 3000)
    np.testing.assert_array_equal(augment.render(image, drawn, (30, 40)), image[:, 1480:1520])


@quick
@given(seed=st.integers(0, 2**31), ids=st.lists(st.text(max_size=8), min_size=2, max_size=6, unique=True), epoch=st.integers(0, 10_000))
def test_view_rng_depends_on_nothing_but_its_arguments(seed, ids, epoch):
    forwards = {key: augment.view_rng(seed, key, epoch).random(4).tolist() for key in ids}
    backwards = {key: augment.view_rng(seed, key, epoch).random(4).tolist() for key in reversed(ids)}
    assert forwards == backwards
    assert len({tuple(numbers) for numbers in forwards.values()}) == len(ids)
    assert augment.view_rng(seed, ids[0], epoch + 1).random() != forwards[ids[0]][0]
    assert augment.view_rng(seed + 1, ids[0], epoch).random() != forwards[ids[0]][0]


def test_one_kind_of_augmentation_leaves_the_others_as_they_were():
    plain, more = config(flip=0.5, rotate=30.0), config(**EVERYTHING | {"flip": 0.5, "rotate": 30.0})
    for n in range(20):
        a, b = (augment.draw(augment.view_rng(0, str(n), 0), fields) for fields in (plain, more))
        assert (a.flip, a.rotate) == (b.flip, b.rotate)


def test_is_neutral_knows_every_field():
    assert augment.is_neutral(default_config().augment)
    for field, value in (EVERYTHING | {"brightness": 0.1, "hue": 5.0, "grayscale": 0.1, "erase": 0.5, "cutout": 4}).items():
        assert not augment.is_neutral(config(**{field: value})), field


@pytest.mark.parametrize(
    "drawn", [Draw(), Draw(rotate=20.0), Draw(flip=True), Draw(crops=((0.5, 1.2, 0.3, 0.7),)), Draw(margin=(1.3, 0.4, 0.8))]
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
