"""The exception that stands for a user's mistake.

One sentence serves the command line and Python: it may name an argument as either has it, and is told as the reader has it. In a command
`overwrite=True` is told as --overwrite (`imgclf.cli.flags`), in Python --overwrite as `overwrite=True`. Fields, such as config.data.path,
have one name in both.
"""

import contextlib
import difflib
import re
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
    of_command = False  # whether it has left a command, whose flags it names for good

    def __str__(self) -> str:
        told = super().__str__()
        return told if self.of_command or _speaks_of_flags else in_python(told)


class AlteredError(UserError):
    """A file that is not as it was written: no mistake in the command, but a check that has failed, as the exit code tells scripts."""

    exit_code = 1


_speaks_of_flags = False  # whether a command is running
_SWITCHES = ("commercial", "common", "distributed", "image-labels", "link", "negatives", "overwrite", "retrain", "trust", "verify")


@contextlib.contextmanager
def of_flags() -> Iterator[None]:
    """Has errors speak of flags in the block: the reader has given a command."""
    global _speaks_of_flags  # one for all threads, as the process has one command line
    before, _speaks_of_flags = _speaks_of_flags, True
    try:
        yield
    finally:
        _speaks_of_flags = before


def in_python(sentence: str) -> str:
    """Spells the flags in a sentence as arguments: --batch-per-chip becomes batch_per_chip, --overwrite becomes overwrite=True.

    What stands in a command, such as `imgclf train CONFIG --workdir=runs/a`, is to be copied, and stays.
    """
    parts = re.split(r"(\b(?:imgclf|pip|python) (?:[^,;:`.]|[:.](?=\S))*)", sentence)  # every second one is a command
    return "".join(part if number % 2 else _as_arguments(part) for number, part in enumerate(parts))


def _as_arguments(text: str) -> str:
    text = re.sub(r"(?<![\w-])--set (\"?)(?=[a-z])", r"\1config.", text)
    text = re.sub(r"(?<![\w-])--(?=config\.)", "", text)
    text = re.sub(r"(?<![\w-])--no-env\b", "new_environment=False", text)
    text = re.sub(rf"(?<![\w-])--({'|'.join(_SWITCHES)})\b(?!=)", lambda found: found[1].replace("-", "_") + "=True", text)
    return re.sub(r"(?<![\w-])--([a-z][\w-]*)", lambda found: found[1].replace("-", "_"), text)


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
    """Returns "did you mean 'adam'?" with the valid choices closest to `name`, or "valid: …." with all of them where none is close."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=count, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(choice) for choice in close) + "?"
    return "valid: " + ", ".join(repr(choice) for choice in choices) + "."
