"""Where images come from. A source is one module of this package, found by its name: `config.data.source="folder"` is `folder.py`.

Sources of one's own need no change here. `config.data.source="my_module:Faces"` names a class by its module; an installed package can
offer one under a short name by an entry point:

    [project.entry-points."imgclf.sources"]
    faces = "my_package.faces:Faces"

In either case it is a subclass of `Source`, whose arguments beside the config are written in `config.data.source_args`.
"""

import importlib
import importlib.metadata
import inspect
import pkgutil

from imgclf.config import parse_arguments, user_code
from imgclf.config.fields import DataConfig
from imgclf.data.sources.base import Listing, Source
from imgclf.errors import UserError, nearest

__all__ = ["GROUP", "Listing", "Source", "create", "names"]

GROUP = "imgclf.sources"  # of entry points


def names() -> list[str]:
    """The names that `config.data.source` may have: of this package, then of installed ones."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    return own + sorted(point.name for point in importlib.metadata.entry_points(group=GROUP) if point.name not in own)


def create(data: DataConfig) -> Source:
    """Makes the source that `config.data` names, and has it check its fields; nothing is read.

    Raises:
      UserError: for a source that doesn't exist, arguments that it doesn't take, and what its own check finds.
    """
    kind = _find(data.source)
    arguments = parse_arguments(data.source_args, "data.source_args")
    try:
        inspect.signature(kind).bind(data, **arguments)
    except TypeError as error:
        taken = ", ".join(list(inspect.signature(kind).parameters)[1:]) or "none"
        raise UserError(
            f"config.data.source_args={data.source_args!r} does not fit config.data.source={data.source!r} ({error}); "
            f"the arguments that it takes: {taken}."
        ) from None
    source = kind(data, **arguments)
    source.check()
    return source


def _find(name: str) -> type[Source]:
    if any(module.name == name != "base" for module in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        own = (value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__)
        return next(value for value in own if issubclass(value, Source))
    spec = name if ":" in name else next((point.value for point in importlib.metadata.entry_points(group=GROUP, name=name)), "")
    if not spec:
        raise UserError(f"config.data.source={name!r} is unknown; {nearest(name, names())} A class of your own is named 'module:Class'.")
    kind = user_code.load(spec, "data.source")
    if not (inspect.isclass(kind) and issubclass(kind, Source)):
        raise UserError(f"config.data.source={name!r} is no source: derive its class from imgclf.data.sources.Source.")
    return kind
