"""Images of more than 8 bits: which of their values is black, and which is white.

A file of 16 bits may hold 8, 12 or 16 of them, integers of 32 bits the grey levels 0 to 255, floats anything: the type says little.
A file's own word counts (TIFF's BitsPerSample, SMinSampleValue and SMaxSampleValue). Where it says nothing, the range is decided once for
all images of one *kind* in the data set, from the least and the greatest value in them, so that brightness means the same in all of them.
"""

import io
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

KindRange = tuple[str, float, float]  # kind, black, white
_WIDTH, _HEIGHT, _BITS, _PER_PIXEL, _FORMAT, _LEAST, _GREATEST = 256, 257, 258, 277, 339, 340, 341  # TIFF tags
_COMMON_BITS = (8, 10, 12, 14, 16)  # of cameras, scanners and microscopes
_OVERSHOOT = 0.05  # of floats around 0 to 1, by resampling


class Samples(NamedTuple):
    """The values of an image as they are stored.

    `kind` is their type, such as "uint16" or "float32", and "uint16/12" where a PNG says that 12 bits are significant; `declared` is
    (black, white) where the file says so, else None.
    """

    values: np.ndarray  # [h, w] or [h, w, 3], of any number type
    alpha: np.ndarray | None  # [h, w], of the same type
    kind: str
    declared: tuple[float, float] | None


def stored(image: Image.Image, data: bytes) -> Samples | None:
    """The stored values of an image of more than 8 bits; None for one of 8 or fewer.

    Args:
      image: as Pillow opened it; it may get loaded.
      data: the file's bytes, as Pillow makes 8 bits of each 16-bit colour.
    """
    if image.format == "PNG":
        if data[24:25] != b"\x10":
            return None
        bits = _significant_bits(data)
        kind = f"uint16/{bits}" if bits and bits < 16 else "uint16"
        values = np.asarray(image).astype(np.uint16) if data[25] == 0 and "transparency" not in image.info else _unchanged(data)
        return None if values is None else _samples(values, kind, None)
    if image.format == "TIFF":
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        return _of_tiff(image, data)
    return held(image)


def held(image: Image.Image) -> Samples | None:
    """The values of an image that Pillow holds in more than 8 bits; None for one of 8 or fewer."""
    if not (image.mode.startswith("I;16") or image.mode in ("I", "F")):
        return None
    values = np.asarray(image)
    # Pillow scales what these two formats hold to all of 16 bits.
    declared = (0.0, 65535.0) if image.format in ("PPM", "JPEG2000") and values.dtype != np.float32 else None
    return _samples(values, values.dtype.name, declared)


def unknown_tiff(data: bytes, max_pixels: int | None = None) -> Samples | str:
    """The values of a TIFF that Pillow doesn't open, or what it is in words, where nobody can show it; "" where it is damaged."""
    tags = _tags(data)
    if tags is None or not _is_whole(tags, len(data)):
        return ""
    if max_pixels is not None and max(_tuple(tags[_WIDTH])) * max(_tuple(tags[_HEIGHT])) > max_pixels:
        return "a TIFF of more pixels than config.data.max_pixels"
    bands, bits = (int(max(_tuple(tags.get(tag, 1)))) for tag in (_PER_PIXEL, _BITS))
    named = {1: "unsigned integers", 2: "signed integers", 3: "floats"}.get(int(max(_tuple(tags.get(_FORMAT, 1)))), "unusual numbers")
    values = _unchanged(data) if bands in (1, 3, 4) else None
    if values is None or (values.shape[2] if values.ndim == 3 else 1) != bands:
        return f"a TIFF of {bands} {'band' if bands == 1 else 'bands'} of {bits}-bit {named}"
    return _samples(values, values.dtype.name, _declared(tags))


def from_array(values: np.ndarray) -> Samples | None:
    """The values of an array [h, w], [h, w, 1] or [h, w, 3] of another type than uint8; None for uint8, and for anything else."""
    plain = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3))
    if values.dtype == np.uint8 or values.dtype.kind not in "uif" or not plain:
        return None
    return Samples(values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values, None, values.dtype.name, None)


def decide(kind: str, low: float, high: float) -> tuple[float, float]:
    """Black and white for images of one kind whose values lie between `low` and `high`.

    Of several plausible answers it is the common one: 0 to 2**n - 1 for the number of bits that the values need, of 8, 10, 12, 14 and 16
    where they fill a quarter of that; 0 to 1 for floats around it. Values below 0 reach to a power of two.
    """
    name, _, bits = kind.partition("/")
    if bits:
        return (0.0, 2.0 ** int(bits) - 1) if high < 2 ** int(bits) else (0.0, 65535.0)
    if name.startswith("float") and low >= -_OVERSHOOT and 0.25 <= high <= 1 + _OVERSHOOT:
        return 0.0, 1.0
    if name.startswith("float") and max(-low, high) <= 1 + _OVERSHOOT and max(-low, high) >= 0.25:
        return -1.0, 1.0
    if low < 0:
        return -_power(-low), (_power(high + 1) - (0 if name.startswith("float") else 1)) if high > 0 else 0.0
    greatest = np.iinfo(name).max if not name.startswith("float") else math.inf  # int16 holds no value of 16 bits
    for common in _COMMON_BITS:
        if 2 ** (common - 2) <= high <= 2**common - 1 <= greatest:
            return 0.0, 2.0**common - 1
    if name.startswith("float"):
        return 0.0, _power(high)
    return 0.0, max(1.0, _power(high + 1) - 1)


