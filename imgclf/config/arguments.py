"""Arguments written as text: of an optimizer or a model's builder, and what stands after a config file's colon."""

import ast
import re
from typing import Any

from imgclf.errors import UserError, nearest


def parse_arguments(text: str, field: str) -> dict[str, Any]:
    """Parses `"momentum=0.9, nesterov=True"` into keyword arguments, literals only.

    Raises:
      UserError: if `text` is not of that form; `field` is named.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(text)
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError):
        raise UserError(f'config.{field}={text!r} is not a list of arguments: write "momentum=0.9, nesterov=True".') from None


def parse_config_argument(argument: str, **defaults: str | bool) -> dict[str, Any]:
    """Parses what stands after a config file's colon: `PATH,model=resnet50,distortions=True`.

    Args:
      argument: the path first; it may hold commas and "=" but not ",name=".
      defaults: the names that may follow, with the values that they have where they don't.

    Returns:
      `path` and the named values; those whose default is a bool are one.

    Raises:
      UserError: for an unknown name, and for a bool that is neither True nor False.
    """
    path, *rest = re.split(r",(?=\w+=)", argument)
    found: dict[str, Any] = {"path": path, **defaults}
    for item in rest:
        name, _, value = item.partition("=")
        if name not in defaults:
            raise UserError(f"The config takes no {name!r} after its colon ({item!r}); {nearest(name, defaults)}")
        if isinstance(defaults[name], bool):
            if value not in ("True", "False"):
                raise UserError(f"{item!r}: write {name}=True or {name}=False.")
            value = value == "True"
        found[name] = value
    return found
