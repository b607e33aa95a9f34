"""A view of an image: drawn, resampled once, then put through the operations of the host, in the order of the package's docstring."""

import dataclasses
from typing import Any, Self

import cv2
import numpy as np

from imgclf.config.fields import Config
from imgclf.data.augment import pixels
from imgclf.data.augment.draws import Draw, draw, evaluation
from imgclf.data.augment.geometry import Size, resample


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input where nothing is left to chance: what training, prediction and reports share.

    Attributes:
      size: (height, width) of the input.
      resize, crop_fraction, interpolation: of `config.data`, resolved.
      mode, fill, fill_value: of `config.augment`: Keras's resize or ours, and what stands outside the image.
    """

    size: Size
    resize: str
    crop_fraction: float
    interpolation: str
    mode: str
    fill: str
    fill_value: int

    @classmethod
    def of(cls, config: Config) -> Self:
        """That of a whole, resolved config."""
        data, outside = config.data, config.augment
        size = (data.image_size[0], data.image_size[1])
        return cls(size, data.resize, data.crop_fraction, data.interpolation, outside.mode, outside.fill, outside.fill_value)

    def render(self, image: np.ndarray, drawn: Draw, full_size: Size | None = None) -> np.ndarray:
        """`render` by this preprocessing: uint8 [h, w, 3] to uint8 [H, W, 3]."""
        return render(
            image,
            drawn,
            self.size,
            self.resize,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            fill=self.fill,
            fill_value=self.fill_value,
            full_size=full_size,
        )

    def plain(self, image: np.ndarray) -> np.ndarray:
        """The view of evaluation, uint8 [h, w, 3] to uint8 [H, W, 3]; it may be the memory of `image`."""
        return self.render(image, Draw(mode=self.mode))


def render(  # noqa: PLR0913  (options by name)
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
    """Makes the view of an image that `drawn` describes, as far as the host does it.

    Args:
      image: uint8 [h, w, 3], whole or decoded at a reduced scale.
      drawn: the parameters.
      size: (height, width) of the result.
      resize: squash | crop | pad.
      crop_fraction: of resize=crop.
      interpolation: bilinear | bicubic: of a view without random crop and warp, see `geometry.resample`.
      fill: nearest | constant | reflect | wrap, what stands outside the image, also around resize=pad.
      fill_value: of constant, 0..255.
      full_size: (height, width) before a reduced decode.

    Returns:
      uint8 [H, W, 3].
    """

    def resampled(drawn: Draw) -> np.ndarray:
        return resample(
            image,
            drawn,
            size,
            resize,
            crop_fraction=crop_fraction,
            interpolation=interpolation,
            fill=fill,
            fill_value=fill_value,
            full_size=full_size,
        )

    if len(drawn.policy) < 2:
        out = resampled(drawn)
        return pixels.apply(out, (*drawn.policy[0].pixels, *drawn.pixels) if drawn.policy else drawn.pixels)
    plain = resampled(dataclasses.replace(drawn, policy=()))
    mixed, total = np.zeros(plain.shape, np.float32), 0.0
    for chain in drawn.policy:
        if chain.weight == 0:
            continue
        view = resampled(dataclasses.replace(drawn, policy=(chain,))) if chain.turns else plain
        total += chain.weight
        cv2.accumulateWeighted(pixels.apply(view, chain.pixels), mixed, chain.weight / total)  # the mean of those so far
    return pixels.apply(cv2.convertScaleAbs(mixed), drawn.pixels)


def view(
    image: np.ndarray,
    size: Size,
    resize: str = "squash",
    augment: Any | None = None,
    rng: np.random.Generator | None = None,
    *,
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Shows an image as evaluation does, or as training does with this generator, before the training step's part.

    Args:
      image: uint8 [h, w, 3].
      size: (height, width) of the result.
      resize: squash | crop | pad.
      augment: `config.augment`; None = its defaults. What stands outside the image is taken from it in evaluation too.
      rng: see `view_rng`; None = the view of evaluation.
      crop_fraction, interpolation: of `config.data`.

    Returns:
      uint8 [H, W, 3], never the memory of `image`.
    """
    drawn = draw(rng, augment) if augment is not None and rng is not None else evaluation(augment)
    fill, fill_value = ("nearest", 0) if augment is None else (augment.fill, augment.fill_value)
    out = render(image, drawn, size, resize, crop_fraction=crop_fraction, interpolation=interpolation, fill=fill, fill_value=fill_value)
    return out.copy() if np.may_share_memory(out, image) else out
