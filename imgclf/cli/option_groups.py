"""Options that several commands share are declared once, as the fields of a dataclass: a group."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command, in place of each parameter whose type is a dataclass, the fields of that dataclass as options.

    typer knows no groups of options: it reads the signature of the function. So that is what is changed here. An option that several
    groups of a command have under one name is one option; each of the groups gets its value.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    groups = {name: hints[name] for name in own if dataclasses.is_dataclass(hints[name])}
    flat: dict[str, inspect.Parameter] = {}
    for name, parameter in own.items():
        if name not in groups:
            flat[name] = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
    members = {name: [field.name for field in dataclasses.fields(group)] for name, group in groups.items()}
    for group in groups.values():
        types = get_type_hints(group, include_extras=True)
        for field in dataclasses.fields(group):
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            flat[field.name] = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        filled = {name: group(**{member: values[member] for member in members[name]}) for name, group in groups.items()}
        command(**{name: values[name] for name in own if name not in groups}, **filled)

    wrapped.__signature__ = inspect.Signature(list(flat.values()))  # type: ignore[attr-defined]  # functions may have one, PEP 362
    wrapped.__annotations__ = {name: parameter.annotation for name, parameter in flat.items()}
    return wrapped
