"""Fields by their dotted names: listing, checking and setting them."""

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from imgclf.config.fields import Config, Group, default_config
from imgclf.errors import UserError, nearest


def flatten(config: Group, prefix: str = "") -> dict[str, Any]:
    """Returns `{"data.split.seed": 0, ...}` in the order of definition."""
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
    hint = "did you mean " + " or ".join(repr(field) for field in same_leaf) + "?" if same_leaf else nearest(name, fields)
    raise UserError(f"There is no config field {name!r}; {hint} All fields stand in imgclf/config/fields.py.")


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
        if isinstance(value, Mapping):
            override(config, {f"{name}.{key}": inner for key, inner in value.items()})
            continue
        check_field(name)
        try:
            config.update_from_flattened_dict({name: tuples(value)})
        except TypeError as error:
            raise UserError(f"config.{name}={value!r} has the wrong type: {error}.") from None


def tuples(value: Any) -> Any:
    """Lists made tuples, as fields have them, to any depth."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
