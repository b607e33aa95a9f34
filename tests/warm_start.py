"""`run.py`'s command line in a process that starts with the imports done: a test of what it says need not wait for JAX each time."""

import multiprocessing.reduction
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process, not yet started, that will call `target` with the imports of an experiment done and JAX not yet at work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imgclf.experiment", "imgclf.commandline"])
    return context.Process(target=target, args=arguments)


def call(
    arguments: Sequence[str], folder: Path, during: Callable[[BaseProcess], None] | None = None, timeout: float = 240
) -> tuple[int, str]:
    """Runs `run.py ARGUMENTS` in `folder`, and calls `during` with the process; returns (exit code, everything it said)."""
    with tempfile.TemporaryFile("w+") as said:
        started = process(_main, list(arguments), str(folder), multiprocessing.reduction.DupFd(said.fileno()))
        started.start()
        if during is not None:
            during(started)
        started.join(timeout)
        assert started.exitcode is not None, f"still running after {timeout} s"
        said.seek(0)
        return started.exitcode, said.read()


def _main(arguments: list[str], folder: str, output: multiprocessing.reduction.DupFd) -> None:
    from imgclf import commandline

    descriptor = output.detach()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(folder)
    sys.argv = ["run.py", *arguments]
    commandline.main(default_config="configs/quickstart.py")
