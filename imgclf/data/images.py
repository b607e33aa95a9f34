"""From the bytes of an image file to pixels: decoding, orientation, colour profile, inspection, perceptual hash."""

import contextlib
import dataclasses
import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from imgclf.config.fields import DataConfig
from imgclf.data import color_profile, formats, native_messages, value_range
from imgclf.data.formats import EXTENSIONS, UNSUPPORTED_EXTENSIONS, sniff
from imgclf.data.orientation import orientation_of, upright
from imgclf.data.perceptual_hash import perceptual_hash
from imgclf.data.value_range import KindRange, Samples
from imgclf.errors import UserError

__all__ = [
    "EXTENSIONS",
    "UNSUPPORTED_EXTENSIONS",
    "Decoding",
    "ImageError",
    "Inspection",
    "ValueRange",
    "decode",
    "inspect",
    "pixels_of",
    "size",
    "sniff",
]

# Raised when `inspect` would judge or measure the same bytes differently: it is part of the verification cache's key.
INSPECTION_VERSION = 3

ValueRange = tuple[float, float] | tuple[KindRange, ...]  # as config.data.value_range
_REDUCED = ((8, cv2.IMREAD_REDUCED_GRAYSCALE_8), (4, cv2.IMREAD_REDUCED_GRAYSCALE_4), (2, cv2.IMREAD_REDUCED_GRAYSCALE_2), (1, 0))

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with an image is said by its ImageError


class ImageError(Exception):
    """An image that can't be used. `reason` is one of:

    truncated, damaged (the format is known, the data are wrong), empty, not_an_image, unsupported, too_many_pixels.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How stored images become pixels; the same for all images of a run, and for its predictions.

    Attributes:
      max_pixels: larger images are refused from their header, before decoding; None = any size.
      color_profile: whether ICC profiles are applied, so that pixels are sRGB.
      value_range: (black, white) of all images of more than 8 bits; None = by what the file says, then by `kinds`, then by the values that
        the image has, see `value_range.decide`.
      kinds: (black, white) by the kind of images whose files say nothing.
      by_own_values: whether, where all of these say nothing, an image's own values decide; where not all images have been looked at, they
        would decide otherwise than the values of all.
    """

    max_pixels: int | None = None
    color_profile: bool = True
    value_range: tuple[float, float] | None = None
    kinds: tuple[KindRange, ...] = ()
    by_own_values: bool = True

    @classmethod
    def of(cls, data: DataConfig, otherwise: ValueRange = ()) -> Self:
        """What `config.data` says; where it names no value range, the range is `otherwise`.

        Raises:
          UserError: for a value_range that is neither (black, white) nor rows of (kind, black, white).
        """
        asked: Any = data.value_range or otherwise
        plain = len(asked) == 2 and all(isinstance(value, int | float) for value in asked)
        try:
            rows = [("", *asked)] if plain else list(asked)
            ranges = [(str(kind), float(black), float(white)) for kind, black, white in rows]
            valid = all(black < white for _, black, white in ranges)
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise UserError(
                f"config.data.value_range={asked!r} is not valid; expected (black, white), such as (0, 4095), or rows of (kind, black, "
                'white), such as (("uint16", 0, 4095),), with black below white.'
            )
        return cls(data.max_pixels, data.color_profile, ranges[0][1:] if plain else None, () if plain else tuple(ranges))

    def range_of(self, samples: Samples) -> tuple[float, float]:
        """Black and white of an image.

        Raises:
          UserError: if nothing says what they are.
        """
        if self.value_range is not None:
            return self.value_range
        if samples.declared is not None:
            return samples.declared
        if samples.kind not in self._by_kind and not self.by_own_values:
            raise UserError(
                f"An image of more than 8 bits ({samples.kind}) is among images that are verified in the background, so that nobody knows "
                "yet which of its values are black and white: set config.data.value_range, or config.data.verify='first'."
            )
        return self._by_kind.get(samples.kind) or value_range.decide(samples.kind, *value_range.bounds(samples))

    @functools.cached_property
    def _by_kind(self) -> Mapping[str, tuple[float, float]]:
        return {kind: (black, white) for kind, black, white in self.kinds}


