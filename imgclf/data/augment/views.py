"""A view of an image: drawn, resampled once, then put through the operations of the host, in the order of the package's docstring."""

import dataclasses
import math
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from imgclf.config.fields import Config
from imgclf.data.augment import pixels
from imgclf.data.augment.draws import Draw, draw, evaluation
from imgclf.data.augment.geometry import Size, resample

VIEWS = ("plain", "flip", "framings", "crops")  # of `config.eval.views`
# A centre crop cuts off what stands at the ends of a photo, and shows the rest larger; the whole photo is all there, but distorted. Their
# mean was 1.7 points better than the crop of 0.875 alone, in 5-fold cross-validation on 600 photos of clothing (MobileNetV2 1.0, a
# logistic probe; 95 % interval −0.6 to 3.9), where crops at the four corners gave 0.2, and mirror images of the plain view alone 0.4. On
# 279 pictures of two toys (MobileNetV2 0.35), of which the plain crop mistakes two, all of these are 0.2 to 0.4 worse (−1.1 to 0.4).
_FRAMINGS = (("crop", 1.0), ("squash", 1.0), ("crop", 0.875))
_OTHERS = {"framings": 1, "crops": 2}  # how many framings are shown besides the plain one


class View(NamedTuple):
    """One of the views that evaluation shows of an image: a resize of `config.data`, and perhaps the mirror image of what it gives."""

    resize: str
    crop_fraction: float
    flip: bool


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input where nothing is left to chance: what training, prediction and reports share.

    Attributes:
      size: (height, width) of the input.
      resize, crop_fraction, interpolation: of `config.data`, resolved.
      mode, fill, fill_value: of `config.augment`: Keras's resize or ours, and what stands outside the image.
      views: of `config.eval`: which views evaluation shows of an image.
    """

    size: Size
    resize: str
    crop_fraction: float
    interpolation: str
    mode: str
    fill: str
    fill_value: int
    views: str = "plain"

    @classmethod
    def of(cls, config: Config) -> Self:
        """That of a whole, resolved config."""
        data, outside = config.data, config.augment
        size, showing = (data.image_size[0], data.image_size[1]), (data.resize, data.crop_fraction, data.interpolation)
        return cls(size, *showing, outside.mode, outside.fill, outside.fill_value, config.eval.views)

    @property
    def evaluation(self) -> tuple[View, ...]:
        """The views that evaluation shows, the plain one first.

        "flip" adds the mirror image. "framings" and "crops" show an image in two and three framings, each with its mirror image. "crops"
        has the plain one, and the first two others of a centre crop of all of the shorter side, the whole image squashed, and the centre
        crop of 0.875; "framings" has the plain one and the whole image squashed, or, where that is the plain one, the centre crop of 0.875.
        """
        plain = self.resize, self.crop_fraction if self.resize == "crop" else 1.0
        order = _FRAMINGS[1:] if self.views == "framings" else _FRAMINGS
        others = [framing for framing in order if framing != plain][: _OTHERS.get(self.views, 0)]
        mirrors = (False,) if self.views == "plain" else (False, True)
        return tuple(View(*framing, flip) for framing in (plain, *others) for flip in mirrors)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what `shown` returns: (H, W, 3), or (V, H, W, 3) where evaluation shows more than the plain view."""
        count = len(self.evaluation)
        return (*self.size, 3) if count == 1 else (count, *self.size, 3)

    @property
    def least_size(self) -> Size:
        """The (height, width) below which an image is enlarged for one of its views."""
        share = min(view.crop_fraction for view in self.evaluation)
        return math.ceil(self.size[0] / share), math.ceil(self.size[1] / share)

    def framed(self, view: View) -> Self:
        """The preprocessing whose plain view this one is, but for its mirroring."""
        return dataclasses.replace(self, resize=view.resize, crop_fraction=view.crop_fraction, views="plain")

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
        """The plain view of evaluation, uint8 [h, w, 3] to uint8 [H, W, 3]; it may be the memory of `image`."""
        return self.render(image, Draw(mode=self.mode))

    def shown(self, image: np.ndarray) -> np.ndarray:
        """All that evaluation shows of an image, uint8 [h, w, 3] to uint8 of `shape`; it may be the memory of `image`."""
        if self.views == "plain":
            return self.plain(image)
        framed = {view[:2]: self.framed(view).plain(image) for view in self.evaluation if not view.flip}  # resampled once per framing
        return np.stack([framed[view[:2]][:, :: -1 if view.flip else 1] for view in self.evaluation])


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
