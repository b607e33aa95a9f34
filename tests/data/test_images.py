"""Decoding, orientation, inspection and the perceptual hash, on files of each kind made here."""

import hashlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from imgclf.data import formats, images

LIMIT = 1_000_000


def encode(image: Image.Image, name: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def picture(height: int = 60, width: int = 80, seed: int = 0) -> Image.Image:
    """Coloured, without symmetry, with contrast at every scale as in a photograph."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cells in (2, 4, 8, 16):
        total += cv2.resize(rng.normal(0, 1, (cells, cells, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return Image.fromarray(np.clip(128 + 30 * total, 0, 255).astype(np.uint8))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("PPM", {}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 12),
        ("JPEG", {"quality": 95, "keep_rgb": True}, 12),
        ("MPO", {"quality": 95, "subsampling": 0}, 12),
        ("JPEG2000", {}, 0),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 12),
    ],
)
def test_formats(name, options, tolerance):
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    image = picture()
    data = encode(image, name, **options)
    pixels = images.decode(data)
    assert pixels.dtype == np.uint8
    assert difference(pixels, np.asarray(image)) <= tolerance
    found = images.inspect(data, LIMIT)
    assert (found.reason, found.detail, found.width, found.height) == ("", "", 80, 60)
    assert found.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("name", ["PNG", "GIF", "TIFF"])
def test_grey_and_palette(mode, name):
    image = picture().convert(mode)
    assert difference(images.decode(encode(image, name)), np.asarray(image.convert("RGB"))) == 0


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    for name in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encode(frames[0], name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "WEBP" else {}))
        np.testing.assert_array_equal(images.decode(data)[0, 0], (255, 0, 0), err_msg=name)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk(name):
    """Pillow writes the inverted CMYK of Adobe's JPEGs; ink is none where the picture is white."""
    cmyk = np.zeros((16, 24, 4), np.uint8)
    cmyk[:, 8:16, 0] = 255  # cyan
    cmyk[:, 16:, 3] = 255  # black
    data = encode(Image.fromarray(cmyk, "CMYK"), name)
    assert name != "JPEG" or b"Adobe" in data
    pixels = images.decode(data)
    for column, expected in ((4, (255, 255, 255)), (12, (0, 255, 255)), (20, (0, 0, 0))):
        assert difference(pixels[8, column], np.array(expected)) <= 3


@pytest.mark.parametrize(("dtype", "name"), [(np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF"), (np.uint16, "PPM")])
def test_sixteen_bits_are_scaled_not_clipped(dtype, name):
    ramp = np.linspace(0, 65535, 40 * 30).reshape(30, 40).round().astype(dtype)
    pixels = images.decode(encode(Image.fromarray(ramp), name))
    assert difference(pixels, np.repeat(np.rint(ramp[..., None] / 257), 3, axis=2)) == 0


def test_wide_integers_and_floats():
    counts = np.array([[-1000, 500], [2000, 99000]], np.int32)  # -1024 is black and 131071 white
    np.testing.assert_array_equal(images.decode(encode(Image.fromarray(counts), "TIFF"))[..., 0], [[0, 3], [6, 193]])
    unit = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(images.decode(encode(Image.fromarray(unit), "TIFF"))[..., 1], [[0, 64], [128, 255]])
    unit[0, 0] = np.nan
    assert images.inspect(encode(Image.fromarray(unit), "TIFF"), LIMIT).reason == "damaged"


def test_alpha_over_white():
    rgba = np.array([[[200, 0, 0, 0], [200, 0, 0, 128], [200, 0, 0, 255]]], np.uint8)
    for name in ("PNG", "TIFF", "WEBP"):
        data = encode(Image.fromarray(rgba), name, **({"lossless": True, "exact": True} if name == "WEBP" else {}))
        assert difference(images.decode(data)[0], np.array([[255, 255, 255], [227, 127, 127], [200, 0, 0]])) <= 1
    grey = Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), "LA")
    np.testing.assert_array_equal(images.decode(encode(grey, "PNG"))[0, :, 0], [255, 0])


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(name):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    np.testing.assert_array_equal(images.decode(encode(image, name, transparency=1))[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation(name, orientation):
    image = picture(48, 96)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, name, exif=exif, **({"lossless": True} if name == "WEBP" else {}))
    stored = np.asarray(Image.open(io.BytesIO(encode(image, name)))) if name == "JPEG" else np.asarray(image)
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(images.decode(data), expected)
    assert difference(images.decode(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))) == 0
    found = images.inspect(data, LIMIT)
    assert (found.height, found.width) == expected.shape[:2]
    upright = images.inspect(encode(Image.fromarray(np.ascontiguousarray(expected)), "PNG"), LIMIT)
    assert bits_apart(found.phash, upright.phash) <= 6


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0"]
)
def test_damaged_exif_leaves_the_image_as_it_is(block):
    data = encode(picture(), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    assert images.inspect(data, LIMIT).reason == ""
    np.testing.assert_array_equal(images.decode(data), np.asarray(Image.open(io.BytesIO(data))))


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    grey=st.booleans(),
    orientation=st.integers(1, 8),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    quality=st.integers(10, 95),
    min_size=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
@settings(deadline=None, derandomize=True, max_examples=80)
def test_opencv_decodes_jpegs_to_the_pixels_of_pillow(height, width, grey, orientation, subsampling, progressive, quality, min_size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(height, width).convert("L" if grey else "RGB")
    data = encode(image, "JPEG", exif=exif, subsampling=subsampling, progressive=progressive, quality=quality)
    pixels = images.decode(data, min_size=min_size)
    with Image.open(io.BytesIO(data)) as oracle:
        if min_size is not None:
            oracle.draft(None, min_size if orientation >= 5 else min_size[::-1])
        np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(oracle).convert("RGB")))
    full = (width, height) if orientation >= 5 else (height, width)
    if pixels.shape[:2] != full:
        assert pixels.shape[0] >= min_size[0]
        assert pixels.shape[1] >= min_size[1]


def test_reduced_scale_is_used():
    data = encode(picture(300, 400), "JPEG")
    assert images.decode(data, min_size=(75, 100)).shape == (75, 100, 3)
    assert images.decode(data, min_size=(76, 100)).shape == (150, 200, 3)
    assert images.decode(data, min_size=(200, 200)).shape == (300, 400, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright: the size asked for is that of the upright image
    for name in ("JPEG", "MPO"):
        data = encode(picture(300, 400), name, exif=exif)
        assert images.decode(data, min_size=(200, 100)).shape == (200, 150, 3)
    data = encode(picture(300, 400).convert("CMYK"), "JPEG", exif=exif)  # Pillow's path
    assert images.decode(data, min_size=(200, 100)).shape == (200, 150, 3)


@given(kind=st.sampled_from(["JPEG", "progressive", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]), keep=st.floats(0.0, 0.98))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_a_truncated_file_is_found_wherever_it_ends(kind, keep):
    name, options = ("JPEG", {"progressive": True}) if kind == "progressive" else (kind, {})
    data = encode(picture(), name, **options)
    data = data[: int(len(data) * keep)]
    found = images.inspect(data, LIMIT)
    expected = {"empty"} if not data else {"not_an_image"} if len(data) < 16 else {"truncated"}
    if 3 <= len(data) < 16:
        expected |= {"truncated"}
    if kind == "PPM":  # no signature to tell a header from a text
        expected |= {"not_an_image"}
    assert found.reason in expected, found
    assert found.sha256 == ""
    with pytest.raises(images.ImageError):
        images.decode(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"these are words\n" * 20, "not_an_image"),
        (b"<!DOCTYPE html><html>photo unavailable</html>", "not_an_image"),
        (bytes(500), "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),  # Ghostscript is never started
    ],
)
def test_what_is_no_image(data, reason):
    found = images.inspect(data, LIMIT)
    assert found.reason == reason
    assert found.detail
    with pytest.raises(images.ImageError):
        images.decode(data)


def test_heic_without_its_decoder_is_named(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(100)
    monkeypatch.setattr(formats, "has_heif", lambda: False)
    found = images.inspect(data, LIMIT)
    assert found.reason == "unsupported"
    assert 'pip install "imgclf[heic]"' in found.detail


def test_damaged_png():
    data = bytearray(encode(picture(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert images.inspect(bytes(data), LIMIT).reason in ("damaged", "truncated")


@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\x10\0\0\0WEBP"]),
    rest=st.binary(max_size=60),
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_any_bytes_get_a_verdict(start, rest):
    found = images.inspect(start + rest, LIMIT)
    if found.reason == "":  # a GIF of a few bytes can be whole
        assert images.decode(start + rest).shape == (found.height, found.width, 3)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_too_many_pixels_is_told_from_the_header(monkeypatch):
    data = encode(picture(), "PNG")
    assert images.inspect(data, 60 * 80).reason == ""
    found = images.inspect(data, 60 * 80 - 1)
    assert (found.reason, found.detail) == ("too_many_pixels", "80x60 = 4,800 pixels, more than 4,799")
    for name in ("PNG", "JPEG"):
        with pytest.raises(images.ImageError, match="too_many_pixels"):
            images.decode(encode(picture(), name), decoding=images.Decoding(100))
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 3.6 gigapixels: beyond Pillow's own limit too
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(99)))
    assert images.inspect(bomb, LIMIT).reason == "too_many_pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert images.inspect(data, LIMIT).reason == ""  # the configured limit holds, not Pillow's


def test_arrays():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array in (grey, grey[..., None], np.repeat(grey[..., None], 3, axis=2)):
        assert images.pixels_of(array).shape == (3, 4, 3)
        found = images.inspect(array, LIMIT)
        assert (found.width, found.height) == (4, 3)
        assert found.sha256 == hashlib.sha256(np.repeat(grey[..., None], 3, axis=2).tobytes()).hexdigest()
    assert images.inspect(np.zeros((2, 2, 4), np.uint8), LIMIT).reason == "unsupported"
    with pytest.raises(images.ImageError, match="float64"):  # nobody can tell which value is white
        images.pixels_of(grey.astype(float))
    np.testing.assert_array_equal(images.pixels_of(grey / 22.0, images.Decoding(value_range=(0, 0.5)))[..., 0][2], [185, 209, 232, 255])
    assert images.inspect(np.zeros((0, 4), np.uint8), LIMIT).reason == "empty"
    assert images.inspect(grey, 11).reason == "too_many_pixels"


def bits_apart(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


def test_perceptual_hash_survives_copies_and_tells_pictures_apart():
    originals = [picture(240, 320, seed) for seed in range(30)]
    hashes = [images.inspect(encode(image, "PNG"), LIMIT).phash for image in originals]
    assert all(-(2**63) <= value < 2**63 for value in hashes)
    for image, original in zip(originals, hashes, strict=True):
        for copy in (
            encode(image, "JPEG", quality=60),
            encode(image.resize((160, 120), Image.Resampling.BICUBIC), "PNG"),
            encode(image.convert("L"), "PNG"),
        ):
            assert bits_apart(images.inspect(copy, LIMIT).phash, original) <= 4
    assert min(bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 8


def test_plain_colours_are_near_to_their_copies_only():
    hashes = [images.inspect(encode(Image.new("RGB", (40, 30), (value, value, 0)), "PNG"), LIMIT).phash for value in range(0, 250, 10)]
    assert min(bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 8
    again = images.inspect(encode(Image.new("RGB", (40, 30), (0, 0, 0)), "PNG"), LIMIT).phash
    assert again == hashes[0]


def test_photographs(shared):
    """All pictures of a real set pass, with the pixels of Pillow; the placeholder GIF is an image too."""
    files = sorted((shared / "data/doraemon_walle/valid").glob("*/*.jpg"))
    assert len(files) == 33
    hashes = []
    for file in files:
        data = file.read_bytes()
        found = images.inspect(data, 100_000_000)
        assert found.reason == ""
        pixels = images.decode(data, decoding=images.Decoding(color_profile=False))
        assert pixels.shape == (found.height, found.width, 3)
        np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB")))
        hashes.append(found.phash)
    assert min(bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 2
    gif = (shared / "data/openimages/placeholder/imageNotFound.gif").read_bytes()
    assert images.decode(gif).shape == (300, 300, 3)
    assert images.inspect(gif[:3000], LIMIT).reason == "truncated"