class Inspection(NamedTuple):
    """What verification learns of one image; `reason` is "" for a good one, else see `ImageError`."""

    reason: str = ""
    detail: str = ""
    sha256: str = ""  # of the file's bytes, or of the pixels where there is no file
    width: int = 0  # oriented, pixels
    height: int = 0
    phash: int = 0  # 64 bits as a signed integer
    kind: str = ""  # of an image of more than 8 bits whose file does not say which of its values is white; see `value_range`
    low: float = 0.0  # the least and the greatest value of such an image
    high: float = 0.0


def decode(data: bytes, *, min_size: tuple[int, int] | None = None, decoding: Decoding = Decoding(), by_pillow: bool = False) -> np.ndarray:
    """Decodes an image file: first frame, EXIF orientation applied, alpha over white, more than 8 bits scaled to 8, colours in sRGB.

    JPEGs take OpenCV's decoder, 1.5x as fast as Pillow's. On 2,398 JPEGs (photographs; 32x32 pictures) and on synthetic ones of each
    subsampling, baseline and progressive, at full and reduced scale, its pixels equal Pillow's (greatest difference 0): both use
    libjpeg-turbo. From memory it refuses truncated files; `cv2.imread`, from disk, takes them for good ones.

    Args:
      data: the file's bytes.
      min_size: (height, width); a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as neither side gets smaller.
      decoding: see `Decoding`.
      by_pillow: JPEGs by Pillow: slower, but for slightly damaged ones OpenCV's libjpeg writes messages to the standard error stream.

    Returns:
      uint8 [h, w, 3], RGB.

    Raises:
      ImageError: if the data are not a whole image of a known format.
    """
    header = None if by_pillow else formats.plain_jpeg(data)
    if header is not None:
        _check_pixels(header.width, header.height, decoding.max_pixels)
        orientation = 1
        if header.has_app1:
            with _open(data, decoding.max_pixels) as image:
                orientation = orientation_of(image)
        flag = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _reduction(header, orientation, min_size)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        if pixels is not None:  # else Pillow says what is wrong
            if decoding.color_profile:
                pixels = color_profile.to_srgb(pixels, header.profile)
            return upright(pixels, orientation)
    if (samples := _unknown_to_pillow(data, decoding.max_pixels)) is not None:
        return _scaled(samples, decoding, b"")
    with _open(data, decoding.max_pixels) as image, _reported(image.format or "image"):
        profile = image.info.get("icc_profile") or b"" if decoding.color_profile else b""
        if (samples := value_range.stored(image, data)) is not None:
            return upright(_scaled(samples, decoding, profile), orientation_of(image))
        if min_size is not None and image.format in ("JPEG", "MPO"):
            need_h, need_w = min_size if orientation_of(image) < 5 else min_size[::-1]
            image.draft(None, (need_w, need_h))
        image.load()  # before the orientation is read: TIFF turns itself while loading
        return upright(_rgb(image, profile), orientation_of(image))


def size(data: bytes, max_pixels: int | None) -> tuple[int, int]:
    """Height and width of an image file, oriented, from its header.

    Raises:
      ImageError: if there is none, or it announces too many pixels.
    """
    header = formats.plain_jpeg(data)
    if header is not None and not header.has_app1:
        _check_pixels(header.width, header.height, max_pixels)
        return header.height, header.width
    if (samples := _unknown_to_pillow(data, max_pixels)) is not None:
        return samples.values.shape[0], samples.values.shape[1]
    with _open(data, max_pixels) as image, _reported(image.format or "image"):
        width, height = image.size
        return (height, width) if orientation_of(image) < 5 else (width, height)


def pixels_of(array: np.ndarray, decoding: Decoding = Decoding()) -> np.ndarray:
    """Checks an image given as an array and returns it as uint8 [h, w, 3]; accepts [h, w], [h, w, 1] and [h, w, 3].

    Another type than uint8 needs a range of values in `decoding`: of one array alone nobody can tell which value is white.

    Raises:
      ImageError: for another shape or dtype.
    """
    if not array.size:
        raise ImageError("empty", f"an array of shape {list(array.shape)}")
    samples = value_range.from_array(array)
    if samples is not None and (decoding.value_range or any(row[0] == samples.kind for row in decoding.kinds)):
        return _scaled(samples, decoding, b"")
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise ImageError("unsupported", f"an array of {array.dtype} {list(array.shape)}, not uint8 [h, w], [h, w, 1] or [h, w, 3]")
    if array.ndim == 2:
        array = array[:, :, None]
    return array if array.shape[2] == 3 else np.repeat(array, 3, axis=2)


