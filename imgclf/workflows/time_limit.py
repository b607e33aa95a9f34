"""The time that a user has: how it is written, and how much of it is left."""

import dataclasses
import math
import numbers
import re
import time
from collections.abc import Callable

from imgclf import formatting
from imgclf.errors import UserError

Clock = Callable[[], float]  # seconds, from any start on, never backwards

_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", re.IGNORECASE)


def seconds(written: object, name: str = "time_limit") -> float:
    """Reads a time: "10 minutes", "90 s", "1.5 h", or a number of seconds.

    Args:
      written: by the user.
      name: of the option, for the error.

    Raises:
      UserError: for anything else, and for a time that is not above 0.
    """
    found = math.nan
    if isinstance(written, numbers.Real) and not isinstance(written, bool):
        found = float(written)
    elif isinstance(written, str) and (match := _WRITTEN.fullmatch(written)) and match[2].lower() in _UNITS:
        found = float(match[1]) * _UNITS[match[2].lower()]
    if not 0 < found < math.inf:
        raise UserError(f"{name}={written!r} is no time: write it as '10 minutes', '90 s' or '1.5 h'.")
    return found


@dataclasses.dataclass(frozen=True)
class TimeLimit:
    """A span of time that runs from the moment it is made.

    Attributes:
      seconds: of the whole span.
      used_before: seconds of it that an earlier start has used.
      clock: whose differences count.
    """

    seconds: float
    used_before: float = 0.0
    clock: Clock = time.monotonic
    began: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", self.clock())  # the class is frozen

    @property
    def used(self) -> float:
        return self.used_before + self.clock() - self.began

    @property
    def left(self) -> float:
        """Seconds; 0 when the time is over."""
        return max(0.0, self.seconds - self.used)

    def deadline(self, reserve: float = 0.0) -> float:
        """When so many seconds will be left, by the clock."""
        return self.clock() + self.left - reserve

    def __str__(self) -> str:
        return formatting.duration(self.seconds)
