"""What is random about a view: a pure function of (seed, example id, epoch), drawn kind by kind from streams of their own."""

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

from imgclf.data.augment import color, erase, pixels, policies
from imgclf.data.augment.color import Color
from imgclf.data.augment.erase import Erase
from imgclf.data.augment.pixels import Operation
from imgclf.data.augment.policies import Chain

GEOMETRY, COLOR, PIXELS, POLICY, ERASE = range(5)  # the kinds of augmentation, by their streams; never to be renumbered

_CROP_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Draw:
    """The parameters of one view, random in training; as constructed, the plain view of evaluation.

    Lengths are shares, so no image size is needed. Each kind of augmentation but geometry has one field, a frozen dataclass of its own or
    None.
    """

    mode: str = "corrected"  # | keras_legacy, which knows flips, rotate, shift, shear, zoom and brightness
    crops: tuple[tuple[float, float, float, float], ...] = ()  # tries of (share of the area, width/height, y and x position in [0, 1))
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)  # bounds of the centre crop taken when no try fits
    flip: bool = False
    vertical_flip: bool = False
    rotate: float = 0.0  # degrees
    shift: tuple[float, float] = (0.0, 0.0)  # (y, x) as a share of the output's size
    shear: float = 0.0  # degrees
    zoom: tuple[float, float] = (1.0, 1.0)  # (y, x); above 1 zooms out
    perspective: tuple[float, ...] = (0.0,) * 8  # (x, y) by corner, clockwise from top left: inwards, as a share of half the size
    offset: tuple[int, int] = (0, 0)  # (y, x) in output pixels: the place of a crop out of the padded image
    margin: tuple[float, float, float] = (1.0, 0.0, 0.0)  # the view is made this many times larger, then cropped at (y, x) in [0, 1)
    policy: tuple[Chain, ...] = ()  # mixed by their weights; the turns of a single one are in the view's matrix
    pixels: tuple[Operation, ...] = ()  # after those of the policy
    keras_brightness: float | None = None  # factor, of mode=keras_legacy alone
    color: Color | None = None
    erase: Erase | None = None

    @property
    def turns(self) -> tuple[Operation, ...]:
        """The policy's part of the view's matrix."""
        return self.policy[0].turns if len(self.policy) == 1 else ()

    @property
    def is_aligned(self) -> bool:
        """Whether rows and columns stay rows and columns at the scale of the resize."""
        turned = self.turns or self.rotate or self.shear or any(self.perspective)
        return not turned and self.shift == (0.0, 0.0) and self.zoom == (1.0, 1.0)


def view_rng(seed: int, example_id: str, epoch: int, kind: int = GEOMETRY) -> np.random.Generator:
    """Returns the generator of one view: a pure function of its arguments, so any view can be redrawn by any process in any order.

    Philox (Salmon et al. 2011) is keyed by a hash of seed and id; the epoch is the top word of its counter and the kind the next one,
    so that the streams of two epochs, or of two kinds of augmentation, never meet.

    Args:
      seed: `config.seed`.
      example_id: of the table.
      epoch: counted from 0.
      kind: GEOMETRY, COLOR, PIXELS, POLICY or ERASE.
    """
    digest = hashlib.blake2b(f"{seed}\0{example_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"), counter=(epoch << 192) + (kind << 128)))


def sibling(rng: np.random.Generator, kind: int) -> np.random.Generator:
    """Returns `view_rng` of the same view for another kind, at its start, wherever `rng` stands."""
    state = rng.bit_generator.state["state"]
    counter = np.array([0, 0, kind, state["counter"][3]], np.uint64)
    return np.random.Generator(np.random.Philox(key=state["key"], counter=counter))


def is_neutral(augment: Any) -> bool:
    """Whether `config.augment` leaves every image by itself as evaluation shows it; MixUp and CutMix join two."""
    geometry = (augment.flip, augment.vertical_flip, augment.rotate, *augment.shift, augment.shear, augment.perspective, augment.pad_crop)
    distortion = (augment.margin_crop, augment.margin_scale, augment.brightness)
    if augment.policy != "none" or pixels.is_on(augment) or color.is_on(augment) or erase.is_on(augment):
        return False
    return tuple(augment.crop_scale) == tuple(augment.zoom) == (1.0, 1.0) and not any((*geometry, *distortion))


def evaluation(augment: Any | None) -> Draw:
    """Returns the view of evaluation; None = the default mode."""
    return Draw() if augment is None else Draw(mode=augment.mode)


def _flip_in_turn(rng: np.random.Generator, probability: float) -> bool:
    """Whether an image is flipped in its epoch: drawn in its first one, and the other way round in every second one after it."""
    state = rng.bit_generator.state["state"]
    _, _, kind, epoch = state["counter"]
    first = np.random.Generator(np.random.Philox(key=state["key"], counter=np.array([0, 0, kind, 0], np.uint64)))
    return probability > 0 and bool(first.random() < probability) != bool(epoch % 2)


def draw(rng: np.random.Generator, augment: Any) -> Draw:
    """Draws the parameters of one view.

    Every parameter reads its own place in the stream, so that switching one kind of augmentation on leaves the others as they were.

    Args:
      rng: see `view_rng`.
      augment: `config.augment`, or anything with its attributes.
    """
    u, tries, v = rng.random(10), rng.random((_CROP_TRIES, 4)), rng.random(4)  # the last is no longer used
    corners = rng.random(8)
    signed = 2 * u - 1
    crops: tuple[tuple[float, float, float, float], ...] = ()
    if tuple(augment.crop_scale) != (1.0, 1.0):
        (low, high), (narrow, wide) = augment.crop_scale, augment.crop_ratio
        tries[:, 0] = low + (high - low) * tries[:, 0]
        tries[:, 1] = np.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * tries[:, 1])
        crops = tuple(map(tuple, tries.tolist()))
    zoom_low, zoom_high = augment.zoom
    zoom_x = u[6] if augment.zoom_joint else u[7]
    pad = augment.pad_crop
    keras = augment.mode == "keras_legacy" and augment.brightness
    return Draw(
        mode=augment.mode,
        crops=crops,
        crop_ratio=tuple(augment.crop_ratio),
        flip=_flip_in_turn(rng, augment.flip) if augment.flip_alternating else bool(u[0] < augment.flip),
        vertical_flip=bool(u[1] < augment.vertical_flip),
        rotate=float(augment.rotate * signed[2]),
        shift=(float(augment.shift[0] * signed[3]), float(augment.shift[1] * signed[4])),
        shear=float(augment.shear * signed[5]),
        zoom=(float(zoom_low + (zoom_high - zoom_low) * u[6]), float(zoom_low + (zoom_high - zoom_low) * zoom_x)),
        perspective=tuple((augment.perspective * corners).tolist()),
        offset=(int(u[8] * (2 * pad + 1)) - pad, int(u[9] * (2 * pad + 1)) - pad) if pad else (0, 0),
        margin=(float((1 + augment.margin_crop) * (1 + augment.margin_scale * v[0])), float(v[1]), float(v[2])),
        policy=policies.draw(sibling(rng, POLICY), augment) if augment.policy != "none" else (),
        pixels=pixels.draw(sibling(rng, PIXELS), augment) if pixels.is_on(augment) else (),
        keras_brightness=float(1 + augment.brightness * (2 * sibling(rng, COLOR).random() - 1)) if keras else None,
        color=color.draw(sibling(rng, COLOR), augment) if color.is_on(augment) else None,
        erase=erase.draw(sibling(rng, ERASE), augment) if erase.is_on(augment) else None,
    )
