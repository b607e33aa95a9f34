"""Capture times and file numbers: read from real JPEGs, and never believed more than they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder_config
from PIL import Image
from rich.console import Console

from imgclf.data.capture import MOST_AT_ONCE, captures, numbers, seconds_of
from imgclf.data.splits import subset
from imgclf.data.table import load_dataset

pytestmark = pytest.mark.usefixtures("cache")
QUIET = Console(quiet=True)


def photo(path, seed: int, taken: str | None = None, fraction: str = "", camera: str = "Lumix") -> None:
    """A JPEG with the EXIF entries that cameras write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    if taken is not None:
        exif[0x0110] = camera
        exif.get_ifd(0x8769)[0x9003] = taken
        if fraction:
            exif.get_ifd(0x8769)[0x9291] = fraction
    image.save(path, exif=exif)


def test_times_and_cameras_are_read_from_the_files(tmp_path):
    root = tmp_path / "photos"
    photo(root / "cat" / "a1.jpg", 0, "2024:05:31 12:30:05", "25")
    photo(root / "cat" / "a2.jpg", 1, "2024:05:31 12:30:07")
    photo(root / "cat" / "a3.jpg", 2, "2024:05:31 12:30:07", camera="Nikon")
    photo(root / "dog" / "b1.jpg", 3)
    photo(root / "dog" / "b2.jpg", 4, "0000:00:00 00:00:00")
    Image.new("RGB", (40, 40)).save(root / "dog" / "c.png")
    dataset = load_dataset(folder_config(root))
    found = captures(dataset, QUIET)
    row = {name: place for place, name in enumerate(dataset.table["id"])}
    first, second, third = row["cat/a1.jpg"], row["cat/a2.jpg"], row["cat/a3.jpg"]
    assert found.gaps(np.array([first, first]), np.array([second, third])).tolist() == [1.75, np.inf]
    assert [found.camera[row[f"dog/{name}"]] for name in ("b1.jpg", "b2.jpg", "c.png")] == [-1, -1, -1]
    assert found.steps(np.array([first, first]), np.array([third, row["dog/b2.jpg"]])).tolist() == [2, np.inf]
    some = subset(dataset, [second, first])  # a reader of some rows reads the same files
    np.testing.assert_array_equal(captures(some, QUIET).seconds, found.seconds[[second, first]])


def test_a_clock_that_stands_still_is_not_believed(tmp_path):
    for number in range(MOST_AT_ONCE + 1):
        photo(tmp_path / "photos" / "cat" / f"{number}.jpg", number, "2000:01:01 00:00:00")
    photo(tmp_path / "photos" / "dog" / "1.jpg", 99, "2000:01:01 00:00:09")
    found = captures(load_dataset(folder_config(tmp_path / "photos")), QUIET)
    assert (found.camera >= 0).sum() == 1
    assert np.isfinite(found.seconds).sum() == 1


@pytest.mark.parametrize("taken", [None, 7, "", "yesterday", "2024:13:01 00:00:00", "0000:00:00 00:00:00", b"2024:05:31 12:30:05"])
def test_what_is_no_time_is_none(taken):
    assert seconds_of(taken) is None


def test_fractions_of_a_second_have_any_number_of_digits():
    whole = seconds_of("2024:05:31 12:30:05\0")
    texts = ("5", "500", "05", "", "x", "²", None)
    found = [seconds_of("2024:05:31 12:30:05", text) - whole for text in texts]
    assert found == pytest.approx([0.5, 0.5, 0.05, 0, 0, 0, 0], abs=1e-6)


def test_numbers_of_names():
    series, number = numbers(["trip/IMG_0012.JPG", "trip/IMG_0013.JPG", "home/IMG_0014.JPG", "trip/frame.jpg", "a/v2 00007 b.png"])
    assert number.tolist() == [12, 13, 14, -1, 7]
    assert series[0] == series[1] != series[2]
    assert series[3] == -1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.text(max_size=12), max_size=20))
def test_any_names_have_series(names):
    series, number = numbers(names)
    assert len(series) == len(number) == len(names)
    for name, own, value in zip(names, series, number, strict=True):
        assert (own == -1) == (not any(letter.isdecimal() for letter in name)) or value >= 0
