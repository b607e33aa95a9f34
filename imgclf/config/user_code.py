"""Code of the user's own, named in a config as `module:attribute`: an optimizer, a model's builder, a source of images."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from imgclf.errors import UserError, nearest


def load(spec: str, field: str) -> Any:
    """Imports what a config field names, such as `"my_module:make"` or `"my_package.models:Tiny.build"`.

    The module is looked for where Python looks for any, and then in the current directory, which stays importable afterwards, so that
    processes started later find the module too.

    Args:
      spec: a module, a colon, and an attribute of it; both may be dotted.
      field: the config field that holds `spec`, such as "optimizer.name", for the error message.

    Raises:
      UserError: for another form, for a module that doesn't exist or fails while it is imported, and for an attribute that it doesn't have.
    """
    name, _, path = spec.partition(":")
    if not all(part.isidentifier() for part in [*name.split("."), *path.split(".")]):
        raise UserError(f"config.{field}={spec!r} is not of the form 'module:attribute', such as 'my_module:make'.")
    value: Any = _module(name, spec, field)
    for part in path.split("."):
        if not hasattr(value, part):
            known = [other for other in dir(value) if not other.startswith("_")]
            raise UserError(f"config.{field}={spec!r}: {_told(value, name)} has no {part!r}; {nearest(part, known)}")
        value = getattr(value, part)
    return value


def _module(name: str, spec: str, field: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # the file may be newer than what Python remembers of its folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _failed(error, name, spec, field) from error  # the module is there, one that it imports isn't
        near = [file.stem for file in Path(here).glob("*.py")]
        hint = f" ({nearest(name, near).removesuffix('.')})" if near else ""
        raise UserError(
            f"config.{field}={spec!r}: there is no module {error.name!r} in the current directory, {here}{hint}, nor is it installed; "
            "change to the folder of the file, or set PYTHONPATH to it."
        ) from None
    except Exception as error:  # whatever the user's own code raises
        raise _failed(error, name, spec, field) from error


def _failed(error: Exception, name: str, spec: str, field: str) -> UserError:
    """What is wrong with the user's code, and the last line of theirs in which it went wrong."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        place = f"{frames[-1].filename}, line {frames[-1].lineno}"
    return UserError(f"config.{field}={spec!r}: importing {name!r} fails with {type(error).__name__}: {error} ({place}); mend it there.")


def _told(value: Any, name: str) -> str:
    return f"the module {name!r}" if isinstance(value, ModuleType) else repr(value)
