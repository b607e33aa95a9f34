"""Geometry of training and evaluation images: one output-to-input matrix and one resample per view."""

import dataclasses
import math

import cv2
import numpy as np
from PIL import Image

from imgclf.data.augment import keras_legacy, policies
from imgclf.data.augment.draws import Draw

RESIZE_MODES = ("squash", "crop", "pad")
INTERPOLATIONS = ("bilinear", "bicubic")
BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT,  # the edge's pixels twice
    "wrap": cv2.BORDER_WRAP,
}

# Input pixels per output pixel that are left to the bilinear warp; what shrinks more is averaged down to this first. Against 6x6
# supersampling of photos turned by 20 degrees and shrunk 2 to 4 times, leaving 1.5 has half the error of leaving 1 (blurred twice)
# and a third less than leaving 2 (aliased).
_WARP_SHRINK = 1.5
_MAX_SAMPLES = 4  # per output pixel and axis, where a perspective shrinks one side more than the other
_HORIZON = 0.1  # the least depth in view, against the centre's

# Pillow averages whole squares of pixels before its kernel where more than this many times its reach is shrunk away; 3 is what Pillow's
# documentation calls indistinguishable: within 0.4 grey levels on photos shrunk 5 times and more, in a third of the time.
_REDUCING_GAP = 3.0

Size = tuple[int, int]  # (height, width)
Box = tuple[float, float, float, float]  # (y, x, height, width) in the input's pixels


