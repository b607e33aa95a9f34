"""`--config=FILE.py[:ARGUMENTS]` and `--config.FIELD=VALUE`, as `run.py` and the commands read them."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from imgclf.config import Config, saved_run
from imgclf.config.names import check_field
from imgclf.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # where configs/ is, in a checkout


def parse(argv: Sequence[str], default: str, values: flags.FlagValues, program: str) -> list[str]:
    """Adds the flag `config` to `values` and parses a command line with it.

    Args:
      argv: the program's name and its arguments.
      default: the config file without --config, from the checkout's root.
      values: absl's flags; `values.config` is the config afterwards.
      program: what --help is asked of, for the error message.

    Returns:
      The arguments that are no flags, the program's name first.

    Raises:
      UserError: for flags and fields that don't exist, values of the wrong type, and config files that can't be found or used.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # configs import each other
    try:
        argv = [_resolve(argument) for argument in argv]
        argv = [argv[0], *sorted(argv[1:], key=lambda argument: not argument.startswith("--config="))]  # the file before its fields
        help_text = "Config file, FILE.py[:ARGUMENTS], or RUN/config.json."
        config_flags.DEFINE_config_file("config", str(ROOT / default), help_text, flag_values=values, sys_argv=argv)
        return values(argv)
    except flags.Error as error:  # unknown flags, and values of the wrong type
        raise UserError(re.sub(r"\s+", " ", str(error)).rstrip(".") + f". See {program} --help.") from None
    except (AttributeError, KeyError, ValueError, TypeError) as error:  # from inside the config file
        message = str(error).strip("\"'").replace("\\'", "'").strip().splitlines()
        reason = message[-1] if message else type(error).__name__
        raise UserError(f"The config file can't be used: {reason}. All fields stand in imgclf/config/fields.py.") from None


def load(config: str, fields: Sequence[str], program: str) -> Config:
    """Reads a config for a command.

    Args:
      config: FILE.py[:ARGUMENTS] or RUN/config.json.
      fields: `--config.FIELD=VALUE`, each.
      program: the command, such as "imgclf lr-find".

    Raises:
      UserError: as `parse` does; for arguments that are no fields.
    """
    stray = [field for field in fields if not field.startswith("--config.")]
    if stray:
        raise UserError(f"{stray[0]!r} is not understood; see {program} --help.")
    values = flags.FlagValues()
    parse([program, f"--config={config}", *fields], "configs/quickstart.py", values, program)
    return values.config


def _resolve(argument: str) -> str:
    """Checks field names, finds shipped configs from any folder, and lets a run's config.json stand for a config file."""
    name, equals, value = argument.partition("=")
    name = name.lstrip("-")
    if argument.startswith("-") and name.startswith("config."):
        check_field(name.removeprefix("config.").removeprefix("no"))
    if not argument.startswith("-") or name != "config" or not equals:
        return argument
    file, colon, arguments = value.partition(":")
    path = Path(file)
    if not path.exists() and (ROOT / file).exists():
        path = ROOT / file
    if not path.is_file():
        shipped = ", ".join(sorted(f"configs/{config.name}" for config in (ROOT / "configs").glob("*.py")))
        raise UserError(f"There is no config file {file!r}; give a path, one of {shipped}, or a run's config.json.")
    if path.suffix == ".json":
        return f"--config={saved_run.__file__}:{path}"
    return f"--config={path}{colon}{arguments}"
