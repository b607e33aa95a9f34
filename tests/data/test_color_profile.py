"""Colour profiles: wide gamuts become sRGB, alike by every decoder; sRGB and none cost nothing and change nothing."""

import io

import numpy as np
import pytest
from pictures import folder_config
from PIL import Image, ImageCms

from imgclf.data import color_profile, images
from imgclf.data.images import Decoding
from imgclf.data.table import load_dataset

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """A profile whose red primary is sRGB's green, and the other way round."""
    red, green = SRGB.index(b"rXYZ"), SRGB.index(b"gXYZ")
    profile = bytearray(SRGB)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


WIDE = swapped()
PIXELS = np.zeros((16, 16, 3), np.uint8)
PIXELS[:8, :, 0] = PIXELS[8:, :, 1] = 255


def encode(name: str, profile: bytes, pixels: np.ndarray = PIXELS, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, icc_profile=profile, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_profiles_are_applied_and_can_be_left(name):
    options = {"lossless": True} if name == "WEBP" else {"quality": 100, "subsampling": 0} if name == "JPEG" else {}
    data = encode(name, WIDE, **options)
    turned = images.decode(data)
    assert np.abs(turned.astype(int) - PIXELS[..., [1, 0, 2]]).max() <= 3
    stored = images.decode(data, decoding=Decoding(color_profile=False))
    assert np.abs(stored.astype(int) - PIXELS).max() <= 3
    np.testing.assert_array_equal(images.decode(encode(name, SRGB, **options)), stored)
    np.testing.assert_array_equal(images.decode(encode(name, b"", **options)), stored)
    with Image.open(io.BytesIO(data)) as held:
        np.testing.assert_array_equal(images.pixels_of_picture(held), turned)


def test_transparent_pixels_lie_over_white_after_the_profile():
    rgba = np.dstack([PIXELS, np.full((16, 16), 0, np.uint8)])
    rgba[:, :8, 3] = 255
    decoded = images.decode(encode("PNG", WIDE, rgba))
    assert np.abs(decoded[:, :8].astype(int) - PIXELS[:, :8][..., [1, 0, 2]]).max() <= 1
    assert (decoded[:, 8:] == 255).all()


def test_deep_colours_take_the_profile_too():
    import cv2

    png = cv2.imencode(".png", (PIXELS.astype(np.uint16) * 257)[..., ::-1])[1].tobytes()
    with_profile = png[:33] + encode("PNG", WIDE)[33:].split(b"IDAT")[0][:-4] + png[33:]
    assert np.abs(images.decode(with_profile).astype(int) - PIXELS[..., [1, 0, 2]]).max() <= 1


def test_large_profiles_in_parts_are_put_together():
    data = encode("JPEG", WIDE + bytes(150_000), quality=100, subsampling=0)
    assert data.count(b"ICC_PROFILE\0") > 1
    assert np.abs(images.decode(data).astype(int) - PIXELS[..., [1, 0, 2]]).max() <= 3


@pytest.mark.parametrize("profile", [b"these are words", SRGB[:200], bytes(500)])
def test_damaged_profiles_change_nothing(profile):
    np.testing.assert_array_equal(images.decode(encode("PNG", profile)), PIXELS)
    assert images.inspect(encode("JPEG", profile), 10**6).reason == ""


def test_a_profile_of_other_pixels_changes_nothing():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(images.decode(encode("PNG", lab)), PIXELS)
    assert color_profile.to_srgb(PIXELS, b"") is PIXELS


def test_real_profiles(shared):
    """Of 41 profiles among real photographs those named sRGB change nothing, and Adobe RGB does."""
    seen = {True: set(), False: set()}
    for file in sorted((shared / "data/doraemon_walle").glob("**/*.jpg")):
        with Image.open(file) as image:
            profile = image.info.get("icc_profile")
        if profile:
            name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
            stored = images.decode(file.read_bytes(), decoding=Decoding(color_profile=False))
            seen[bool((images.decode(file.read_bytes()) == stored).all())].add(name)
    assert "sRGB IEC61966-2.1" in seen[True]
    assert "Adobe RGB (1998)" in seen[False]


@pytest.mark.usefixtures("cache")
def test_the_field_reaches_the_reader(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encode("PNG", WIDE, np.roll(PIXELS, ord(name), axis=0)))
    on, off = (load_dataset(folder_config(tmp_path, color_profile=used)).reader[0] for used in (True, False))
    np.testing.assert_array_equal(off, np.roll(PIXELS, ord("a"), axis=0))
    assert not np.array_equal(on, off)
