"""Every format that Pillow opens is read by its content; what is no image stays ignored and counted."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder_config, save, smooth
from PIL import Image

from imgclf.data import formats, images
from imgclf.data.table import load_dataset

LIMIT = 10**8
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
FORMATS = [
    "PNG",
    "BMP",
    "DIB",
    "TGA",
    "ICO",
    "PCX",
    "SGI",
    "QOI",
    "DDS",
    "ICNS",
    "JPEG2000",
    "PPM",
    "TIFF",
    "IM",
    "GIF",
    "WEBP",
    "AVIF",
    "MPO",
]


def encode(name: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, name, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_told_from_its_content(name):
    options = {"WEBP": {"lossless": True}, "ICO": {"sizes": [(32, 32)]}}.get(name, {})
    data = encode(name, **options)
    pixels = images.decode(data)
    found = images.inspect(data, LIMIT)
    assert (found.reason, found.width, found.height) == ("", pixels.shape[1], pixels.shape[0])
    if name not in ("GIF", "AVIF", "MPO", "ICNS"):  # colours of a palette, losses, sizes of its own
        np.testing.assert_array_equal(pixels, PIXELS)
    if name not in ("TGA", "DIB", "PPM", "IM"):  # without a mark of their own: told by the extension
        assert formats.sniff(data[:16])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_targa_has_no_mark_and_is_told_from_its_header(mode, compressed):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, "TGA", compression="tga_rle" if compressed else None)
    assert images.inspect(file.getvalue(), LIMIT).reason == ""
    assert images.inspect(file.getvalue()[:60], LIMIT).reason != ""


@given(data=st.binary(min_size=1, max_size=200))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_random_bytes_are_no_targa(data):
    found = images.inspect(data, LIMIT)
    assert found.reason or formats.sniff(data[:16])


@pytest.mark.usefixtures("cache")
def test_any_name_will_do_and_what_is_no_image_is_counted(tmp_path):
    for name, format_name in (("1.tga", "TGA"), ("2.qoi", "QOI"), ("3.dat", "PNG"), ("4.txt", "JPEG"), ("5.ico", "ICO"), ("6.sgi", "SGI")):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(encode(format_name))
    save(tmp_path / "b/1.png", 3)
    (tmp_path / "b/notes.txt").write_text("BMP GIF PNG")
    (tmp_path / "b/data.json").write_text("{}")
    (tmp_path / "b/words.ico").write_text("words")
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.table["id"].to_list() == [f"a/{name}" for name in ("1.tga", "2.qoi", "3.dat", "4.txt", "5.ico", "6.sgi")] + ["b/1.png"]
    assert dataset.ignored == {".json": 1, ".txt": 1}
    assert dataset.quarantine["id"].to_list() == ["b/words.ico"]


@pytest.mark.usefixtures("cache")
def test_heic(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    for label, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        heif.from_pillow(Image.fromarray(smooth(32, 32)[:: 1 - 2 * label].copy())).save(tmp_path / name / "1.HEIC", quality=-1)
        save(tmp_path / name / "2.png", label)
    dataset = load_dataset(folder_config(tmp_path))
    assert dataset.table["id"].to_list() == ["a/1.HEIC", "a/2.png", "b/1.HEIC", "b/2.png"]
    assert np.abs(dataset.reader[0].astype(int) - smooth(32, 32)).mean() < 4
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(formats, "has_heif", lambda: False)
    assert load_dataset(folder_config(tmp_path)).quarantine["detail"].to_list() == [formats.WITHOUT_HEIF] * 2
