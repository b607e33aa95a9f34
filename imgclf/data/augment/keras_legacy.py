"""`config.augment.mode = "keras_legacy"`: ImageDataGenerator as tutorials of 2018 to 2020 ran it, slips included.

keras-preprocessing 1.0.2 to 1.1.2 (https://github.com/keras-team/keras-preprocessing, `image/affine_transformations.py` and
`image/image_data_generator.py`): the picture is squashed to the model's size by nearest neighbours, without antialiasing; then a
bilinear warp by R(rotate)·T(shift)·Shear·Zoom about size/2 + 0.5, a pixel off the middle, which scipy carries out; then flips; then
brightness, which first stretches the view's values to 0..255. It is slow, and there to repeat what was published.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance

from imgclf.data.augment.draws import Draw


def matrix(drawn: Draw, size: tuple[int, int]) -> np.ndarray:
    """Returns float64 [3, 3], from (row, column, 1) of the output to that of the squashed picture of `size` (height, width)."""
    turn, shear = math.radians(drawn.rotate), math.radians(drawn.shear)
    rotation = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    shift = np.array([[1, 0, drawn.shift[0] * size[0]], [0, 1, drawn.shift[1] * size[1]], [0, 0, 1]])
    sheared = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    centre = np.array([[1, 0, size[0] / 2 + 0.5], [0, 1, size[1] / 2 + 0.5], [0, 0, 1]])
    return centre @ rotation @ shift @ sheared @ np.diag([*drawn.zoom, 1.0]) @ np.linalg.inv(centre)


def resample(image: np.ndarray, drawn: Draw, size: tuple[int, int], fill: str = "nearest", fill_value: int = 0) -> np.ndarray:
    """Makes the view of an image that `drawn` describes; Keras's own is float32, this one is rounded.

    Args:
      image: uint8 [h, w, 3], decoded whole.
      drawn: its flip, vertical_flip, rotate, shift, shear, zoom and keras_brightness.
      size: (height, width) of the result.
      fill: nearest | constant | reflect | wrap, as scipy.ndimage understands them; its wrap skips one pixel at the seam.
      fill_value: of constant, 0..255.

    Returns:
      uint8 [H, W, 3].
    """
    out = image if image.shape[:2] == size else np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST))
    if not drawn.is_aligned:
        to_input = matrix(drawn, size)
        warp = {"offset": to_input[:2, 2], "output": np.float32, "order": 1, "mode": fill, "cval": fill_value}
        from scipy import ndimage  # slow to import, and seldom needed

        out = np.stack([ndimage.affine_transform(channel, to_input[:2, :2], **warp) for channel in np.moveaxis(out, -1, 0)], -1)
    out = out[:: -1 if drawn.vertical_flip else 1, :: -1 if drawn.flip else 1]
    if drawn.keras_brightness is not None:
        return _brightened(out, drawn.keras_brightness)
    return np.rint(out).astype(np.uint8)


def _brightened(view: np.ndarray, factor: float) -> np.ndarray:
    """`apply_brightness_shift`, whose `array_to_img` stretches the view's extremes to 0 and 255, and cuts fractions off."""
    view = view.astype(np.float32)
    view = view - view.min()
    if view.max():
        view /= view.max()
    view *= 255
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(view.astype(np.uint8))).enhance(factor))
