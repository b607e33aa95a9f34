"""Values by class name, written as text: `cat=1, 'a=b'=2.5`. Names may hold any letter, as they come from folders."""

import re

from imgclf.errors import UserError

# A name in quotes, in which \ takes the next character as it is; or one without commas, up to the last "=" before the value.
_QUOTED = r"""(?P<{0}quote>['"])(?P<{0}quoted>(?:\\.|(?!(?P={0}quote))[^\\])*)(?P={0}quote)"""
_VALUE = _QUOTED.format("value_") + r"|(?P<value>[^,=]*?)"
_ITEM = re.compile(rf"""\s*(?:{_QUOTED.format("")}|(?P<bare>[^,'"][^,]*?))\s*=\s*(?:{_VALUE})\s*(?:,|$)""")


def assignments(text: str) -> dict[str, str]:
    """Reads `name=value, 'a name, in quotes'=value`, in order; values may stand in quotes, too.

    Raises:
      UserError: for text of another form, and for a name that is given twice; what it says is to follow the field's name and text.
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        item = _ITEM.match(text, position)
        if not item:
            raise UserError(
                f"{text!r} can't be read from {text[position:].strip()!r} on: write NAME=VALUE, NAME=VALUE, and a name with a comma in "
                "quotes, 'cat, big'=VALUE."
            )
        name = item["bare"] if item["quoted"] is None else _unescaped(item["quoted"])
        if name in found:
            raise UserError(f"{text!r} names {name!r} twice; leave one of them out.")
        found[name] = item["value"] if item["value_quoted"] is None else _unescaped(item["value_quoted"])
        position = item.end()
    return found


def quoted(name: str) -> str:
    """A name as `assignments` reads it, whatever letters it holds."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
