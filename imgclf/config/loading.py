"""Which config is meant: a file, one that ships with imgclf, or that of a run; and how it is read."""

import difflib
import importlib.util
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from imgclf.config.fields import Config, Fields
from imgclf.config.names import set_fields
from imgclf.config.serialization import from_json
from imgclf.errors import UserError
from imgclf.remote import copies, places

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel holds the shipped configs inside of the package; in a clone they stand beside it.
_FOLDERS = (_PACKAGE / "shipped_configs", _PACKAGE.parent / "configs")
RUN_CONFIG = "config.json"  # by which a run's folder is known


def shipped() -> dict[str, Path]:
    """The configs that ship with imgclf, name → file, sorted by name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("*.py"))} if folder else {}


def run_of(config: str | os.PathLike[str]) -> Path | None:
    """The folder of the run whose config `config` names, by the folder itself or its config.json; None where it names no run.

    A run at a URL is fetched.
    """
    if isinstance(config, str) and places.is_url(config):
        return copies.fetched(config.removesuffix(f"/{RUN_CONFIG}"))
    path = Path(config).expanduser()
    if path.name == RUN_CONFIG and path.is_file():
        return path.parent
    return path if (path / RUN_CONFIG).is_file() and os.fspath(config) not in shipped() else None


def load_config(config: str | os.PathLike[str], fields: Mapping[str, Any] | Sequence[str] = ()) -> Config:
    """Reads a config, and sets fields in it.

        load_config("quickstart")                                  # one that ships with imgclf
        load_config("folder:photos", {"data.image_size": 96})      # what follows the colon is the config's argument
        load_config("my/config.py", ["data.image_size=96"])        # a file of your own, which defines get_config()
        load_config("runs/photos")                                 # what a run was made with; also runs/photos/config.json

    Args:
      config: which one. A bare name is a shipped config's, if there is one; "./NAME" is a file or folder of that name.
      fields: name → value, or assignments as flags have them; the last of several for one field counts.

    Returns:
      The config, its fields checked; see the reference of config fields.

    Raises:
      UserError: for a config that isn't there or can't be read, and for fields and values that aren't valid.

    Example:
      >>> imgclf.load_config("quickstart", {"data.image_size": 96, "train.duration": 5}).data.image_size
      (96, 96)
      >>> imgclf.load_config("quickstart", ["data.imagesize=96"])
      Traceback (most recent call last):
      imgclf.errors.UserError: ...data.imagesize...
    """
    loaded = _load(os.fspath(config))
    set_fields(loaded, fields)
    return loaded


def _load(text: str) -> Config:
    if (run := run_of(text)) is not None:
        return _saved(run / RUN_CONFIG)
    name, colon, argument = text.partition(":")
    path = Path(name).expanduser()
    if path.suffix == ".json" and path.is_file() and not colon:  # such as a study's best.json
        return _saved(path)
    known = shipped()
    if name in known:
        path = known[name]
    elif not path.is_file() and str(path.parent) in (".", "configs") and path.suffix == ".py" and path.stem in known:
        path = known[path.stem]  # configs/folder.py, from whatever folder
    if not path.is_file():
        raise UserError(_not_found(name, known))
    if path.suffix != ".py":
        raise UserError(f"{name} is no config: give a Python file that defines get_config(), a run's folder, or one of {', '.join(known)}.")
    return _from_file(path, argument if colon else None)


def _saved(path: Path) -> Config:
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}): give another run, or a config file.") from None


def _not_found(name: str, known: Mapping[str, Path]) -> str:
    listed = ", ".join(known)
    path = Path(name).expanduser()
    if path.is_dir():
        return (
            f"{name} is a folder without a {RUN_CONFIG}, so no run; to train on the photos in it, write folder:{name} or finetune:{name}."
        )
    close = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? Or " if close else ""
    return f"There is no config file {name!r}; {hint}give a path, a run's folder or config.json, or one that ships with imgclf: {listed}."


def _from_file(path: Path, argument: str | None) -> Config:
    """Calls `get_config` of a config file, with the text after the colon where there is one."""
    try:
        get_config = _module(path).get_config
    except AttributeError:
        raise UserError(f"{path} defines no get_config(): write a function of that name that returns a config.") from None
    takes_argument = bool(inspect.signature(get_config).parameters)
    if argument and not takes_argument:
        raise UserError(f"The config {path.stem!r} takes nothing after a colon ({argument!r}): leave it out.")
    try:
        config = get_config(argument) if argument and takes_argument else get_config()
    except (AttributeError, KeyError, ValueError, TypeError) as error:  # a misspelt field, a value of the wrong type
        raise UserError(f"The config file {path} can't be used: {_reason(error)}. All fields stand in imgclf/config/fields.py.") from error
    if not isinstance(config, Fields):
        raise UserError(f"get_config() of {path} returns {type(config).__name__}, no config: begin with imgclf.config.default_config().")
    return cast(Config, config)  # at run time a Config is a ConfigDict, see fields.py


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}; mend the config file, which is Python.") from None
    return module


def _reason(error: Exception) -> str:
    lines = str(error).strip("\"'").replace("\\'", "'").strip().splitlines()
    return lines[-1].rstrip(".") if lines else type(error).__name__
