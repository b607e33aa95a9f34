"""The command line of `run.py`: config flags in, exit code out (0 done, 2 the user's mistake, 130 Ctrl-C, 143 SIGTERM)."""

import contextlib
import errno
import functools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from rich.console import Console

from imgclf.config import flags as config_flags
from imgclf.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; it is made, or continued. Default: runs/NAME, after config.name.")
_STUDY = flags.DEFINE_string("study", "", "A study, FILE.py[:ARGUMENT], instead of one experiment; see imgclf/study.py.")
_ENGINE = flags.DEFINE_string("engine", "local", "--study: local, or a cluster that sees the same files: ray | dask.")
_JOBS = flags.DEFINE_integer("jobs", 1, "--study: runs at a time, each in a process of its own where more than 1.", lower_bound=1)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Start jax.distributed: one such command on each host, with the same --workdir.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "--distributed outside SLURM and TPU pods: HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "--distributed outside SLURM and TPU pods: how many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "--distributed outside SLURM and TPU pods: which one this is, from 0.")


def main(default_config: str) -> None:
    """Parses the command line and runs the experiment; leaves the process with an exit code."""
    app.run(_run, flags_parser=functools.partial(_parse, default_config))


def _parse(default_config: str, argv: Sequence[str]) -> list[str]:
    try:
        return config_flags.parse(argv, default_config, flags.FLAGS, "python run.py")
    except UserError as error:
        _leave(str(error))


def _run(argv: Sequence[str]) -> None:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax and grain tell of their inner life
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is not understood; all arguments are flags, such as --config=configs/folder.py:PATH.")
        from imgclf.runtime import compilation_cache  # imports JAX: after --help and the errors above
        from imgclf.training import loop, sharding
        from imgclf.workflows import train

        if _DISTRIBUTED.value:
            sharding.initialize_distributed(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        compilation_cache.enable()
        if _STUDY.value:
            _run_study()
            return
        config = flags.FLAGS.config
        workdir = Path(_WORKDIR.value or Path("runs") / config.name)
        try:
            train.run(config, workdir)
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


def _run_study() -> None:
    from imgclf.studies import run, spec
    from imgclf.training import loop

    asked = spec.load(_STUDY.value)
    workdir = Path(_WORKDIR.value or Path("runs") / Path(_STUDY.value.partition(":")[0]).stem)
    try:
        summary = run.run(asked, workdir, engine=_ENGINE.value, jobs=_JOBS.value)
    except loop.Interrupted as stop:
        _tell(f"Stopped; what is done is kept in {workdir}. Give the same command to continue.")
        sys.exit(128 + stop.signum)
    if summary["failures"]:
        sys.exit(1)


def _tell(message: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(message)


def _leave(message: str) -> NoReturn:
    _tell(f"Error: {message}")
    sys.exit(2)
