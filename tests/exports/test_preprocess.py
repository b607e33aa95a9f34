"""`preprocess.py`, which goes along with an export, shows the network what imgclf shows it, to a grey level."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from imgclf.data.augment import Preprocessing
from imgclf.data.images import Decoding, decode
from imgclf.exports.programs import preprocess

_SIDES = st.integers(1, 70)


def picture(height: int, width: int, seed: int, channels: int = 3) -> np.ndarray:
    """A smooth pattern with some noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 8) + 1, -(-width // 8) + 1, channels), np.uint8)
    large = np.stack([np.asarray(Image.fromarray(small[..., i]).resize((width, height))) for i in range(channels)], -1)
    return np.clip(large + rng.integers(-20, 20, large.shape), 0, 255).astype(np.uint8)


def shown_as(**fields: object) -> dict[str, object]:
    """What an export.json says of the preprocessing."""
    plain = {"size": [24, 32], "resize": "squash", "crop_fraction": 1.0, "interpolation": "bilinear", "mode": "imgclf"}
    plain |= {"fill": "nearest", "fill_value": 0, "color_profile": True, "value_range": None, "kinds": []}
    return plain | fields


def difference(data: bytes, shown: dict) -> int:
    """The greatest difference between imgclf's view of a file and that of `preprocess.py`, in grey levels."""
    names = ("resize", "crop_fraction", "interpolation", "mode", "fill", "fill_value")
    preprocessing = Preprocessing(tuple(shown["size"]), *(shown[name] for name in names))
    ranges = {"value_range": shown["value_range"], "kinds": tuple(map(tuple, shown["kinds"]))}
    expected = preprocessing.plain(decode(data, decoding=Decoding(color_profile=shown["color_profile"], **ranges)))
    found = preprocess.load(io.BytesIO(data), shown)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected).max())


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(_SIDES, _SIDES),
    out=st.tuples(_SIDES, _SIDES),
    framing=st.sampled_from([("squash", 1.0), ("crop", 1.0), ("crop", 0.875), ("crop", 0.7), ("pad", 1.0)]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    mode=st.sampled_from(["imgclf", "imgclf", "keras_legacy"]),
    outside=st.sampled_from([("nearest", 0), ("constant", 0), ("constant", 200), ("reflect", 0), ("wrap", 0)]),
    seed=st.integers(0, 9),
)
def test_framings(size, out, framing, interpolation, mode, outside, seed):
    fields = {"size": list(out), "resize": framing[0], "crop_fraction": framing[1], "interpolation": interpolation, "mode": mode}
    shown = shown_as(**fields, fill=outside[0], fill_value=outside[1])
    assert difference(encoded(Image.fromarray(picture(*size, seed))), shown) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture(40, 60, orientation)), "JPEG", exif=exif, quality=95)
    assert difference(data, shown_as(resize="crop")) <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_kinds_of_pixels(mode):
    image = Image.fromarray(picture(40, 50, 3, 4 if mode in ("RGBA", "LA") else 3))
    data = encoded(image.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    assert difference(data, shown_as(resize="pad", fill="constant", fill_value=127)) <= 1


@pytest.mark.parametrize("most", [200, 1000, 4000, 65535])
@pytest.mark.parametrize("given_as", [{}, {"value_range": [0.0, 4095.0]}, {"kinds": [["uint16", 0.0, 16383.0]]}])
def test_16_bits(most, given_as):
    values = (picture(30, 40, 5)[..., 0].astype(np.float64) / 255 * most).astype(np.uint16)
    values[0, 0] = most
    assert difference(encoded(Image.fromarray(values)), shown_as(**given_as)) <= 1


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(["uint16", "int32", "float32"]), low=st.sampled_from([0, -1, -0.04, -0.5, -300]), most=st.floats(0, 70_000))
def test_values_of_an_image_by_itself(kind, low, most):
    values = picture(8, 9, 1)[..., 0] / 255 * (most - low) + low
    values = np.clip(values, 0, 65535) if kind == "uint16" else values
    assert difference(encoded(Image.fromarray(values.astype(kind)), "TIFF"), shown_as(size=[8, 9])) <= 1


def test_colour_profiles():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(picture(40, 50, 7))
    assert difference(encoded(image, icc_profile=profile), shown_as()) <= 1
    assert difference(encoded(image, icc_profile=b"no profile"), shown_as()) <= 1


def test_transparency_lies_over_white():
    image = Image.fromarray(np.full((20, 20, 4), (255, 0, 0, 0), np.uint8))
    assert (preprocess.load(io.BytesIO(encoded(image)), shown_as()) == 255).all()