def matrix(
    drawn: Draw,
    in_size: Size,
    out_size: Size,
    resize: str = "squash",
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Composes a view into one map from output to input pixels.

    From the output inwards: the turns of a policy, the last one first; flips; the offset of the padded crop; the perspective; Keras's
    affine map R(rotate)·T(shift)·Shear·Zoom about the centre (ImageDataGenerator's on (row, column), with the centre at size/2 - 0.5);
    the crop out of a larger view; the crop and the resize. Not for mode=keras_legacy, which resizes first.

    Args:
      drawn: the parameters.
      in_size, out_size: (height, width) in pixels.
      resize: squash | crop | pad; unused where the draw holds a random resized crop.
      crop_fraction: of resize=crop.
      interpolation: bilinear | bicubic; whether the centre crop lies on whole pixels or where the weights' authors have it.

    Returns:
      float64 [3, 3], acting on columns (x, y, 1) with pixel centres at whole numbers, as cv2.warpAffine and cv2.warpPerspective take
      with WARP_INVERSE_MAP. The last row is (0, 0, 1) unless there is a perspective.
    """
    (y, x, h, w), (top, left, rows, columns) = _boxes(drawn, in_size, out_size, resize, crop_fraction, interpolation)
    to_input = _scaling(w / columns, h / rows, x - left * w / columns, y - top * h / rows)
    place = _affine(drawn, out_size) @ _perspective(drawn, out_size) @ _mirror(drawn, out_size)
    return to_input @ place @ policies.turned(drawn.turns, out_size)


def reduction(drawn: Draw, in_size: Size, out_size: Size, resize: str = "squash", crop_fraction: float = 1.0) -> int:
    """Returns the factor, 1, 2, 4 or 8, by which the image may be decoded smaller without loss to this view."""
    if drawn.mode == "keras_legacy":
        return 1  # it takes single pixels of the whole image
    if len(drawn.policy) > 1:
        views = (dataclasses.replace(drawn, policy=(chain,)) for chain in drawn.policy)
        return min(reduction(view, in_size, out_size, resize, crop_fraction) for view in views)
    if drawn.is_aligned:
        (_, _, h, w), (_, _, rows, columns) = _boxes(drawn, in_size, out_size, resize, crop_fraction)
        shrink = min(h / rows, w / columns)
    else:
        to_input = matrix(drawn, in_size, out_size, resize, crop_fraction)
        shrink = _shrinkage(to_input, in_size, out_size)[0].min() / _WARP_SHRINK
    return next((factor for factor in (8, 4, 2) if factor <= shrink), 1)


def resample(  # noqa: PLR0913  (options by name)
    image: np.ndarray,
    drawn: Draw,
    size: Size,
    resize: str = "squash",
    *,
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    fill_value: int = 0,
    full_size: Size | None = None,
) -> np.ndarray:
    """Resamples the view of an image that `drawn` describes: its geometry alone.

    Without rotation, shear, shift and zoom it is a crop and one `cv2.resize`: area averaging where it shrinks, bilinear where it
    enlarges. On photos of 400x533 this differs from Pillow's antialiased bilinear resize by 1.0 grey levels at 224x224 (mean
    absolute difference), 1.4 at 128x128, and by 0.5 from its box filter at 32x32, where a bilinear resize without antialiasing
    is off by 2.4, 4.6 and 10.7. Otherwise area averaging, where the map shrinks, and one bilinear warp; a perspective, which shrinks one
    side more than the other, takes up to 4x4 samples per output pixel. mode=keras_legacy is `keras_legacy.resample`.

    With interpolation=bicubic the first kind is Pillow's antialiased bicubic resize, and a centre crop lies where timm has it, to a
    fraction of a pixel: on 25 photos of ImageNet at 160, 224, 288 and 299 pixels no value is more than 2 grey levels from timm's own
    transform, at 64 pixels 3. (The bilinear crop lies on whole pixels of the photo, up to half a pixel beside timm's, which is 5 grey
    levels in the mean.) Random crops and warps don't change.

    Args:
      image: uint8 [h, w, 3], whole or decoded at a reduced scale.
      drawn: the parameters.
      size: (height, width) of the result.
      resize: squash | crop | pad.
      crop_fraction: of resize=crop.
      interpolation: bilinear | bicubic.
      fill: nearest | constant | reflect | wrap, what stands outside the image, also around resize=pad.
      fill_value: of constant, 0..255.
      full_size: (height, width) before a reduced decode.

    Returns:
      uint8 [H, W, 3].
    """
    actual = image.shape[:2]
    full_size = full_size or actual
    if drawn.mode == "keras_legacy":
        return keras_legacy.resample(image, drawn, size, fill, fill_value)
    if drawn.is_aligned:
        box, (top, left, rows, columns) = _boxes(drawn, full_size, size, resize, crop_fraction, interpolation)
        whole = box == (0, 0, *full_size)
        if drawn.offset == (0, 0) or whole:  # else pixels beyond the crop come into view
            if interpolation == "bicubic" and not drawn.crops:
                out = _resized_by_pillow(image, _scaled_box(box, full_size, actual), (rows, columns))
            else:
                out = _resized(image, _whole_box(box, full_size, actual), (rows, columns))
            out = _placed(out, (top - drawn.offset[0], left - drawn.offset[1]), size, fill, fill_value)
            return _flipped(out, drawn)
    to_input = matrix(drawn, full_size, size, resize, crop_fraction, interpolation)
    to_input = _resize_map(actual, full_size) @ to_input
    image, to_input, samples = _warpable(image, to_input, size)
    warp, map_ = (cv2.warpAffine, to_input[:2]) if _is_affine(to_input) else (cv2.warpPerspective, to_input)
    out = warp(
        image,
        map_,
        (samples * size[1], samples * size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=BORDERS[fill],
        borderValue=(fill_value,) * 3,
    )
    return out if samples == 1 else cv2.resize(out, size[::-1], interpolation=cv2.INTER_AREA)


def _boxes(
    drawn: Draw, in_size: Size, out_size: Size, resize: str, crop_fraction: float, interpolation: str = "bilinear"
) -> tuple[Box, tuple[int, int, int, int]]:
    """Returns (y, x, height, width) of the part of the input that is shown and of its place in the output.

    Both are in whole pixels, but for the input's part of a centre crop that bicubic interpolation will take.

    With a margin the place reaches beyond the output: retrain.py (TensorFlow Hub's image_retraining, `add_input_distortions`) resizes
    to the output's size times the scale, rounded down, and crops the output at a random whole pixel.
    """
    scale, y, x = drawn.margin
    if scale != 1:
        larger = int(out_size[0] * scale + 1e-6), int(out_size[1] * scale + 1e-6)  # so that 1.15 · 100 is 115, as in float32
        plain = dataclasses.replace(drawn, margin=(1.0, 0.0, 0.0))
        box, (top, left, rows, columns) = _boxes(plain, in_size, larger, resize, crop_fraction, interpolation)
        top, left = (edge - int(u * (n - pixels + 1)) for edge, u, n, pixels in zip((top, left), (y, x), larger, out_size, strict=True))
        return box, (top, left, rows, columns)
    (h, w), (rows, columns) = in_size, out_size
    whole, everywhere = (0, 0, h, w), (0, 0, rows, columns)
    if drawn.crops:
        return _random_crop(drawn, in_size), everywhere
    if resize == "crop" and interpolation == "bicubic":
        return _published_crop(in_size, out_size, crop_fraction), everywhere
    if resize == "crop":
        scale = crop_fraction * min(h / rows, w / columns)
        return _centred(min(h, max(1, round(rows * scale))), min(w, max(1, round(columns * scale))), in_size), everywhere
    if resize == "pad":
        scale = min(rows / h, columns / w)
        return whole, _centred(min(rows, max(1, round(h * scale))), min(columns, max(1, round(w * scale))), out_size)
    if resize == "squash":
        return whole, everywhere
    raise ValueError(f"resize={resize!r} is none of {', '.join(RESIZE_MODES)}")


def _centred(h: int, w: int, size: Size) -> tuple[int, int, int, int]:
    return (size[0] - h) // 2, (size[1] - w) // 2, h, w


def _published_crop(in_size: Size, out_size: Size, crop_fraction: float) -> Box:
    """The centre crop as timm and torchvision evaluate published weights: part of the image, after a resize that both round.

    The image is resized until it covers the output over `crop_fraction`, rounded down (timm's `transforms_imagenet_eval`), its longer
    side in proportion, rounded down (torchvision's `Resize`); then the middle is cut out at a whole pixel (its `CenterCrop`).
    """
    (h, w), wanted = in_size, [math.floor(n / crop_fraction + 1e-9) for n in out_size]
    if h * wanted[1] <= w * wanted[0]:
        resized = wanted[0], max(wanted[1], int(wanted[0] * w / h))
    else:
        resized = max(wanted[0], int(wanted[1] * h / w)), wanted[1]
    top, left = (round((there - shown) / 2) for there, shown in zip(resized, out_size, strict=True))
    y_scale, x_scale = h / resized[0], w / resized[1]
    return top * y_scale, left * x_scale, out_size[0] * y_scale, out_size[1] * x_scale


def _random_crop(drawn: Draw, in_size: Size) -> tuple[int, int, int, int]:
    """The first try that fits, else the largest centre crop within the ratios: torchvision's RandomResizedCrop.get_params."""
    height, width = in_size
    for share, ratio, y, x in drawn.crops:
        area = height * width * share
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    narrow, wide = drawn.crop_ratio
    if width / height < narrow:
        return _centred(max(1, round(width / narrow)), width, in_size)
    if width / height > wide:
        return _centred(height, max(1, round(height * wide)), in_size)
    return 0, 0, height, width


def _scaling(x_scale: float, y_scale: float, x: float, y: float) -> np.ndarray:
    """The map of a resize whose output's corner lies at (x, y) of the input; corners are half a pixel before the first centre."""
    return np.array([[x_scale, 0, (x_scale - 1) / 2 + x], [0, y_scale, (y_scale - 1) / 2 + y], [0, 0, 1]])


def _resize_map(in_size: Size, out_size: Size) -> np.ndarray:
    return _scaling(in_size[1] / out_size[1], in_size[0] / out_size[0], 0, 0)


def _mirror(drawn: Draw, size: Size) -> np.ndarray:
    out = np.eye(3)
    if drawn.flip:
        out[0] = (-1, 0, size[1] - 1)
    if drawn.vertical_flip:
        out[1] = (0, -1, size[0] - 1)
    out[0, 2] += drawn.offset[1]
    out[1, 2] += drawn.offset[0]
    return out


def _affine(drawn: Draw, size: Size) -> np.ndarray:
    turn, shear = math.radians(drawn.rotate), math.radians(drawn.shear)
    c, s = math.cos(turn), math.sin(turn)
    rotation = np.array([[c, -s], [s, c]])  # on (row, column), here and below
    linear = rotation @ np.array([[1, -math.sin(shear)], [0, math.cos(shear)]]) @ np.diag(drawn.zoom)
    centre = (np.array(size) - 1) / 2
    moved = centre + rotation @ (np.array(drawn.shift) * size) - linear @ centre
    out = np.eye(3)
    out[:2, :2] = linear[::-1, ::-1]
    out[:2, 2] = moved[::-1]
    return out


def _perspective(drawn: Draw, size: Size) -> np.ndarray:
    """torchvision's RandomPerspective, of real instead of whole pixels: the corner pixels' centres are moved inwards.

    Moved far, corners bring the horizon into view, behind which torchvision shows the image upside down; they are moved less then.
    """
    if not any(drawn.perspective):
        return np.eye(3)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)  # (x, y) as a share of the size
    inwards = (1 - 2 * corners) / 2 * np.array(drawn.perspective).reshape(4, 2)
    while True:
        out = cv2.getPerspectiveTransform((corners + inwards).astype(np.float32), corners)
        depth = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1), (0.5, 0.5, 1)]) @ out[2]
        if depth.min() > _HORIZON * depth[4] > 0:
            break
        inwards *= 0.9
    scale = np.array([max(1, size[1] - 1), max(1, size[0] - 1), 1.0])
    return out * scale[:, None] / scale


