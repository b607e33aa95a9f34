"""The exception that stands for a user's mistake."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping


class UserError(Exception):
    """A mistake in what the user gave, told in a sentence that ends with the way out.

    The commands print it without a traceback and end with its exit code.

    Example:
      >>> try:
      ...     imgclf.load("nowhere")
      ... except imgclf.UserError as error:
      ...     print(error)
      There is no folder nowhere (looked for as ...nowhere): name the folder of a finished run.
    """

    exit_code = 2


class AlteredError(UserError):
    """A file that is not as it was written: no mistake in the command, but a check that has failed, as the exit code tells scripts."""

    exit_code = 1


@contextlib.contextmanager
def under_names(names: Mapping[str, str]) -> Iterator[None]:
    """Has the errors raised in the block speak of fields by the caller's names for them.

    Args:
      names: field → what the user has written, such as {"config.model.name": "model"} where a function has an argument of that name.
    """
    try:
        yield
    except UserError as error:
        told = str(error)
        for field, name in names.items():
            told = told.replace(f"{field}=", f"{name}=")
        error.args = (told,)  # the same error, so that its class and what it knows besides stay
        raise


def missing_extra(what: str, package: str, extra: str) -> UserError:
    """Returns the error for a package that only some users need and that is not installed; it ends with the line that installs it."""
    return UserError(f"{what} needs {package}: python -m pip install 'imgclf[{extra}]'.")


def nearest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """Returns "did you mean 'adam'?" with the valid choices closest to `name`, or "valid: …" with all of them where none is close."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=count, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(choice) for choice in close) + "?"
    return "valid: " + ", ".join(repr(choice) for choice in choices)