def pixels_of_picture(picture: Image.Image, decoding: Decoding = Decoding()) -> np.ndarray:
    """The pixels of an image that Pillow holds, as `decode` gives them of its file: uint8 [h, w, 3], upright, alpha over white.

    What Pillow has not read yet is decoded from the file itself, as Pillow makes 8 bits of 16-bit colours.

    Raises:
      ImageError: if Pillow can't read it to its end.
    """
    profile = picture.info.get("icc_profile") or b"" if decoding.color_profile else b""
    with _reported(picture.format or "image"):
        _check_pixels(*picture.size, decoding.max_pixels)
        if (data := _unread(picture)) is not None:
            return decode(data, decoding=decoding)
        picture.load()  # before the orientation is read: TIFF turns itself while loading
        samples = value_range.held(picture)
        pixels = _rgb(picture, profile) if samples is None else _scaled(samples, decoding, profile)
        return upright(pixels, orientation_of(picture))


def _unread(picture: Image.Image) -> bytes | None:
    """The file of an image of which Pillow has read the header only; None where it has read more, or stands at another frame."""
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile or picture.tell():
        return None
    if picture.fp is None or not picture.fp.seekable():
        return None
    position = picture.fp.tell()
    picture.fp.seek(0)
    data = picture.fp.read()
    picture.fp.seek(position)
    return data


def inspect(data: bytes | np.ndarray, max_pixels: int) -> Inspection:
    """Decodes an image (bytes of a file, or an array as for `pixels_of`) to its end and measures it; never raises for a bad one.

    JPEGs are decoded in grey at a reduced scale: every bit of the file is still read, so a truncated one is caught as in
    a full decode, in less time. The perceptual hash is taken of the pixels without their colour profile.
    """
    try:
        return _inspected(data, max_pixels)
    except ImageError as error:
        return Inspection(error.reason, error.detail)


def _inspected(data: bytes | np.ndarray, max_pixels: int) -> Inspection:
    if isinstance(data, np.ndarray):
        samples = value_range.from_array(data) if data.size else None
        pixels = pixels_of(data) if samples is None else _stretched(samples)
        sha256 = hashlib.sha256((pixels if samples is None else np.ascontiguousarray(data)).tobytes()).hexdigest()
        _check_pixels(pixels.shape[1], pixels.shape[0], max_pixels)
        return _measured(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), sha256, samples)
    sha256 = hashlib.sha256(data).hexdigest()
    if (samples := _unknown_to_pillow(data, max_pixels)) is not None:
        return _measured(cv2.cvtColor(_stretched(samples), cv2.COLOR_RGB2GRAY), sha256, samples)
    header = formats.plain_jpeg(data) if native_messages.holding() else None  # else by Pillow, which writes no messages
    if header is not None and (found := _jpeg_measured(data, header, sha256, max_pixels)) is not None:
        return found
    with _open(data, max_pixels) as image, _reported(image.format or "image"):
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            width, height = image.size
            image.draft("L", (64, 64))
            orientation = orientation_of(image)
            grey = upright(np.asarray(image), orientation)
            return _measured(grey, sha256, None, (width, height) if orientation < 5 else (height, width))
        samples = value_range.stored(image, data)
        if samples is None:
            image.load()
        pixels = _rgb(image, b"") if samples is None else _stretched(samples)
        return _measured(cv2.cvtColor(upright(pixels, orientation_of(image)), cv2.COLOR_RGB2GRAY), sha256, samples)


def _jpeg_measured(data: bytes, header: formats.PlainJpeg, sha256: str, max_pixels: int) -> Inspection | None:
    """By the decoder that training takes, so that its messages show here; None where it refuses the image, and Pillow says why."""
    with _open(data, max_pixels) as image:
        orientation = orientation_of(image)
    least = (min(64, header.height), min(64, header.width))
    flag = _reduction(header, 1, least) or cv2.IMREAD_GRAYSCALE
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if grey is None:
        return None
    size = (header.width, header.height) if orientation < 5 else (header.height, header.width)
    return _measured(upright(grey, orientation), sha256, None, size)


def _measured(grey: np.ndarray, sha256: str, samples: Samples | None, size: tuple[int, int] | None = None) -> Inspection:
    width, height = size or grey.shape[::-1]
    found = Inspection("", "", sha256, width, height, perceptual_hash(grey, sha256))
    if samples is None or samples.declared is not None:
        return found
    low, high = value_range.bounds(samples)
    return found._replace(kind=samples.kind, low=low, high=high)


