"""Images of more than 8 bits: what is black and what is white, decided per data set, kept for predictions, and told."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder_config, save
from PIL import Image, TiffImagePlugin

from imgclf.data import images, value_range
from imgclf.data.images import Decoding
from imgclf.data.prepare import load_path, prepare
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
LIMIT = 10**8


def encode(array: np.ndarray, name: str = "TIFF", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, name, **options)
    return file.getvalue()


def tiff(array: np.ndarray) -> bytes:
    """By OpenCV, which has types that Pillow has not."""
    return cv2.imencode(".tiff", array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


def spread(data: bytes, **options) -> tuple[int, int]:
    pixels = images.decode(data, decoding=Decoding(**options))
    assert (pixels[..., 0] == pixels[..., 2]).all()
    return int(pixels.min()), int(pixels.max())


@pytest.mark.parametrize(
    "array",
    [
        RAMP.astype(np.int32),
        RAMP.astype(np.uint16) * 16 + 15,
        RAMP.astype(np.uint16) * 257,
        RAMP.astype(np.int32) * 257,
        RAMP / np.float32(255),
        RAMP.astype(np.float32),
    ],
)
def test_what_pillow_writes_is_as_bright_as_it_was(array):
    pixels = images.decode(encode(array))
    assert np.abs(pixels[..., 0].astype(int) - RAMP).max() <= 1
    if array.dtype == np.uint16:
        np.testing.assert_array_equal(images.decode(encode(array, "PNG")), pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("colour", [False, True])
def test_what_opencv_writes_is_as_bright_as_it_was(dtype, colour):
    scale = 1 / 255 if dtype in (np.float32, np.float64) else 16
    array = (RAMP.astype(float) * scale).astype(dtype)
    if colour:
        if dtype not in (np.uint16, np.float32, np.float64):
            pytest.skip("OpenCV writes no such colours")
        array = np.stack([array, array[::-1], array.T], axis=-1)
    pixels = images.decode(tiff(array))
    assert np.abs(pixels[..., 0].astype(int) - RAMP).max() <= 1
    if colour:
        assert np.abs(pixels[..., 1].astype(int) - RAMP[::-1]).max() <= 1
    found = images.inspect(tiff(array), LIMIT)
    assert (found.reason, found.kind) == ("", np.dtype(dtype).name)


def test_sixteen_bit_colours_of_png_keep_their_lower_bits():
    array = np.stack([RAMP.astype(np.uint16) * 16] * 3, axis=-1)
    array[..., 2] = 4095
    pixels = images.decode(cv2.imencode(".png", array[..., ::-1])[1].tobytes())
    assert np.abs(pixels[..., 0].astype(int) - RAMP).max() <= 1
    assert (pixels[..., 2] == 255).all()


def with_sbit(png: bytes, bits: int) -> bytes:
    chunk = b"sBIT" + bytes([bits])
    return png[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def test_significant_bits_of_png_are_honoured():
    dark = (RAMP.astype(np.uint16) * 16) // 8  # at most 510: 10 bits by its values alone
    assert spread(encode(dark, "PNG"))[1] == 127
    assert spread(with_sbit(encode(dark, "PNG"), 12))[1] == 32
    assert images.inspect(with_sbit(encode(dark, "PNG"), 12), LIMIT).kind == "uint16/12"
    assert spread(with_sbit(encode(RAMP.astype(np.uint16) * 257, "PNG"), 12)) == (0, 255)  # scaled up, as the standard has it


def test_declared_sample_values_are_honoured_image_by_image():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[340], tags[341] = 100, 1100
    data = encode(RAMP.astype(np.uint16) + 100, tiffinfo=tags)
    assert spread(data) == (0, 65)
    assert images.inspect(data, LIMIT).kind == ""  # nothing to decide
    assert spread(data, kinds=(("uint16", 0, 65535),)) == (0, 65)
    assert spread(data, value_range=(0, 510)) == (50, 178)  # the user's word is the last


@given(bits=st.integers(1, 16), share=st.floats(0.55, 1.0), low=st.floats(0.0, 0.2))
@settings(deadline=None, derandomize=True)
def test_no_data_set_gets_nearly_black(bits, share, low):
    high = round(share * (2**bits - 1))
    black, white = value_range.decide("uint16", round(low * high), high)
    assert black == 0
    assert high <= white
    assert high * 4 >= white or high < 4
    assert white == 2 ** round(np.log2(white + 1)) - 1


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("uint16", 3, 40, (0, 63)),
        ("uint16", 0, 70, (0, 255)),
        ("uint16", 0, 3900, (0, 4095)),
        ("uint16", 0, 65000, (0, 65535)),
        ("int16", -1000, 3000, (-1024, 4095)),
        ("int16", -128, 127, (-128, 127)),
        ("int32", 0, 0, (0, 1)),
        ("uint32", 0, 2**32 - 1, (0, 2**32 - 1)),
        ("float32", 0, 1.02, (0, 1)),
        ("float32", 0, 0.1, (0, 0.125)),
        ("float32", -1, 0.9, (-1, 1)),
        ("float32", 0, 250.5, (0, 255)),
        ("float64", 0, 5.5, (0, 8)),
        ("float32", -3, 9, (-4, 16)),
        ("uint16/12", 0, 4095, (0, 4095)),
        ("uint16/12", 0, 40000, (0, 65535)),
    ],
)
def test_decisions(kind, low, high, expected):
    assert value_range.decide(kind, low, high) == expected


def deep_folder(root, count=4):
    for label, name in enumerate("ab"):
        for row in range(count):
            brightness = (row + 1) / count  # the darkest image alone would look like one of fewer bits
            array = (np.random.default_rng(10 * label + row).random((40, 36)) * 4000 * brightness).astype(np.uint16)
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / f"{row}.png")
        save(root / name / "plain.png", label, (40, 36))
    return root


def test_one_range_per_kind_is_decided_told_kept_and_used_for_predictions(tmp_path):
    root = deep_folder(tmp_path / "photos")
    config = folder_config(root, near_duplicate_bits=-1)
    config.data.split.fractions = (0.5, 0.0, 0.5)
    prepared = prepare(config)
    assert prepared.config.data.value_range == (("uint16", 0.0, 4095.0),)
    assert config.data.value_range == ()
    (note,) = prepared.dataset.notes
    assert "8 of the images are uint16 with values from 0 to" in note
    assert "black is 0 and white 4095 (config.data.value_range" in note
    table = prepared.loaded.table
    for row, name in enumerate(table["id"]):
        read = images.decode((root / name).read_bytes(), decoding=Decoding.of(prepared.config.data))
        np.testing.assert_array_equal(prepared.loaded.reader[row], read)
    darkest = table["id"].tolist().index("a/0.png")
    assert 55 < prepared.loaded.reader[darkest].max() < 70  # as dark as it is beside the others
    again = prepare(prepared.config)  # as from the run's config.json
    assert again.dataset.notes == ()
    np.testing.assert_array_equal(again.loaded.reader[darkest], prepared.loaded.reader[darkest])


def test_the_user_sets_the_range(tmp_path):
    root = deep_folder(tmp_path / "photos")
    dataset, fields = load_path(root, value_range=(0, 8190))
    assert dataset.notes == ()
    assert dataset.value_range == (0, 8190)
    assert max(dataset.reader[row].max() for row, name in enumerate(dataset.table["id"]) if "plain" not in name) < 130
    assert fields.value_range == (0, 8190)
    for wrong in ((4095, 0), ("uint16", 0, 4095), (("uint16", 0),), (1, 2, 3)):
        with pytest.raises(UserError, match=r"config\.data\.value_range=.* is not valid; expected \(black, white\)"):
            load_path(root, value_range=wrong)


def test_images_that_stay_nearly_black_are_told(tmp_path):
    root = deep_folder(tmp_path / "photos")
    assert "nearly black" not in str(load_dataset(folder_config(root)).notes)
    Image.fromarray(RAMP.astype(np.uint16)).save(root / "a" / "of8bits.png")
    (note,) = load_dataset(folder_config(root)).notes
    assert note.endswith("1 of them use less than a sixteenth of that range and are nearly black, such as a/of8bits.png.")


def test_sound_tiffs_that_nobody_can_show_are_not_called_truncated():
    def bands(count: int) -> bytes:
        tags = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, count), (278, 3, 1, 4)]
        tags += [(273, 4, 1, 8 + 2 + 12 * 9 + 4), (279, 4, 1, 16 * count)]
        packed = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + packed + bytes(4) + bytes(range(16 * count))

    found = images.inspect(bands(5), LIMIT)
    assert found.reason == "unsupported"
    assert found.detail == "a TIFF of 5 bands of 8-bit unsigned integers; a picture has one band (grey), three (RGB) or four (RGBA)"
    assert images.inspect(bands(5)[:60], LIMIT).reason == "truncated"


def test_signed_integers_reach_no_further_than_their_type():
    assert value_range.decide("int16", 600, 24_200) == (0.0, 32_767.0)
    assert value_range.decide("uint16", 600, 24_200) == (0.0, 65_535.0)
