"""Corruptions of test photos, at five severities each: what a classifier meets outside the lab.

Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019
(https://arxiv.org/abs/1903.12261); the levels are those of its ImageNet-C (github.com/hendrycks/robustness, make_imagenet_c.py).
ImageNet-C corrupts the photo after it was resized and cropped to 224 pixels; models with another input get the corrupted picture resized.
So do these: the evaluation's view is made with a shorter side of 224 pixels, corrupted, and then resized to the model's input. The levels
so mean the same for photos of every size, and for models of every input, as they would not on the stored photo, whose noise a resize
averages away. Where the input is larger than 224, lengths and noise grow with it. Two are not from there: `dimness`, which is brightness
downwards, and `rotation`, up to the 30 degrees of Engstrom et al., "Exploring the landscape of spatial robustness", ICML 2019, taken out
of the photo itself in the one resample of the view.
"""

import dataclasses
import hashlib
from typing import Any

import cv2
import numpy as np

from imgclf.data import augment
from imgclf.data.augment import pixels

SIDE = 224  # pixels of the shorter side at which the levels hold
SEVERITIES = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A kind of corruption: what it is called, its levels by severity, and what they are."""

    title: str
    levels: tuple[float, float, float, float, float]
    unit: str


CORRUPTIONS = {
    "gaussian_noise": Corruption("Gaussian noise", (0.08, 0.12, 0.18, 0.26, 0.38), "standard deviation, white = 1"),
    "gaussian_blur": Corruption("Gaussian blur", (1, 2, 3, 4, 6), "standard deviation, pixels of 224"),
    "brightness": Corruption("brighter", (0.1, 0.2, 0.3, 0.4, 0.5), "added to HSV's value, white = 1"),
    "dimness": Corruption("dimmer", (0.1, 0.2, 0.3, 0.4, 0.5), "taken from HSV's value, white = 1"),
    "contrast": Corruption("lower contrast", (0.4, 0.3, 0.2, 0.1, 0.05), "times the distance from each channel's mean"),
    "jpeg": Corruption("JPEG compression", (25, 18, 15, 10, 7), "quality"),
    "rotation": Corruption("rotation", (6, 12, 18, 24, 30), "degrees, to either side"),
}


def canvas_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the view that is corrupted, for a model's input of `size`."""
    scale = max(1.0, SIDE / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def corrupted(photo: np.ndarray, name: str, severity: int, config: Any, *, seed: int, example_id: str) -> np.ndarray:
    """Returns what the model is shown of a corrupted photo: a pure function of its arguments.

    Each view of `config.eval.views` is corrupted at its own scale; mirror images are those of corrupted pictures.

    Args:
      photo: uint8 [h, w, 3], upright.
      name: of one of `CORRUPTIONS`.
      severity: 1 to 5.
      config: the whole config, of which `augment.Preprocessing` counts.
      seed: of the noise and of the rotation's side, together with `example_id`, `name` and `severity`.
      example_id: of the table.

    Returns:
      uint8 of `augment.Preprocessing.shape`: [H, W, 3] or [V, H, W, 3].
    """
    level, random = CORRUPTIONS[name].levels[severity - 1], _random_word(seed, example_id, name, severity)
    turn = 0.0 if name != "rotation" else level if random % 2 else -level
    shown = augment.Preprocessing.of(config)
    canvas = dataclasses.replace(shown, size=canvas_size(shown.size))
    views = []
    for view in shown.evaluation:
        picture = corrupt(canvas.framed(view).render(photo, augment.Draw(rotate=turn)), name, level, random)
        views.append(augment.render(picture, augment.Draw(mode=shown.mode, flip=view.flip), shown.size))
    return np.stack(views) if len(views) > 1 else views[0]


def corrupt(view: np.ndarray, name: str, level: float, seed: int) -> np.ndarray:
    """Corrupts the pixels of a view, uint8 [H, W, 3] → the same shape. A rotation is part of making the view, and changes nothing here."""
    scale = min(view.shape[:2]) / SIDE
    match name:
        case "gaussian_noise":
            return pixels.noise(view, 255 * level * scale, seed)
        case "gaussian_blur":
            return pixels.blur(view, level * scale)
        case "brightness":
            return _brightened(view, level)
        case "dimness":
            return _brightened(view, -level)
        case "contrast":
            mean = np.array(cv2.mean(view)[:3])
            return cv2.transform(view, np.column_stack([level * np.eye(3), (1 - level) * mean]))
        case "jpeg":
            return pixels.jpeg(view, int(level))
    return view


def _brightened(view: np.ndarray, change: float) -> np.ndarray:
    """Adds to HSV's value and keeps hue and saturation: all channels grow by one factor, and black becomes grey."""
    value = view.max(2, keepdims=True).astype(np.float32)
    wanted = np.clip(value + 255 * change, 0, 255)
    return np.rint(np.where(value > 0, view * (wanted / np.maximum(value, 1)), wanted)).astype(np.uint8)


def _random_word(seed: int, example_id: str, name: str, severity: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{example_id}\0{name}\0{severity}".encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return int.from_bytes(digest, "little")
