"""What may be written in place of some values, and the types of the fields that take it: 96 for a square, 5 for epochs, a dict for rows."""

import ast
from collections.abc import Mapping
from typing import Annotated, Any

from imgclf.config.named_values import assignments, quoted
from imgclf.errors import UserError


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _epochs(value: Any) -> Any:
    """A duration of a bare number: 5, 0.5 and "5" are epochs; anything else is left for the validation."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value} epochs"
    if isinstance(value, str) and value.strip().replace(".", "", 1).isdecimal():
        return f"{value.strip()} epochs"
    return value


def _each_epochs(value: Any) -> Any:
    return tuple(map(_epochs, value)) if isinstance(value, list | tuple) else value


def _first_epochs(value: Any) -> Any:
    """Rows that begin with a duration, such as (20, "head")."""
    if not isinstance(value, list | tuple):
        return value
    return tuple((_epochs(row[0]), *row[1:]) if isinstance(row, list | tuple) and row else row for row in value)


def _renames(value: Any) -> Any:
    """Rows (old name, new name) of a class map that is a dict, a Series, their text, or assignments: "Cat=cat,kitten=cat"."""
    if isinstance(value, str):
        if not value.lstrip().startswith(("{", "(", "[")):
            return _rows(value)
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return value  # a name may begin with a bracket, too; what remains text is told by the validation
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return tuple(value.items())
    if not isinstance(value, list | tuple):
        return value
    if len(value) == 2 and all(isinstance(item, str) and "=" not in item for item in value):
        return (tuple(value),)  # ("Cat", "cat"): one row without the comma that would make it a row of several
    rows: list[Any] = []
    for row in value:
        rows.extend(_rows(row) if isinstance(row, str) and "=" in row else [tuple(row) if isinstance(row, list) else row])
    return tuple(rows)


def _rows(text: str) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(assignments(text).items())
    except UserError as error:
        raise UserError(f"config.data.class_map={error}") from None


def _weights(value: Any) -> Any:
    """Class weights that are a dict, or a dict's text, as text: {"a=b": 2} is "'a=b'=2"."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return value  # a name may begin with a brace
    if isinstance(value, Mapping) or (hasattr(value, "items") and not isinstance(value, str)):
        return ", ".join(f"{quoted(str(name))}={weight}" for name, weight in value.items())
    return value


# What is written in the place of these types besides; the functions turn it into them.
Size = Annotated[tuple[int, int], _square]
OptionalSize = Annotated[tuple[int, ...], _square]
Duration = Annotated[str, _epochs]
Durations = Annotated[tuple[str, ...], _each_epochs]
Stages = Annotated[tuple[tuple[str, str], ...], _first_epochs]
Renames = Annotated[tuple[tuple[str, str], ...], _renames]
Weights = Annotated[str, _weights]
