"""mode=keras_legacy against what keras-preprocessing 1.1.2 makes of the same pictures by the same parameters."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.config import default_config
from imgclf.config.validation import validate
from imgclf.data import augment
from imgclf.data.augment import Draw, keras_legacy
from imgclf.errors import UserError

FILL_VALUE = 77  # of tests/golden/make_keras_legacy.py
with np.load(Path(__file__).parents[2] / "golden" / "keras_legacy.npz") as file:
    GOLDEN = dict(file)
RECORDS = json.loads(str(GOLDEN["records"]))


def drawn_as(parameters: dict[str, float | None], target: list[int]) -> Draw:
    return Draw(
        mode="keras_legacy",
        rotate=parameters["theta"],
        shift=(parameters["tx"] / target[0], parameters["ty"] / target[1]),
        shear=parameters["shear"],
        zoom=(parameters["zx"], parameters["zy"]),
        flip=bool(parameters["flip_horizontal"]),
        vertical_flip=bool(parameters["flip_vertical"]),
        keras_brightness=parameters["brightness"],
    )


@pytest.mark.parametrize("n", range(len(RECORDS)))
def test_pixels_are_those_of_keras(n):
    record = RECORDS[n]
    image, target = GOLDEN[f"image{record['image']}"], record["target"]
    drawn = drawn_as(record["parameters"], target)
    found = augment.render(image, drawn, tuple(target), fill=record["fill"], fill_value=FILL_VALUE)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - GOLDEN[f"out{n}"]).max() <= 1


def test_the_golden_pictures_hold_every_parameter_and_fill():
    assert {record["fill"] for record in RECORDS} == set(augment.BORDERS)
    for name, value in {
        "theta": 0,
        "tx": 0,
        "ty": 0,
        "shear": 0,
        "zx": 1,
        "flip_horizontal": 0,
        "flip_vertical": 0,
        "brightness": None,
    }.items():
        assert sum(record["parameters"][name] != value for record in RECORDS) >= 2, name


def test_what_is_off_centre_there_is_not_in_the_corrected_geometry():
    """A half turn about size/2 + 0.5 moves the picture by two pixels."""
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    turned = {mode: augment.render(image, Draw(mode=mode, rotate=180.0), (12, 12)) for mode in ("corrected", "keras_legacy")}
    np.testing.assert_array_equal(turned["corrected"], image[::-1, ::-1])
    np.testing.assert_array_equal(turned["keras_legacy"][2:, 2:], image[:1:-1, :1:-1])
    np.testing.assert_array_equal(turned["keras_legacy"][0], turned["keras_legacy"][2])  # the edge, repeated


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    rotate=st.floats(-180, 180), shear=st.floats(-40, 40), zoom=st.floats(0.5, 2), size=st.tuples(st.integers(1, 50), st.integers(1, 50))
)
def test_its_matrix_is_the_corrected_one_about_another_point(rotate, shear, zoom, size):
    drawn = Draw(rotate=rotate, shear=shear, zoom=(zoom, 1.0), shift=(0.1, -0.2))
    there, swap = np.eye(3), np.eye(3)[[1, 0, 2]]
    there[:2, 2] = 1  # from size/2 - 0.5 to size/2 + 0.5
    corrected = swap @ augment.matrix(drawn, size, size) @ swap
    np.testing.assert_allclose(keras_legacy.matrix(drawn, size), there @ corrected @ np.linalg.inv(there), atol=1e-8)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(size=st.tuples(st.integers(1, 30), st.integers(1, 30)), fill=st.sampled_from(list(augment.BORDERS)), n=st.integers(0, 99))
def test_views_have_their_size_are_redrawn_exactly_and_neutral_ones_are_the_image(size, fill, n):
    image, fields = np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8), default_config().augment
    fields.mode, fields.fill = "keras_legacy", fill
    np.testing.assert_array_equal(augment.view(image, size, "squash", fields, augment.view_rng(0, "a", n)), image)
    fields.rotate, fields.zoom, fields.shift, fields.brightness, fields.flip = 30.0, (0.8, 1.2), (0.2, 0.2), 0.3, 0.5
    first, again = (augment.view(image, (17, 9), "squash", fields, augment.view_rng(0, "a", n)) for _ in range(2))
    assert first.shape == (17, 9, 3)
    np.testing.assert_array_equal(first, again)


def test_draws_are_those_of_the_corrected_mode_but_for_brightness():
    """So that two arms of a study differ in the mode alone."""
    fields = default_config().augment
    fields.rotate, fields.zoom, fields.shift, fields.shear, fields.flip, fields.brightness = 40.0, (0.8, 1.2), (0.2, 0.2), 11.0, 0.5, 0.2
    corrected = augment.draw(augment.view_rng(3, "a", 2), fields)
    fields.mode = "keras_legacy"
    legacy = augment.draw(augment.view_rng(3, "a", 2), fields)
    for name in ("rotate", "zoom", "shift", "shear", "flip"):
        assert getattr(legacy, name) == getattr(corrected, name)
    assert legacy.keras_brightness == corrected.color.brightness
    assert legacy.color is None


def test_evaluation_takes_nearest_neighbours_too_and_whole_images():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    fields = default_config().augment
    fields.mode = "keras_legacy"
    np.testing.assert_array_equal(augment.view(image, (16, 16), "squash", fields), image[2::4, 2::4])
    assert augment.reduction(augment.evaluation(fields), (64, 64), (16, 16)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("augment.perspective", 0.3), ("augment.crop_scale", (0.5, 1.0)), ("augment.shift", (0.1, 2.0)), ("data.resize", "crop")],
)
def test_what_keras_had_not_is_a_mistake(field, value):
    config = default_config()
    config.data.source = "digits"
    config.augment.mode = "keras_legacy"
    config.augment.rotate = 20.0
    validate(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=field.split(".")[1]):
        validate(config)
