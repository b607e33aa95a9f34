"""How a picture is kept in a pack: resized once, and as JPEG, as WebP, or as plain pixels, which need no decoding at all."""

import dataclasses
import hashlib
import re
from typing import NamedTuple

import cv2
import numpy as np

from imgclf.data import augment, formats
from imgclf.data.images import ImageError, pixels_of, sniff
from imgclf.data.readers import ImageReader, Reader, unwrapped
from imgclf.errors import UserError

FORMATS = ("jpeg", "raw", "webp")
_LOSSLESS = 100  # the quality at which WebP keeps every pixel
_PPM = re.compile(rb"P6\n(\d+) (\d+)\n255\n")


class Stored(NamedTuple):
    """A picture as a pack keeps it.

    Attributes:
      record: the bytes.
      height, width: of the picture that they hold, upright, in pixels.
      exact: whether its pixels are those of the photo.
    """

    record: bytes
    height: int
    width: int
    exact: bool


@dataclasses.dataclass(frozen=True)
class Form:
    """How the pictures of a pack are kept.

    Resizing keeps the proportions and all of the photo, as it brings the shorter side to `size` and cuts nothing off: training crops, turns
    and flips a packed picture as it does a photo, by one matrix of the same parameters, and only what lies beyond its resolution is lost.
    A picture is never enlarged, and one that is no larger than `size` and in the wanted format already is kept byte for byte.

    Attributes:
      format: jpeg | webp (at quality 100 without loss) | raw: a PPM file, uint8 [h, w, 3] after a header of a few bytes.
      size: of the shorter side in pixels; 0 = the photo's own.
      quality: of JPEG and WebP, 1..100.
    """

    format: str
    size: int
    quality: int

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a photo of this height and width is kept at."""
        short = min(height, width)
        if not self.size or short <= self.size:
            return height, width
        return round(height * self.size / short), round(width * self.size / short)

    def store(self, reader: ImageReader, row: int, sha256: str, full_size: tuple[int, int]) -> Stored:
        """Reads a photo, and gives it this form.

        Args:
          reader, row: of the photo.
          sha256: of the file's bytes, where the photo is a file; they are compared.
          full_size: (height, width) of the photo, upright.

        Raises:
          UserError, ImageError, OSError: if the photo can't be read, or has changed.
        """
        target = self.target(*full_size)
        base, at = unwrapped(reader, row)
        if not isinstance(base, Reader):
            return self._encoded(reader[row], target)
        data, _ = base.encoded(at)
        if isinstance(data, np.ndarray):
            return self._encoded(pixels_of(data, base.decoding), target)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError("changed", "other bytes than when it was verified")
        noisy = base.noisy is not None and bool(base.noisy[at])
        if target == full_size and not noisy and self._is_kept(data):
            return Stored(data, *target, True)
        # A JPEG is decoded at a reduced scale only where that still has twice the pixels that are kept.
        return self._encoded(base.decoded(at, data, (2 * target[0], 2 * target[1])), target)

    def _is_kept(self, data: bytes) -> bool:
        return formats.plain_jpeg(data) is not None if self.format == "jpeg" else sniff(data[:16]) == "WebP" and self.format == "webp"

    def _encoded(self, pixels: np.ndarray, target: tuple[int, int]) -> Stored:
        same = pixels.shape[:2] == target
        if not same:
            pixels = augment.render(pixels, augment.Draw(), target, interpolation="bicubic")
        if self.format == "raw":
            return Stored(b"P6\n%d %d\n255\n" % target[::-1] + pixels.tobytes(), *target, same)
        extension, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        if self.format == "webp":  # in OpenCV, what is above 100 is without loss
            extension, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101 if self.quality == _LOSSLESS else self.quality]
            if max(target) > 16383:
                raise UserError(f"A picture of {target[1]}x{target[0]} pixels is too large for WebP: give a --size, or --format jpeg.")
        record = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()
        return Stored(record, *target, same and self.format == "webp" and self.quality == _LOSSLESS)


def raw_pixels(record: bytes | memoryview) -> np.ndarray:
    """The picture in a record of the format raw: uint8 [h, w, 3], in the record's own memory.

    Raises:
      ImageError: if it is none.
    """
    header = _PPM.match(record)
    if header is None or len(record) != header.end() + 3 * int(header[1]) * int(header[2]):
        raise ImageError("damaged", f"no picture of plain pixels, begins with {bytes(record[:16])!r}")
    return np.frombuffer(record, np.uint8, offset=header.end()).reshape(int(header[2]), int(header[1]), 3)
