"""`run.py`'s command line in a process that starts with the imports done: a test of what it says need not wait for JAX each time."""

import multiprocessing.reduction
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def call(arguments: Sequence[str], folder: Path, timeout: float = 240) -> tuple[int, str]:
    """Runs `run.py ARGUMENTS` in `folder`; returns (exit code, everything it said)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imgclf.experiment", "imgclf.commandline"])
    with tempfile.TemporaryFile("w+") as said:
        process = context.Process(target=_main, args=(list(arguments), str(folder), multiprocessing.reduction.DupFd(said.fileno())))
        process.start()
        process.join(timeout)
        assert process.exitcode is not None, f"still running after {timeout} s"
        said.seek(0)
        return process.exitcode, said.read()


def _main(arguments: list[str], folder: str, output: multiprocessing.reduction.DupFd) -> None:
    from imgclf import commandline

    descriptor = output.detach()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(folder)
    sys.argv = ["run.py", *arguments]
    commandline.main(default_config="configs/quickstart.py")