def _scaled_box(box: Box, full_size: Size, actual: Size) -> Box:
    """A box of the whole image in the pixels of its reduced decode."""
    (y, x, h, w), y_scale, x_scale = box, actual[0] / full_size[0], actual[1] / full_size[1]
    return y * y_scale, x * x_scale, h * y_scale, w * x_scale


def _whole_box(box: Box, full_size: Size, actual: Size) -> tuple[int, int, int, int]:
    """A box of the whole image in the pixels of its reduced decode, to the nearest one."""
    y, x, h, w = box
    y_scale, x_scale = actual[0] / full_size[0], actual[1] / full_size[1]
    top, left = min(round(y * y_scale), actual[0] - 1), min(round(x * x_scale), actual[1] - 1)
    return top, left, max(1, round((y + h) * y_scale) - top), max(1, round((x + w) * x_scale) - left)


def _resized(image: np.ndarray, box: tuple[int, int, int, int], size: Size) -> np.ndarray:
    y, x, h, w = box
    part = image[y : y + h, x : x + w]
    # cv2 averages areas only where both sides shrink, so a mixed resize takes the shrinking side first.
    smaller = (min(h, size[0]), min(w, size[1]))
    if smaller != (h, w):
        part = cv2.resize(part, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != size:
        part = cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR)
    return part


