"""Durations as people write them: `"500 steps"`, `"10 epochs"`, `"20%"`."""

import re

from imgclf.errors import UserError

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?|%)")


def parse(duration: str, field: str = "duration") -> tuple[float, str]:
    """Splits a duration into its amount and its unit, one of `steps`, `epochs`, `%`.

    Raises:
      UserError: if it is not a number and a unit; `field` is named in the message.
    """
    match = _PATTERN.fullmatch(duration.strip())
    if not match:
        raise UserError(f"{field}={duration!r} is not a duration: write '500 steps', '10 epochs' or '20%'.")
    amount, unit = float(match[1]), match[2]
    return amount, unit if unit == "%" else unit.rstrip("s") + "s"


def length(duration: str, *, steps_per_epoch: float, total_steps: int | None = None, field: str = "duration") -> float:
    """Converts a duration to optimizer steps, not rounded: an epoch need not be a whole number of them.

    Args:
      duration: as in `parse`.
      steps_per_epoch: examples in the training split / global batch size.
      total_steps: what `"20%"` is a share of; None where a percentage makes no sense.
      field: the config field, for the error message.

    Raises:
      UserError: if the duration does not parse, or is a percentage of nothing.
    """
    amount, unit = parse(duration, field)
    if unit == "%" and total_steps is None:
        raise UserError(f"{field}={duration!r}: a percentage has nothing to refer to here; write steps or epochs.")
    return amount * {"steps": 1.0, "epochs": steps_per_epoch, "%": (total_steps or 0) / 100}[unit]


def steps(duration: str, *, steps_per_epoch: float, total_steps: int | None = None, field: str = "duration") -> int:
    """Converts a duration to a whole number of optimizer steps: rounded, and at least 1 unless the amount is 0. See `length`."""
    exact = length(duration, steps_per_epoch=steps_per_epoch, total_steps=total_steps, field=field)
    return max(1, round(exact)) if exact else 0


def hyper_rule_steps(examples: int, batch_size: int) -> int:
    """How long to fine-tune on so many images: BiT-HyperRule (Kolesnikov et al., 2020, https://arxiv.org/abs/1912.11370, section 3.3).

    500, 10,000 or 20,000 steps of 512 images, for fewer than 20,000 training images, fewer than 500,000, and more. With another batch size
    there are as many more steps as make up the same number of images seen.
    """
    steps_of_512 = 500 if examples < 20_000 else 10_000 if examples < 500_000 else 20_000
    return max(1, round(steps_of_512 * 512 / batch_size))


def is_due(step: int, every: float) -> bool:
    """Whether `step` is the one nearest to a multiple of `every` steps, so that what happens every epoch keeps to the epochs."""
    every = max(1.0, every)
    return step > 0 and step == round(round(step / every) * every)
