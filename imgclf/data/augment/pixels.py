"""Operations on the pixels of a view that are neither geometry nor one affine colour map: uint8 [H, W, 3] → uint8 [H, W, 3].

Those that Pillow has (ImageOps, ImageEnhance) give its result to one grey level, in a third of its time or less: OpenCV's tables and
filters work on the array as it is, and leave the interpreter to other threads. No operation writes to its input; one without effect
returns it.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from imgclf.config import Config
from imgclf.errors import UserError

_LEVELS = np.arange(256)
_GREY = np.array([19595, 38470, 7471]) / 65536  # Pillow's weights of R, G and B, ITU-R 601
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # Pillow's ImageFilter.SMOOTH


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation as drawn."""

    name: str  # a function of this module, or one of the turns of `policies`
    amount: float = 0.0  # its second argument
    seed: int = 0  # of noise


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of `config.augment` that has an operation of its own, of the same name.

    A new operation needs its function and one of these in `FIELDS`, in this file, and the field with its default in config/fields.py.

    Attributes:
      operation: its function: (image), (image, amount) or (image, amount, seed).
      place: of its random number in the view's stream. Places are given once, one after another: the draws of all others stay as they are.
      amount: (the field, a number uniform in 0 to 1) → the operation's amount, or None: not this time.
      is_valid, expected: the test of the field's value, and what a message says of it.
      example: of a field's value, for the gallery; remark: what it means there.
      shown: the amounts that the gallery shows, and their caption.
    """

    operation: Callable[..., np.ndarray]
    place: int
    amount: Callable[[Any, float], float | None]
    is_valid: Callable[[Any], bool]
    expected: str
    example: str
    remark: str
    shown: tuple[float, ...]
    caption: str = "{:g}"

    @property
    def name(self) -> str:
        """Of the field, and of the operation."""
        return self.operation.__name__


def is_on(augment: Any) -> bool:
    """Whether `config.augment` has operations of its own, those of a policy apart."""
    return any(getattr(augment, field.name) for field in FIELDS)


def check(config: Config) -> None:
    """Raises a UserError for a field out of its range."""
    for field in FIELDS:
        value = config.augment[field.name]
        if not field.is_valid(value):
            raise UserError(f"config.augment.{field.name}={value!r} is not valid; expected {field.expected}.")


def draw(rng: np.random.Generator, augment: Any) -> tuple[Operation, ...]:
    """Draws the operations of the config's own fields, in the order in which they apply: as a camera and its software would.

    Args:
      rng: see `view_rng`, of kind PIXELS.
      augment: `config.augment`.
    """
    first, seed = rng.random(8), int(rng.integers(2**32))  # in this order since there were eight
    u = [*first.tolist(), *rng.random(len(FIELDS) - 8).tolist()]
    drawn = []
    for field in FIELDS:
        value = getattr(augment, field.name)
        amount = field.amount(value, u[field.place]) if value else None
        if amount is not None:
            drawn.append(Operation(field.name, amount, seed if _ARGUMENTS[field.name] == 2 else 0))
    return tuple(drawn)


def apply(image: np.ndarray, operations: tuple[Operation, ...]) -> np.ndarray:
    """Puts an image, uint8 [H, W, 3], through operations one after another."""
    for operation in operations:
        image = _OPERATIONS[operation.name](image, *(operation.amount, operation.seed)[: _ARGUMENTS[operation.name]])
    return image


def takes_amount(name: str) -> bool:
    """Whether the operation of this name has an amount."""
    return _ARGUMENTS.get(name, 1) > 0  # a policy's turns have one, too


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies by `factor`, 0 = black: Pillow's ImageEnhance.Brightness."""
    return image if factor == 1 else cv2.LUT(image, _blend(0, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance to the image's mean grey by `factor`: Pillow's ImageEnhance.Contrast."""
    if factor == 1:
        return image
    return cv2.LUT(image, _blend(int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5), factor))


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance of each pixel to its grey by `factor`, 0 = black and white: Pillow's ImageEnhance.Color."""
    if factor == 1:
        return image
    mixed = factor * np.eye(3) + (1 - factor) * _GREY
    return cv2.transform(image, np.column_stack([mixed, np.full(3, -0.5)]))  # - 0.5, as Pillow cuts fractions off


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Scales the distance to a smoothed image by `factor`, 0 = smoothed; the outermost pixels stay: Pillow's ImageEnhance.Sharpness."""
    if factor == 1:
        return image
    kernel = (1 - factor) * _SMOOTH
    kernel[1, 1] += factor
    out = cv2.filter2D(image, -1, kernel, delta=-0.5)
    out[0], out[-1], out[:, 0], out[:, -1] = image[0], image[-1], image[:, 0], image[:, -1]
    return out


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the upper `bits`, 0..8, of each channel: Pillow's ImageOps.posterize."""
    return image if bits == 8 else image & np.uint8(256 - 2 ** (8 - int(bits)))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts the channels of `threshold` and above: Pillow's ImageOps.solarize."""
    return image if threshold > 255 else cv2.LUT(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def clahe(image: np.ndarray, limit: float) -> np.ndarray:
    """Raises local contrast: the lightness (of CIE Lab) is equalized in 8x8 tiles, no level by more than `limit` times the mean.

    Contrast limited adaptive histogram equalization, Zuiderveld in "Graphics Gems IV" (1994); as albumentations' CLAHE.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lightness = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[:, :, 0]))
    lab[:, :, 0] = lightness
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def invert(image: np.ndarray) -> np.ndarray:
    """The negative."""
    return cv2.bitwise_not(image)


def equalize(image: np.ndarray) -> np.ndarray:
    """Flattens the histogram of each channel: Pillow's ImageOps.equalize."""
    counts = _histogram(image)
    tables = np.repeat(_LEVELS[:, None], 3, 1)
    for channel, count in enumerate(counts):
        present = count[count > 0]
        step = int(present.sum() - present[-1]) // 255
        if len(present) > 1 and step:
            tables[:, channel] = np.minimum((step // 2 + np.cumsum(count) - count) // step, 255)
    return cv2.LUT(image, tables.astype(np.uint8)[:, None])


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Spreads each channel over 0..255: Pillow's ImageOps.autocontrast."""
    low, high = np.array([cv2.minMaxLoc(channel)[:2] for channel in cv2.split(image)]).T
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1)
    offset = np.where(high > low, -low * scale - 0.499, 0)  # Pillow cuts fractions off, where this rounds
    return cv2.transform(image, np.column_stack([np.diag(scale), offset]))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a standard deviation in pixels; the image is mirrored at its edges."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image


def noise(image: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Adds Gaussian noise of a standard deviation in grey levels, rounded, to every channel of every pixel on its own.

    Random words choose among 65,536 quantiles of the normal distribution: a third of the time of drawing from it, and the same in
    any version of numpy.
    """
    if sigma <= 0:
        return image
    words = np.random.SFC64(seed).random_raw(-(-image.size // 4)).view(np.uint16)[: image.size]
    return cv2.add(image, np.rint(sigma * _quantiles()).astype(np.int16)[words].reshape(image.shape), dtype=cv2.CV_8U)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Codes as JPEG of a quality, 1..100 (colours at half the resolution), and decodes."""
    coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None  # it was coded just now
    return decoded


def _blend(degenerate: int, factor: float) -> np.ndarray:
    """The table of Pillow's Image.blend of a constant with an image, uint8 [256]; fractions are cut off."""
    return np.clip(degenerate + np.float32(factor) * (_LEVELS - degenerate).astype(np.float32), 0, 255).astype(np.uint8)


def _histogram(image: np.ndarray) -> np.ndarray:
    """int64 [3, 256]."""
    return np.stack([cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]).astype(np.int64)


@functools.cache
def _quantiles() -> np.ndarray:
    from scipy.special import ndtri  # a quarter of a second, which nothing else here needs

    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


def _with_probability(amount: float) -> Callable[[Any, float], float | None]:
    return lambda probability, u: amount if u < probability else None


_PROBABILITY: tuple[Callable[[Any], bool], str] = (lambda v: 0 <= v <= 1, "between 0 and 1")
_NOT_NEGATIVE: tuple[Callable[[Any], bool], str] = (lambda v: v >= 0, "0 or more")

FIELDS = (  # in the order in which they apply
    Field(
        equalize,
        0,
        _with_probability(0.0),
        *_PROBABILITY,
        "0.2",
        "Probability of flattening each channel's histogram.",
        (0,),
        "applied",
    ),
    Field(
        autocontrast, 1, _with_probability(0.0), *_PROBABILITY, "0.2", "Probability of spreading each channel to 0..255.", (0,), "applied"
    ),
    Field(
        clahe,
        8,
        lambda most, u: float(1 + (most - 1) * u),
        lambda v: v == 0 or v > 1,
        "above 1, or 0 for none",
        "4.0",
        "Limit of the local contrast, 1 to this.",
        (1.5, 2, 3, 4),
        "limit {:g}",
    ),
    Field(
        posterize,
        2,
        lambda most, u: 8 - int(u * (most + 1)),
        lambda v: 0 <= v <= 7,
        "a whole number between 0 and 7",
        "6",
        "Bits taken away, 0 to this.",
        (6, 4, 3, 2),
        "{:g} bits left",
    ),
    Field(
        solarize, 3, _with_probability(128), *_PROBABILITY, "0.2", "Probability of inverting what is 128 or brighter.", (128,), "applied"
    ),
    Field(
        sharpness,
        4,
        lambda width, u: float(1 + width * (2 * u - 1)),
        *_PROBABILITY,
        "1.0",
        "A factor, uniform in 1 ± this.",
        (0, 0.5, 1.5, 2),
        "× {:g}",
    ),
    Field(
        blur,
        5,
        lambda most, u: float(most * u),
        *_NOT_NEGATIVE,
        "4.0",
        "Gaussian; a standard deviation in pixels, 0 to this.",
        (0.5, 1, 2, 4),
        "{:g} px",
    ),
    Field(
        noise,
        6,
        lambda most, u: float(most * u),
        *_NOT_NEGATIVE,
        "50.0",
        "Gaussian; a standard deviation in grey levels, 0 to this.",
        (5, 15, 30, 50),
    ),
    Field(
        jpeg,
        7,
        lambda most, u: 100 - lost if (lost := int(u * (most + 1))) else None,
        lambda v: 0 <= v <= 99,
        "a whole number between 0 and 99",
        "95",
        "Quality lost, 0 to this.",
        (60, 30, 15, 5),
        "quality {:g}",
    ),
)

_FUNCTIONS: tuple[Callable[..., np.ndarray], ...] = (brightness, contrast, color, invert, *(field.operation for field in FIELDS))
_OPERATIONS = {function.__name__: function for function in _FUNCTIONS}
_ARGUMENTS = {name: len(inspect.signature(function).parameters) - 1 for name, function in _OPERATIONS.items()}
