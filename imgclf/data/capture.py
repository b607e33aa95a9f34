"""What files tell of how photos were taken: the camera and the time by EXIF, and the number in a file's name.

Both are signals that two photos are shots of one scene. Photos of one camera within `BURST_SECONDS` are: nobody builds up another scene so
fast. Within `SESSION_SECONDS` they may be, and consecutive numbers of one folder, too, but a photographer who walks along a shelf does
both: these only make similar photos count as more similar (imgclf.probes.scenes).
"""

import contextlib
import dataclasses
import datetime
import io
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console

from imgclf import progress
from imgclf.data.readers import FileReader, ImageReader, Reader, RowsReader
from imgclf.data.table import Dataset
from imgclf.remote import places

BURST_SECONDS = 3.0
SESSION_SECONDS = 60.0
MOST_AT_ONCE = 20  # photos that a camera takes in one second; a clock that says more stands still, and its times say nothing

_EXIF_IFD = 0x8769
_TAKEN, _FRACTION, _MAKE, _MODEL, _SERIAL = 0x9003, 0x9291, 0x010F, 0x0110, 0xA431  # EXIF 2.32: DateTimeOriginal, SubSecTimeOriginal, …
_NUMBERED = re.compile(r"(.*?)(\d{1,9})(\D*)", re.DOTALL)  # the last number of a name


@dataclasses.dataclass(frozen=True)
class Captures:
    """How photos were taken, a value for each.

    Attributes:
      camera: int64 [n], from 0; -1 = no camera or no usable time is known.
      seconds: float64 [n], the local time on the camera's clock; NaN where camera is -1.
      series: int64 [n], from 0: names that differ in one number only are of one series; -1 = a name without a number.
      number: int64 [n].
    """

    camera: np.ndarray
    seconds: np.ndarray
    series: np.ndarray
    number: np.ndarray

    @classmethod
    def unknown(cls, count: int) -> "Captures":
        """Those of photos of which nothing is known."""
        none = np.full(count, -1, np.int64)
        return cls(none, np.full(count, np.nan), none, none)

    def gaps(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Seconds between photos of one camera, infinity for all others: float64, in the shape to which rows and others broadcast."""
        same = (self.camera[rows] >= 0) & (self.camera[rows] == self.camera[others])
        return np.where(same, np.abs(self.seconds[rows] - self.seconds[others]), np.inf)

    def steps(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Differences of the numbers of names of one series, infinity for all others; as `gaps`."""
        same = (self.series[rows] >= 0) & (self.series[rows] == self.series[others])
        return np.where(same, np.abs(self.number[rows] - self.number[others]), np.inf)


def captures(dataset: Dataset, console: Console) -> Captures:
    """Reads the beginning of every file, in threads, with a progress bar; names count without a file, too."""
    count = len(dataset.table)

    def read(row: int) -> tuple[str, float] | None:
        return _taken(dataset.reader, row)

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(console) as bar:
        found = list(bar.track(pool.map(read, range(count)), total=count, description="Reading capture times"))
    known = [row for row, taken in enumerate(found) if taken is not None]
    camera, seconds = np.full(count, -1, np.int64), np.full(count, np.nan)
    camera[known] = pd.factorize(np.array([taken[0] for taken in found if taken is not None], object))[0]
    seconds[known] = [taken[1] for taken in found if taken is not None]
    _forget_stopped_clocks(camera, seconds)
    series, number = numbers(dataset.table["id"].tolist())
    return Captures(camera, seconds, series, number)


def numbers(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tells the series and the number of each name: "trip/IMG_0012.jpg" is number 12 of the series trip/IMG_#.jpg; as in `Captures`."""
    parts = [_NUMBERED.fullmatch(name) for name in names]
    keys = [f"{part[1]}\0{part[3]}" if part else None for part in parts]
    series = pd.factorize(np.array(keys, object))[0].astype(np.int64)
    return series, np.array([int(part[2]) if part else -1 for part in parts], np.int64)


def seconds_of(taken: object, fraction: object = "") -> float | None:
    """The seconds of EXIF's "2024:05:31 12:30:05" and its fraction "25" (of a second: .25); None where there is no such time."""
    if not isinstance(taken, str):
        return None
    try:
        time = datetime.datetime.strptime(taken.strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:  # "0000:00:00 00:00:00" is what cameras write whose clock was never set
        return None
    digits = fraction.strip("\0 ") if isinstance(fraction, str) else ""
    return (time - datetime.datetime(1970, 1, 1)).total_seconds() + (float(f"0.{digits}") if digits.isascii() and digits.isdigit() else 0)


def _taken(reader: ImageReader, row: int) -> tuple[str, float] | None:
    """The camera and the time of a photo, if its file tells both."""
    if isinstance(reader, RowsReader):
        return _taken(reader.reader, int(reader.rows[row]))
    if isinstance(reader, FileReader) and not places.is_url(reader.path(row)):
        with contextlib.suppress(OSError), open(reader.path(row), "rb") as file:  # a file that is gone is told when its pixels are read
            return _exif(file)
        return None
    try:
        stored = reader.encoded(row)[0] if isinstance(reader, Reader) else None
    except OSError:  # of a file at a URL, likewise
        return None
    return _exif(io.BytesIO(stored)) if isinstance(stored, bytes) else None


def _exif(file: BinaryIO) -> tuple[str, float] | None:
    try:
        with Image.open(file) as image:  # only the header is read
            exif = image.getexif()
            photo = exif.get_ifd(_EXIF_IFD)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, Image.DecompressionBombError):
        return None  # damaged EXIF, or a format that Pillow doesn't know: the pixels are what counts
    maker = tuple(str(value).strip("\0 ") for value in (exif.get(_MAKE, ""), exif.get(_MODEL, "")))
    seconds = seconds_of(photo.get(_TAKEN), photo.get(_FRACTION, ""))
    if seconds is None or not any(maker):
        return None
    return "\0".join((*maker, str(photo.get(_SERIAL, "")))), seconds


def _forget_stopped_clocks(camera: np.ndarray, seconds: np.ndarray) -> None:
    """Takes the times away, in place, of photos of which one camera has more in a second than it can take."""
    known = np.flatnonzero(camera >= 0)
    at = list(zip(camera[known].tolist(), np.floor(seconds[known]).tolist(), strict=True))
    times = Counter(at)
    stopped = known[[times[key] > MOST_AT_ONCE for key in at]] if len(known) else known
    camera[stopped], seconds[stopped] = -1, np.nan