def _resized_by_pillow(image: np.ndarray, box: Box, size: Size) -> np.ndarray:
    """Pillow's bicubic resize of a part, antialiased where it shrinks; pixels around the part count as they do in a resize of the whole."""
    y, x, h, w = box
    (bottom, right), reach = image.shape[:2], 8 + math.ceil(4 * max(h / size[0], w / size[1], 1))  # its kernel reaches half as far
    top, left = max(0, math.floor(y) - reach), max(0, math.floor(x) - reach)
    picture = Image.fromarray(np.ascontiguousarray(image[top : math.ceil(y + h) + reach, left : math.ceil(x + w) + reach]))
    y, x = y - top, x - left
    part = (x, y, min(x + w, right - left), min(y + h, bottom - top))  # rounding may have led beyond the edge by 1e-13
    return np.array(picture.resize(size[::-1], Image.Resampling.BICUBIC, box=part, reducing_gap=_REDUCING_GAP))


def _placed(image: np.ndarray, corner: tuple[int, int], size: Size, fill: str, fill_value: int) -> np.ndarray:
    """Shows `image`, its corner at `corner`, through a window of `size`."""
    (h, w), (top, left) = image.shape[:2], corner
    if corner == (0, 0) and (h, w) == size:
        return image
    bottom, right = size[0] - top - h, size[1] - left - w
    above, below, before, after = (max(0, margin) for margin in (top, bottom, left, right))
    padded = cv2.copyMakeBorder(image, above, below, before, after, BORDERS[fill], value=(fill_value,) * 3)
    y, x = max(0, -top), max(0, -left)
    return padded[y : y + size[0], x : x + size[1]]