def _open(data: bytes, max_pixels: int | None) -> Image.Image:
    """Reads the header; raises ImageError if there is none, or it announces too many pixels."""
    if not data:
        raise ImageError("empty", "0 bytes")
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)  # Pillow's own limit must not undercut the configured one
    name = sniff(data[:16])
    if name == "HEIC" and not formats.has_heif():
        raise ImageError("unsupported", formats.WITHOUT_HEIF)
    try:
        with _reported(name or "image"):
            image = Image.open(io.BytesIO(data), formats=formats.candidates(data))
    except ImageError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        if name == "JPEG XL":
            raise ImageError("unsupported", "JPEG XL, whatever its name says; convert it to JPEG or PNG") from None
        if name == "TIFF" and (what := value_range.unknown_tiff(data)):
            raise ImageError("unsupported", f"{what}; a picture has one band (grey), three (RGB) or four (RGBA)") from None
        if name:
            raise ImageError("truncated", f"begins like {name}, but its header is incomplete or damaged ({len(data)} bytes)") from None
        raise ImageError("not_an_image", f"begins with {data[:24]!r}") from None
    _check_pixels(*image.size, max_pixels)
    return image


def _unknown_to_pillow(data: bytes, max_pixels: int | None) -> Samples | None:
    """The values of a TIFF that only OpenCV reads, such as RGB in floats; None for all other files."""
    if sniff(data[:16]) != "TIFF":
        return None
    try:
        Image.open(io.BytesIO(data), formats=("TIFF",)).close()
    except UnidentifiedImageError:
        samples = value_range.unknown_tiff(data, max_pixels)
        return None if isinstance(samples, str) else samples
    except Exception:
        return None  # said by the way that all other files go
    return None


@contextlib.contextmanager
def _reported(format_name: str) -> Iterator[None]:
    """Turns what a decoder raises into an ImageError; plugins meet damaged data with nearly every type of exception."""
    try:
        yield
    except (ImageError, MemoryError, UserError):
        raise
    except Exception as error:
        raise _as_image_error(error, format_name) from error


def _as_image_error(error: Exception, format_name: str) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too_many_pixels", str(error))
    text = str(error) or type(error).__name__
    # WebP's decoder says no more than that it could not be created.
    short = isinstance(error, EOFError) or any(word in text.lower() for word in ("truncated", "not enough", "end of file", "eof"))
    return ImageError("truncated" if short or "could not create decoder" in text else "damaged", f"{format_name}: {text}")


def _check_pixels(width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width}x{height} = {width * height:,} pixels, more than {max_pixels:,}")


def _reduction(header: formats.PlainJpeg, orientation: int, min_size: tuple[int, int] | None) -> int:
    """OpenCV's flag for the smallest scale at which neither side gets below `min_size`."""
    if min_size is None:
        return 0
    need_h, need_w = min_size if orientation < 5 else min_size[::-1]
    return next(bits for scale, bits in _REDUCED if scale == 1 or (header.height // scale >= need_h and header.width // scale >= need_w))


def _rgb(image: Image.Image, profile: bytes) -> np.ndarray:
    """uint8 [h, w, 3] of a loaded image of any mode of 8 bits or fewer."""
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    try:
        pixels = np.array(color_profile.cmyk_to_srgb(image, profile) if image.mode == "CMYK" else image.convert("RGB"))
    except ValueError as error:  # such as LAB, which needs a colour profile
        raise ImageError("unsupported", f"mode {image.mode}: {error}") from error
    pixels = color_profile.to_srgb(pixels, profile)
    if alpha is None:
        return pixels
    over = Image.fromarray(pixels).convert("RGBA")
    over.putalpha(alpha)
    return np.array(Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB"))


def _scaled(samples: Samples, decoding: Decoding, profile: bytes) -> np.ndarray:
    _check_finite(samples)
    return color_profile.to_srgb(value_range.scaled(samples, *decoding.range_of(samples)), profile)


def _stretched(samples: Samples) -> np.ndarray:
    """The image over its own range of values: what copies at other ranges look like, too."""
    _check_finite(samples)
    low, high = value_range.bounds(samples)
    return value_range.scaled(samples, low, max(high, low + 1e-12))


def _check_finite(samples: Samples) -> None:
    if not np.isfinite(samples.values).all():
        raise ImageError("damaged", "pixels that are not finite")
