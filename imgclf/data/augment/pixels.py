"""Operations on the pixels of a view that are neither geometry nor one affine colour map: uint8 [H, W, 3] → uint8 [H, W, 3].

Those that Pillow has (ImageOps, ImageEnhance) give its result to one grey level, in a third of its time or less: OpenCV's tables and
filters work on the array as it is, and leave the interpreter to other threads. No operation writes to its input; one without effect
returns it.
"""

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
from scipy.special import ndtri

_LEVELS = np.arange(256)
_GREY = np.array([19595, 38470, 7471]) / 65536  # Pillow's weights of R, G and B, ITU-R 601
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # Pillow's ImageFilter.SMOOTH


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation as drawn."""

    name: str  # a function of this module, or one of the turns of `policies`
    amount: float = 0.0  # its second argument
    seed: int = 0  # of noise


def is_on(augment: Any) -> bool:
    """Whether `config.augment` has operations of its own, those of a policy apart."""
    return any((augment.equalize, augment.autocontrast, augment.posterize, augment.solarize, augment.sharpness)) or any(
        (augment.blur, augment.noise, augment.jpeg)
    )


def draw(rng: np.random.Generator, augment: Any) -> tuple[Operation, ...]:
    """Draws the operations of the config's own fields, in the order in which they apply: as a camera and its software would.

    Args:
      rng: see `view_rng`, of kind PIXELS.
      augment: `config.augment`.
    """
    u, seed = rng.random(8), int(rng.integers(2**32))
    lost = int(u[7] * (augment.jpeg + 1))
    drawn = (
        (u[0] < augment.equalize, Operation("equalize")),
        (u[1] < augment.autocontrast, Operation("autocontrast")),
        (augment.posterize, Operation("posterize", 8 - int(u[2] * (augment.posterize + 1)))),
        (u[3] < augment.solarize, Operation("solarize", 128)),
        (augment.sharpness, Operation("sharpness", float(1 + augment.sharpness * (2 * u[4] - 1)))),
        (augment.blur, Operation("blur", float(augment.blur * u[5]))),
        (augment.noise, Operation("noise", float(augment.noise * u[6]), seed)),
        (lost, Operation("jpeg", 100 - lost)),
    )
    return tuple(operation for is_on, operation in drawn if is_on)


def apply(image: np.ndarray, operations: tuple[Operation, ...]) -> np.ndarray:
    """Puts an image, uint8 [H, W, 3], through operations one after another."""
    for operation in operations:
        if operation.name == "noise":
            image = noise(image, operation.amount, operation.seed)
        elif operation.name in _WITHOUT_AMOUNT:
            image = _WITHOUT_AMOUNT[operation.name](image)
        else:
            image = _WITH_AMOUNT[operation.name](image, operation.amount)
    return image


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
    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


_WITHOUT_AMOUNT = {"invert": invert, "equalize": equalize, "autocontrast": autocontrast}
_WITH_AMOUNT = {
    "brightness": brightness,
    "contrast": contrast,
    "color": color,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "blur": blur,
    "jpeg": jpeg,
}
