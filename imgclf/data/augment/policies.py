"""Augmentation policies: RandAugment, TrivialAugmentWide and AugMix, with the operations, magnitudes and signs of torchvision's.

A policy draws chains of operations. The geometric ones of a chain, its turns, become part of the view's one matrix; its pixel
operations follow on the resampled view, in the order drawn. So what a turn brings into view is the photo beyond the crop where there is
some, and `augment.fill` beyond the photo; torchvision, which turns the cropped view, fills both with black. Shearing is about the centre,
as turning is, and not about a corner, which would shift the view as well.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from imgclf.config import Config, parse_arguments
from imgclf.data.augment import pixels as pixel_operations
from imgclf.data.augment.pixels import Operation
from imgclf.errors import UserError, nearest

Size = tuple[int, int]  # (height, width)
# operation → (magnitude of the first bin, of the last one, whether a sign is drawn)
Space = dict[str, tuple[float, float, bool]]

_FACTORS = ("brightness", "color", "contrast", "sharpness")  # 1 + magnitude multiplies
_SHARED: Space = {"solarize": (1.0, 0.0, False), "autocontrast": (0.0, 0.0, False), "equalize": (0.0, 0.0, False)}  # of 255; –; –


@dataclasses.dataclass(frozen=True)
class Chain:
    """Operations on a view, and its weight in a mixture of them."""

    weight: float
    turns: tuple[Operation, ...] = ()
    pixels: tuple[Operation, ...] = ()


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Cubuk et al. 2020: so many operations, drawn with replacement, all of one magnitude."""

    operations: int = 2
    magnitude: int = 9  # the bin
    bins: int = 31

    @property
    def space(self) -> Space:
        """torchvision's."""
        return {
            "identity": (0.0, 0.0, False),
            "shear_x": (0.0, 0.3, True),  # tangent
            "shear_y": (0.0, 0.3, True),
            "translate_x": (0.0, 150 / 331, True),  # of the width
            "translate_y": (0.0, 150 / 331, True),
            "rotate": (0.0, 30.0, True),  # degrees
            **dict.fromkeys(_FACTORS, (0.0, 0.9, True)),
            "posterize": (8.0, 4.0, False),  # bits
            **_SHARED,
        }

    def draw(self, rng: np.random.Generator) -> tuple[Chain, ...]:
        u = rng.random((self.operations, 2))
        names = list(self.space)
        return (_chain(1.0, [operation(self, names[int(which * len(names))], self.magnitude, sign) for which, sign in u.tolist()]),)


@dataclasses.dataclass(frozen=True)
class TrivialAugment:
    """Müller & Hutter 2021, the wide space: one operation of a magnitude drawn among the bins."""

    bins: int = 31

    @property
    def space(self) -> Space:
        """torchvision's; shifts are in pixels of the view, whatever its size."""
        return {
            "identity": (0.0, 0.0, False),
            "shear_x": (0.0, 0.99, True),
            "shear_y": (0.0, 0.99, True),
            "shift_x": (0.0, 32.0, True),
            "shift_y": (0.0, 32.0, True),
            "rotate": (0.0, 135.0, True),
            **dict.fromkeys(_FACTORS, (0.0, 0.99, True)),
            "posterize": (8.0, 2.0, False),
            **_SHARED,
        }

    def draw(self, rng: np.random.Generator) -> tuple[Chain, ...]:
        which, bin_, sign = rng.random(3).tolist()
        names = list(self.space)
        return (_chain(1.0, [operation(self, names[int(which * len(names))], int(bin_ * self.bins), sign)]),)


@dataclasses.dataclass(frozen=True)
class AugMix:
    """Hendrycks et al. 2020: the view mixed with some chains of operations on it, by weights from Beta and Dirichlet distributions.

    Their loss of Jensen-Shannon consistency is no part of it.
    """

    bins: ClassVar[int] = 10
    severity: int = 3  # magnitudes are drawn among so many bins, the weakest first
    width: int = 3  # chains
    depth: int = -1  # operations of a chain; below 1: one to three, drawn
    alpha: float = 1.0  # of both distributions
    all_operations: bool = True  # also brightness, color, contrast and sharpness, which ImageNet-C holds

    @property
    def space(self) -> Space:
        """torchvision's."""
        return {
            "shear_x": (0.0, 0.3, True),
            "shear_y": (0.0, 0.3, True),
            "translate_x": (0.0, 1 / 3, True),
            "translate_y": (0.0, 1 / 3, True),
            "rotate": (0.0, 30.0, True),
            "posterize": (4.0, 0.0, False),
            **_SHARED,
            **(dict.fromkeys(_FACTORS, (0.0, 0.9, True)) if self.all_operations else {}),
        }

    def draw(self, rng: np.random.Generator) -> tuple[Chain, ...]:
        plain, mixed = rng.dirichlet((self.alpha, self.alpha)).tolist()
        weights = (mixed * rng.dirichlet((self.alpha,) * self.width)).tolist()
        names = list(self.space)
        chains = [Chain(plain)]
        for weight in weights:
            depth = self.depth if self.depth > 0 else 1 + int(rng.random() * 3)
            u = rng.random((depth, 3)).tolist()
            chains.append(_chain(weight, [operation(self, names[int(a * len(names))], int(b * self.severity), sign) for a, b, sign in u]))
        return tuple(chains)