def _flipped(image: np.ndarray, drawn: Draw) -> np.ndarray:
    if drawn.flip or drawn.vertical_flip:
        return cv2.flip(image, -1 if drawn.flip and drawn.vertical_flip else 1 if drawn.flip else 0)
    return image


def _is_affine(to_input: np.ndarray) -> bool:
    return tuple(to_input[2]) == (0, 0, 1)


def _shrinkage(to_input: np.ndarray, in_size: Size, out_size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the most input pixels (x, y) per output pixel, over what is shown of the image."""
    if _is_affine(to_input):
        shrink = np.hypot(to_input[:2, 0], to_input[:2, 1])
        return shrink, shrink
    x, y = np.meshgrid(np.linspace(0, out_size[1] - 1, 5), np.linspace(0, out_size[0] - 1, 5))
    homogeneous = to_input @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    depth, places = homogeneous[2], homogeneous[:2] / homogeneous[2]
    jacobian = (to_input[:2, :2, None] - places[:, None] * to_input[2, :2, None]) / depth
    shrink = np.hypot(jacobian[:, 0], jacobian[:, 1])
    shown = (places >= 0).all(0) & (places[0] < in_size[1]) & (places[1] < in_size[0])
    if shown.any():
        shrink = shrink[:, shown]
    return shrink.min(1), shrink.max(1)


def _warpable(image: np.ndarray, to_input: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray, int]:
    """Cuts an image to what the warp will read, and averages it down where the warp would skip pixels.

    Returns:
      The smaller image; the map to it; the samples per output pixel and axis that it is for, 1 unless a perspective needs more.
    """
    h, w = image.shape[:2]
    corners = to_input @ np.array([[0, size[1] - 1, 0, size[1] - 1], [0, 0, size[0] - 1, size[0] - 1], [1, 1, 1, 1]])
    corners = corners[:2] / corners[2]
    least, most = _shrinkage(to_input, (h, w), size)
    shrink = np.maximum(1, least / _WARP_SHRINK)
    (left, top), (right, bottom) = np.floor(corners.min(1)).astype(int), np.ceil(corners.max(1)).astype(int) + 1
    margin = math.ceil(2 * max(shrink))
    left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
    if left >= 0 and top >= 0 and right <= w and bottom <= h:  # else the fill, which depends on the image's edge, is in view
        image = image[top:bottom, left:right]
        to_input = _scaling(1, 1, -left, -top) @ to_input
        h, w = image.shape[:2]
    smaller = (math.ceil(h / shrink[1]), math.ceil(w / shrink[0]))
    if smaller != (h, w):
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
        to_input = _resize_map(smaller, (h, w)) @ to_input
    samples = 1
    if not _is_affine(to_input):
        wanted = math.ceil((most / shrink).max() / _WARP_SHRINK - 0.1)  # a tenth too few is not seen
        samples = min(_MAX_SAMPLES, max(1, wanted))
        to_input = to_input @ _resize_map(size, (samples * size[0], samples * size[1]))
    return image, to_input, samples