def scaled(samples: Samples, black: float, white: float) -> np.ndarray:
    """uint8 [h, w, 3]: black becomes 0 and white 255, values beyond them too; transparent pixels lie over white."""
    pixels = _to_bytes(samples.values, black, white)
    pixels = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
    if samples.alpha is None:
        return pixels
    over = Image.fromarray(np.dstack([pixels, _to_bytes(samples.alpha, black, white)]))
    return np.array(Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB"))


def bounds(samples: Samples) -> tuple[float, float]:
    """The least and the greatest value; not finite where some values are not."""
    return float(samples.values.min()), float(samples.values.max())


def told(kind: str, black: float, white: float, lows: np.ndarray, highs: np.ndarray, names: Sequence[str]) -> str:
    """The sentence for the log and the report.

    Args:
      kind, black, white: what was decided.
      lows, highs: float [n], the least and greatest value of each of the kind's images.
      names: of these images.
    """
    dark = np.flatnonzero(highs - black < (white - black) / 16)
    sentence = (
        f"{len(highs):,} of the images are {kind.replace('/', ', significant bits: ')} with values from {lows.min():g} to {highs.max():g}: "
        f"black is {black:g} and white {white:g} (config.data.value_range sets the range)."
    )
    if len(dark):
        sentence += f" {len(dark):,} of them use less than a sixteenth of that range and are nearly black, such as {names[dark[0]]}."
    return sentence


def _power(value: float) -> float:
    """The least power of two that is not below `value`; 1 for 0."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 1.0


def _to_bytes(values: np.ndarray, black: float, white: float) -> np.ndarray:
    span = max(white - black, np.finfo(np.float64).tiny)
    if values.dtype == np.uint16:  # by a table: four times as fast
        return _to_bytes(np.arange(65536.0), black, white)[values]
    return np.rint(np.clip((values.astype(np.float64) - black) * (255.0 / span), 0, 255)).astype(np.uint8)


def _samples(values: np.ndarray, kind: str, declared: tuple[float, float] | None) -> Samples:
    if values.ndim == 3 and values.shape[2] in (2, 4):
        return Samples(values[:, :, 0] if values.shape[2] == 2 else values[:, :, :3], values[:, :, -1], kind, declared)
    return Samples(values, None, kind, declared)


def _of_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> Samples | None:
    tags = dict(image.tag_v2)
    bits, signed = max(_tuple(tags.get(_BITS, 1))), max(_tuple(tags.get(_FORMAT, 1))) == 2
    declared = _declared(tags)
    if bits <= 8 and not signed:
        return None
    if image.mode == "L":  # Pillow takes signed bytes for unsigned ones
        return _samples(np.asarray(image).view(np.int8), "int8", declared)
    if not (image.mode.startswith("I;16") or image.mode in ("I", "F")):
        values = _unchanged(data)
        return None if values is None else _samples(values, values.dtype.name, declared)
    values = np.asarray(image)
    if values.dtype == np.int32 and not signed:
        values = values.view(np.uint32)
    elif values.dtype == np.int32 and bits == 16:
        values = values.astype(np.int16)
    return _samples(values, values.dtype.name, declared)


def _declared(tags: dict[int, object]) -> tuple[float, float] | None:
    """What the tags say of black and white: sample values, else a number of bits that no type has."""
    if _GREATEST in tags:
        low, high = (_tuple(tags.get(tag, 0)) for tag in (_LEAST, _GREATEST))
        if min(low) < max(high):
            return float(min(low)), float(max(high))
    bits = max(_tuple(tags.get(_BITS, 1)))
    return (0.0, 2.0**bits - 1) if 8 < bits < 16 else None


def _tuple(value: object) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, tuple) else (float(value),) if isinstance(value, int | float) else (0.0,)


def _tags(data: bytes) -> dict[int, object] | None:
    """The tags of a TIFF's first image; None where they can't be read."""
    try:
        big = data[2:4] in (b"+\0", b"\0+")
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
        stream = io.BytesIO(data)
        stream.seek(directory.next)
        directory.load(stream)
        tags = dict(directory)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError, struct.error):
        return None
    return tags if _WIDTH in tags and _HEIGHT in tags else None


def _is_whole(tags: dict[int, object], length: int) -> bool:
    """Whether a TIFF of so many bytes holds all the strips or tiles that its tags name."""
    for starts, counts in ((273, 279), (324, 325)):
        if starts in tags and counts in tags:
            return max(map(sum, zip(_tuple(tags[starts]), _tuple(tags[counts]), strict=False))) <= length
    return False


def _unchanged(data: bytes) -> np.ndarray | None:
    """The stored values by OpenCV, [h, w], [h, w, 3] (RGB) or [h, w, 4]; None where it can't read them."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim == 2:
        return values
    return np.ascontiguousarray(values[:, :, [2, 1, 0, 3][: values.shape[2]]]) if values.shape[2] > 2 else values


def _significant_bits(data: bytes) -> int:
    """The most bits that a PNG's sBIT chunk calls significant; 0 where there is none."""
    at = 8
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"sBIT":
            return max(data[at + 8 : at + 8 + length], default=0)
        if name == b"IDAT":
            return 0
        at += 12 + length
    return 0
