"""How results are written for people: rounded, but never so far that they say something else."""

import math

NONE = "–"  # stands for a number that is not defined
NBSP = "\u00a0"


def percent(share: float | None, digits: int = 1) -> str:
    """Writes `0.972` as `97.2 %`. A share that is not exactly 0 or 1 gets as many digits as it needs not to read 0 % or 100 %."""
    if share is None:
        return NONE
    return f"{_digits(share, digits)}{NBSP}%"


def interval(bounds: tuple[float, float] | list[float]) -> str:
    """Writes `(0.950, 0.985)` as `95.0–98.5 %`; a narrow interval gets as many digits as it needs to show its width."""
    width = 100 * (bounds[1] - bounds[0])
    digits = 1 if width >= 0.2 or not width else 2 if width >= 0.02 else 3
    return f"{_digits(bounds[0], digits)}–{_digits(bounds[1], digits)}{NBSP}%"


def number(value: float | None, digits: int = 3) -> str:
    """Writes so many significant digits, without an exponent where it can be avoided: `0.0712`, `12.3`, `1,797`."""
    if value is None:
        return NONE
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return str(value)
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def signed(value: float, digits: int = 0) -> str:
    """Writes a difference with its sign, `+0.043`, `−0.074`, so many digits after the point."""
    return f"{value:+.{digits}f}".replace("-", "−")


def points(share: float, digits: int = 1) -> str:
    """Writes a difference of two shares, 0.043, in percentage points: `+4.3`."""
    return signed(100 * share, digits)


def count(n: int, singular: str, plural: str | None = None) -> str:
    """Writes `1 image` or `1,797 images`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def flops(count: float | None) -> str:
    """Floating-point operations: `4.07 MFLOP`, `27.7 GFLOP`."""
    if count is None:
        return NONE
    scale = min(6, max(0, int(math.log10(count)) // 3)) if count >= 1 else 0
    return f"{number(float(count) / 1000**scale)}{NBSP}{('', 'k', 'M', 'G', 'T', 'P', 'E')[scale]}FLOP"


def duration(seconds: float) -> str:
    """Writes `42 s`, `1 min`, `3 min 5 s`, `2 h` or `2 h 10 min`: a part that is 0 is left out, so that each time has one spelling."""
    whole = round(seconds)
    if whole < 60:
        return f"{number(float(seconds), 2)} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def _digits(share: float, digits: int) -> str:
    text = f"{100 * share:.{digits}f}"
    while float(text) in (0.0, 100.0) and share not in (0, 1) and digits < 8:
        digits += 1
        text = f"{100 * share:.{digits}f}"
    return "0" if share == 0 else "100" if share == 1 else text
