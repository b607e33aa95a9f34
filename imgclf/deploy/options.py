"""What a prediction says of an image, and how it is computed: the options of `Classifier.predict` and of `imgclf predict`, checked once."""

import dataclasses
import math
import numbers
import operator
from typing import Literal, get_args

from imgclf.errors import UserError

OnError = Literal["raise", "row"]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a prediction.

    Attributes:
      top_k: how many of the likeliest classes are listed per image; where there are fewer classes, all are.
      batch_size: images per forward pass.
      threshold: probability, 0 to 1, below which the answer is "unknown"; None = no column `answer`.
      conformal: whether to list the classes that the run's conformal rule admits.

    Raises:
      UserError: for a value that is out of its range or of another type.
    """

    top_k: int = 5
    batch_size: int = 64
    threshold: float | None = None
    conformal: bool = False

    def __post_init__(self) -> None:
        _set(self, "top_k", _count("top_k", self.top_k, "it is how many classes are named per image; the default is 5."))
        _set(self, "batch_size", _count("batch_size", self.batch_size, "it is how many images are computed at a time; the default is 64."))
        if self.threshold is not None:
            _set(self, "threshold", _share(self.threshold))
        _set(self, "conformal", bool(self.conformal))


def check_on_error(value: str) -> OnError:
    """Returns what is to happen at an image that can't be read: "raise" an error, or tell the reason in its "row".

    Raises:
      UserError: for any other value.
    """
    for choice in get_args(OnError):
        if value == choice:
            return choice
    raise UserError(f"on_error={value!r} is unknown: 'raise' ends the call at an image that can't be read, 'row' tells why in its row.")


def _set(options: Options, name: str, value: object) -> None:
    object.__setattr__(options, name, value)  # the class is frozen


def _count(name: str, value: object, meaning: str) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # what has no index is told below
    except TypeError:
        number = 0
    if number < 1:
        raise UserError(f"{name}={value!r} is no whole number of at least 1: {meaning}")
    return number


def _share(value: object) -> float:
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= 1:
        hint = f"did you mean {number / 100:g}?" if 1 < number <= 100 else "the answer is 'unknown' where the class is less probable."
        raise UserError(f"threshold={value!r} is no probability from 0 to 1: {hint}")
    return number
