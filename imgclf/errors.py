"""The one exception that stands for a user's mistake."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in a sentence that ends with the way out; the commands print it without a traceback and exit with 2."""


def nearest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """Names the valid choices closest to `name`, or all of them where none is close: `did you mean 'adam'?`."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=count, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(choice) for choice in close) + "?"
    return "valid: " + ", ".join(repr(choice) for choice in choices)
