"""What an error says of arguments, as the command line has them: functions speak of `overwrite=True`, a command of --overwrite."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperGroup

from imgclf import errors
from imgclf.errors import UserError


def asked_command(group: TyperGroup, arguments: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """The command that arguments name, by its path in the group, such as ("data", "show"), and as click's object."""
    path: tuple[str, ...] = ()
    command: Any = group
    for argument in arguments:
        if argument not in getattr(command, "commands", {}):
            break
        command = command.commands[argument]
        path += (argument,)
    return path, command


@contextlib.contextmanager
def in_errors(command: Any) -> Iterator[None]:
    """Has the errors raised in the block spell the command's parameters as its flags.

    Args:
      command: of click, which knows the flags.
    """
    flags = {parameter.name: max(parameter.opts, key=len) for parameter in command.params if parameter.opts[0].startswith("-")}
    with errors.of_flags():
        try:
            yield
        except UserError as error:
            error.args = (told(str(error), flags),)  # the same error, so that its class and what it knows besides stay
            error.of_command = True
            raise


def told(sentence: str, flags: dict[str, str]) -> str:
    """Spells the parameters in a sentence as flags: `x=True` becomes --x, `x='a'` becomes --x='a'; fields such as config.x stay."""
    for name, flag in flags.items():
        sentence = re.sub(rf"(?<![\w.,-]){name}=True\b", flag, sentence)
        sentence = re.sub(rf"(?<![\w.,-]){name}=", f"{flag}=", sentence)
    return sentence
