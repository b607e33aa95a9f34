"""Arms of a study: lists and products of named settings, grids, and random draws from ranges.

    arms = product({"plain": {}, "flip": {"augment.flip": 0.5}}, levels("optimizer.learning_rate", (1e-3, 1e-2)))

gives the four arms "plain, learning_rate=0.001" … "flip, learning_rate=0.01".
"""

import ast
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.errors import UserError

Fields = Mapping[str, Any]  # of a config: {"optimizer.learning_rate": 0.01}
Arms = Mapping[str, Fields] | Sequence[tuple[str, Fields]]


def named(arms: Arms) -> dict[str, Fields]:
    """Returns name → fields of arms that are given as a mapping or as a list of pairs.

    Raises:
      UserError: for two arms of one name, and for what is no arm.
    """
    found: dict[str, Fields] = {}
    for item in arms.items() if isinstance(arms, Mapping) else arms:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Mapping)):
            raise UserError(f'The study has an arm {item!r}; an arm is a name and its fields: ("flip", {{"augment.flip": 0.5}}).')
        name, fields = item
        if name in found:
            raise UserError(f"The study has two arms with the name {name!r}; give each a name of its own.")
        found[name] = fields
    return found


def levels(field: str, values: Iterable[Any]) -> dict[str, Fields]:
    """An arm for each of some values of a field, named `learning_rate=0.01`.

    Args:
      field: of the config, such as "optimizer.learning_rate".
      values: of that field's type.

    Raises:
      UserError: for a value that is named twice.

    Example:
      >>> from imgclf.studies import levels
      >>> levels("train.duration", ("5 epochs", "10 epochs"))
      {'duration=5 epochs': {'train.duration': '5 epochs'}, 'duration=10 epochs': {'train.duration': '10 epochs'}}
    """
    return named([(_setting(field, value), {field: value}) for value in values])


def product(*factors: Arms) -> dict[str, Fields]:
    """Every combination of one arm of each factor, named by the arms' names in a row; an arm with the name "" adds nothing to it.

    Raises:
      UserError: for two combinations of one name, and two factors that set the same field.

    Example:
      >>> from imgclf.studies import levels, product
      >>> list(product({"plain": {}, "flip": {"augment.flip": 0.5}}, levels("seed", (0, 1))))
      ['plain, seed=0', 'plain, seed=1', 'flip, seed=0', 'flip, seed=1']
    """
    arms = []
    for combination in itertools.product(*(named(factor).items() for factor in factors)):
        fields: dict[str, Any] = {}
        for name, own in combination:
            if both := fields.keys() & own.keys():
                raise UserError(f"The study's factors clash: {name!r} sets {min(both)!r}, as another factor does; let one of them set it.")
            fields |= own
        arms.append((", ".join(name for name, _ in combination if name), fields))
    return named(arms)


def grid(values: Mapping[str, Sequence[Any]]) -> dict[str, Fields]:
    """Every combination of values: {"optimizer.learning_rate": (1e-3, 1e-2), "augment.flip": (0.0, 0.5)} gives four arms.

    Raises:
      UserError: for a value that is named twice.

    Example:
      >>> from imgclf.studies import grid
      >>> list(grid({"optimizer.learning_rate": (1e-3, 1e-2), "augment.flip": (0.0, 0.5)}))[:2]
      ['learning_rate=0.001, flip=0', 'learning_rate=0.001, flip=0.5']
    """
    return product(*(levels(field, own) for field, own in values.items()))


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: uniform, or with `log` uniform in the logarithm; whole where both ends are ints.

    Raises:
      UserError: unless low < high, and with `log` both are above 0.

    Example:
      >>> from imgclf.studies import Range
      >>> Range(1e-4, 1e-2, log=True).at(0.5), Range(1, 3).at(0.9), Range(1, 3).whole
      (0.001, 3, True)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            needs = "low < high" + (", and both above 0 for log=True" if self.log else "")
            raise UserError(f"Range({self.low}, {self.high}) is no range; it needs {needs}.")

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """The number below which a share of all draws lies, 0 to 1."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(self.high, math.floor(value)) if self.whole else float(value)


Space = Mapping[str, Range | Sequence[Any]]  # field → a range, or the values to choose from


def draws(space: Space, count: int, seed: int = 0) -> dict[str, Fields]:
    """Random arms, named by what they set: `count` independent draws of every field, of equal draws one.

    A larger count begins with the arms of a smaller one.

    Args:
      space: field → `Range`, or the values to choose from.
      count: how many to draw.
      seed: of the draws.

    Example:
      >>> from imgclf.studies import Range, draws
      >>> list(draws({"augment.flip": Range(0.0, 1.0)}, 2)) == list(draws({"augment.flip": Range(0.0, 1.0)}, 3))[:2]
      True
    """
    arms: dict[str, Fields] = {}
    for number in range(count):
        shares = np.random.default_rng((seed, number)).random(len(space)).tolist()
        fields = {
            field: values.at(share) if isinstance(values, Range) else values[int(share * len(values))]
            for (field, values), share in zip(space.items(), shares, strict=True)
        }
        if fields not in arms.values():
            name = ", ".join(_setting(field, value) for field, value in fields.items())
            arms[f"{name} ({number})" if name in arms else name] = fields
    return arms


def check_literals(file: Path) -> None:
    """Raises a UserError for a dict in a study file that names a key twice: Python would keep the last value without a word."""
    try:
        parsed = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: {error.msg}; mend the study file, which is Python.") from None
    for node in ast.walk(parsed):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            for i, key in enumerate(keys):
                if key in keys[:i]:
                    raise UserError(
                        f"{file}, line {node.lineno}: {key!r} stands twice in one dict, and Python would drop the first; "
                        "two arms need two names."
                    )


def _setting(field: str, value: Any) -> str:
    shown = f"{value:.3g}" if isinstance(value, float) else value
    return f"{field.rsplit('.', 1)[-1]}={shown}"
