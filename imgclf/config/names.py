"""Fields by their dotted names: listing, checking and setting them."""

import ast
import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from imgclf.config.fields import Config, default_config
from imgclf.config.group import Group
from imgclf.errors import UserError


def flatten(config: Group, prefix: str = "") -> dict[str, Any]:
    """Returns `{"data.split.seed": 0, ...}`, sorted by name."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def check_field(name: str) -> None:
    """Raises a UserError with the nearest fields where `name` (`data.image_size`) is none of an experiment's."""
    fields = _fields()
    if name in fields:
        return
    if any(field.startswith(name + ".") for field in fields):
        raise UserError(f"config.{name} is a group of fields; set one of them, such as config.{name}.{_first_leaf(fields, name)}.")
    leaf = name.rsplit(".", 1)[-1]  # the right leaf in the wrong group is the commonest slip
    same_leaf = [field for field in fields if field.rsplit(".", 1)[-1] == leaf]
    close = same_leaf or difflib.get_close_matches(name, fields, cutoff=0.5)
    hint = "; did you mean " + " or ".join(repr(field) for field in close) + "?" if close else "."
    raise UserError(f"There is no config field {name!r}{hint} All fields stand in imgclf/config/fields.py.")


@functools.cache  # a validation checks some hundred names, a study validates every run
def _fields() -> tuple[str, ...]:
    return tuple(flatten(default_config()))


def _first_leaf(fields: tuple[str, ...], group: str) -> str:
    return next(field for field in fields if field.startswith(group + "."))[len(group) + 1 :]


def override(config: Config, fields: Mapping[str, Any]) -> None:
    """Sets fields, in place, by their names: {"data.image_size": (64, 64), "data.columns": {"label": "species"}}.

    Raises:
      UserError: for a name that is no field, and a value of the wrong type.
    """
    for name, value in fields.items():
        if isinstance(value, Mapping) and name not in _fields():
            override(config, {f"{name}.{key}": inner for key, inner in value.items()})
            continue
        check_field(name)
        try:
            config.update_from_flattened_dict({name: tuples(value)})
        except TypeError:
            raise UserError(f"config.{name}={value!r} has the wrong type; expected {expected(name)}.") from None


def set_fields(config: Config, fields: Mapping[str, Any] | Sequence[str]) -> None:
    """Sets fields, in place: by their names, or by assignments as flags have them, of which the last for a field counts.

    Raises:
      UserError: as `override` and `parse_assignment` do.
    """
    for name, value in fields.items() if isinstance(fields, Mapping) else map(parse_assignment, fields):
        override(config, {name: value})


def expected(name: str) -> str:
    """What a field's value may be, in words: `a number, such as 0.001`."""
    default = _default_of(name)
    kind = {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a tuple"}[type(default)]
    return kind if isinstance(default, bool) or default in ("", ()) else f"{kind}, such as {default!r}"


def parse_assignment(text: str) -> tuple[str, Any]:
    """Reads `FIELD=VALUE`, as flags give it: "data.image_size=96", "model.cnn.widths=(8, 16)", "augment.zoom_joint=true".

    Returns:
      The field's name and its value, of the field's type as far as the text can be read so; `override` checks it.

    Raises:
      UserError: for another form, a name that is no field, and a value that can't be read.
    """
    name, equals, value = text.partition("=")
    name = name.strip().removeprefix("config.")
    if not equals:
        raise UserError(f"{text!r} sets nothing; write FIELD=VALUE, such as --set data.image_size=96.")
    check_field(name)
    return name, _parsed(name, value)


def _parsed(name: str, text: str) -> Any:
    kind = type(_default_of(name))
    try:
        if kind is str:
            return text
        if kind is bool:
            return _TRUTH[text.strip().lower()]
        if kind is tuple:
            if name in _NAMED:
                return text
            value = ast.literal_eval(text)
            return value if name in _SIZES or not isinstance(value, int | float | str) else (value,)
        return kind(text)
    except (KeyError, SyntaxError, ValueError):
        raise UserError(f"config.{name}={text!r} is not valid; expected {expected(name)}.") from None


_TRUTH = {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False, "no": False}
_NAMED = ("data.class_map",)  # read by the field itself: names of classes, which need no quotes
_SIZES = ("data.image_size", "augment.image_size")  # a single number is a square there, elsewhere a tuple of one


def _default_of(name: str) -> Any:
    return flatten(default_config())[name]


def tuples(value: Any) -> Any:
    """Lists made tuples, as fields have them, to any depth."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