Policy = RandAugment | TrivialAugment | AugMix
POLICIES: dict[str, type[Policy]] = {"rand_augment": RandAugment, "trivial_augment": TrivialAugment, "aug_mix": AugMix}
TURNS = ("shear_x", "shear_y", "translate_x", "translate_y", "shift_x", "shift_y", "rotate")


def draw(rng: np.random.Generator, augment: Any) -> tuple[Chain, ...]:
    """Draws the chains of the config's policy, whose weights add up to 1: none without a policy, one unless it is AugMix.

    Args:
      rng: see `view_rng`, of kind POLICY.
      augment: `config.augment`.
    """
    return () if augment.policy == "none" else settings(augment.policy, augment.policy_args).draw(rng)


def check(config: Config) -> None:
    """Raises a UserError for pixel operations out of their range, and for a policy or arguments of it that there are not."""
    pixel_operations.check(config)
    if config.augment.policy != "none":
        settings(config.augment.policy, config.augment.policy_args)


@functools.lru_cache
def settings(name: str, arguments: str) -> Policy:
    """Returns the policy of `augment.policy` and `augment.policy_args`.

    Raises:
      UserError: for a name or an argument that there is not, or a value out of range.
    """
    field = "augment.policy_args"
    if name not in POLICIES:
        raise UserError(f"config.augment.policy={name!r} is no policy; {nearest(name, POLICIES)}")
    given, fields = parse_arguments(arguments, field), {field.name: field for field in dataclasses.fields(POLICIES[name])}
    for key, value in given.items():
        if key not in fields:
            raise UserError(f"config.{field}={arguments!r}: {name} has no argument {key!r}; {nearest(key, fields)}")
        kind = type(fields[key].default)
        if not (type(value) is kind or (kind is float and type(value) is int)):
            expected = {int: "a whole number", float: "a number", bool: "True or False"}[kind]
            raise UserError(f"config.{field}={arguments!r}: {key} must be {expected}, such as {key}={fields[key].default}.")
    policy = POLICIES[name](**given)
    limits = {
        "operations": (getattr(policy, "operations", 1) >= 1, "1 or more"),
        "bins": (getattr(policy, "bins", 2) >= 2, "2 or more"),
        "magnitude": (0 <= getattr(policy, "magnitude", 0) < getattr(policy, "bins", 1), "0 or more and below bins"),
        "severity": (1 <= getattr(policy, "severity", 1) <= 10, "between 1 and 10"),
        "width": (getattr(policy, "width", 1) >= 1, "1 or more"),
        "alpha": (0 < getattr(policy, "alpha", 1) < math.inf, "above 0"),
    }
    for key, (is_right, expected) in limits.items():
        if not is_right:
            raise UserError(f"config.{field}={arguments!r}: {key} must be {expected}.")
    return policy


def operation(policy: Policy, name: str, bin_: int, sign: float = 1.0) -> Operation:
    """Returns an operation of a policy's space at the magnitude of a bin.

    Args:
      policy: whose space.
      name: of the operation.
      bin_: 0 is the weakest, `policy.bins` - 1 the strongest.
      sign: up to 0.5 makes a magnitude that has a sign negative.
    """
    first, last, is_signed = policy.space[name]
    magnitude = first + (last - first) * bin_ / (policy.bins - 1)
    if is_signed and sign <= 0.5:
        magnitude = -magnitude
    if name in _FACTORS:
        return Operation(name, 1 + magnitude)
    if name == "solarize":
        return Operation(name, 255 * magnitude)
    return Operation(name, round(magnitude) if name == "posterize" else magnitude)


def turned(turns: tuple[Operation, ...], size: Size) -> np.ndarray:
    """Composes turns, the first one applied first, into one map from output to input pixels of a view of `size`.

    Returns:
      float64 [3, 3], acting on columns (x, y, 1), as in `geometry.matrix`.
    """
    height, width = size
    out, centre = np.eye(3), np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    for turn in turns:
        step, amount = np.eye(3), turn.amount
        if turn.name in ("translate_x", "shift_x"):  # to the right, by whole pixels
            step[0, 2] = -math.trunc(amount * width if turn.name == "translate_x" else amount)
        elif turn.name in ("translate_y", "shift_y"):  # downwards
            step[1, 2] = -math.trunc(amount * height if turn.name == "translate_y" else amount)
        elif turn.name == "shear_x":
            step[0, 1] = amount
        elif turn.name == "shear_y":
            step[1, 0] = amount
        elif turn.name == "rotate":  # counter-clockwise
            c, s = math.cos(math.radians(amount)), math.sin(math.radians(amount))
            step[:2, :2] = [[c, -s], [s, c]]
        else:
            raise ValueError(f"{turn.name!r} is no turn: {', '.join(TURNS)}")
        out = out @ centre @ step @ np.linalg.inv(centre)
    return out


def _chain(weight: float, operations: list[Operation]) -> Chain:
    turns = tuple(operation for operation in operations if operation.name in TURNS)
    return Chain(weight, turns, tuple(operation for operation in operations if operation.name not in (*TURNS, "identity")))
