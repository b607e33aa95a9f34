"""The command line of `run.py`: config flags in, exit code out (0 done, 2 the user's mistake, 130 Ctrl-C, 143 SIGTERM)."""

import contextlib
import errno
import functools
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags
from rich.console import Console

from imgclf import config as config_lib
from imgclf.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; it is made, or continued. Default: runs/NAME, after config.name.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Start jax.distributed: one such command on each host, with the same --workdir.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "--distributed outside SLURM and TPU pods: HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "--distributed outside SLURM and TPU pods: how many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "--distributed outside SLURM and TPU pods: which one this is, from 0.")

_ROOT = Path(__file__).resolve().parent.parent


def main(default_config: str) -> None:
    """Parses the command line and runs the experiment; leaves the process with an exit code."""
    app.run(_run, flags_parser=functools.partial(_parse, default_config))


def _parse(default_config: str, argv: Sequence[str]) -> list[str]:
    try:
        argv = [_resolve(argument) for argument in argv]
        help_text = "Config file, FILE.py[:ARGUMENTS], or RUN/config.json."
        config_flags.DEFINE_config_file("config", str(_ROOT / default_config), help_text, sys_argv=argv)
        return flags.FLAGS(argv)
    except UserError as error:
        _leave(str(error))
    except flags.Error as error:  # unknown flags, and values of the wrong type
        _leave(re.sub(r"\s+", " ", str(error)).rstrip(".") + ". See python run.py --help.")
    except (AttributeError, KeyError, ValueError, TypeError) as error:  # from inside the config file
        message = str(error).strip("\"'").replace("\\'", "'").strip().splitlines()
        _leave(f"The config file can't be used: {message[-1] if message else type(error).__name__}. All fields stand in imgclf/config.py.")


def _resolve(argument: str) -> str:
    """Checks field names, finds shipped configs from any folder, and lets a run's config.json stand for a config file."""
    name, equals, value = argument.partition("=")
    name = name.lstrip("-")
    if argument.startswith("-") and name.startswith("config."):
        config_lib.check_field(name.removeprefix("config.").removeprefix("no"))
    if not argument.startswith("-") or name != "config" or not equals:
        return argument
    file, colon, arguments = value.partition(":")
    path = Path(file)
    if not path.exists() and (_ROOT / file).exists():
        path = _ROOT / file
    if not path.is_file():
        shipped = ", ".join(sorted(f"configs/{config.name}" for config in (_ROOT / "configs").glob("*.py")))
        raise UserError(f"There is no config file {file!r}; give a path, one of {shipped}, or a run's config.json.")
    if path.suffix == ".json":
        return f"--config={config_lib.__file__}:{path}"
    return f"--config={path}{colon}{arguments}"


def _run(argv: Sequence[str]) -> None:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax and grain tell of their inner life
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is not understood; all arguments are flags, such as --config=configs/folder.py:PATH.")
        from imgclf import compilation_cache, experiment  # imports JAX: after --help and the errors above
        from imgclf.training import loop, sharding

        if _DISTRIBUTED.value:
            sharding.initialize_distributed(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        compilation_cache.enable()
        config = flags.FLAGS.config
        workdir = Path(_WORKDIR.value or Path("runs") / config.name)
        try:
            experiment.run(config, workdir)
        except loop.Interrupted as stop:
            _tell(f"Stopped at step {stop.step}; the state is saved in {workdir}. Give the same command to continue.")
            sys.exit(128 + stop.signum)
    except UserError as error:
        _leave(str(error))
    except KeyboardInterrupt:
        _tell("Interrupted. Give the same command to continue from the last checkpoint.")
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _leave(f"The disk is full ({error.filename or 'while writing'}); free some space and give the same command to continue.")


def _tell(message: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(message)


def _leave(message: str) -> NoReturn:
    _tell(f"Error: {message}")
    sys.exit(2)
