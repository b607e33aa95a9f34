"""Processes that start with the imports done, so that a test of what one says or leaves need not wait for JAX's each time."""

import multiprocessing.reduction
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TextIO


def start(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, TextIO]:
    """Starts a process that calls `target`; JAX is not yet at work in it. Returns it and the file of what it says."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imgclf.workflows.train", "imgclf.cli.run_py"])
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115  `finish` closes it
    process = context.Process(target=_redirected, args=(DupFd(said.fileno()), target, *arguments))
    process.start()
    return process, said


def finish(process: BaseProcess, said: TextIO, timeout: float = 240) -> tuple[int, str]:
    """Waits for a process; returns (exit code, everything it said)."""
    with said:
        process.join(timeout)
        assert process.exitcode is not None, f"still running after {timeout} s"
        said.seek(0)
        return process.exitcode, said.read()


def call(arguments: Sequence[str], folder: Path, during: Callable[[BaseProcess], None] | None = None) -> tuple[int, str]:
    """Runs `run.py ARGUMENTS` in `folder`, and calls `during` with the process; returns (exit code, everything it said)."""
    process, said = start(_run_py, list(arguments), str(folder))
    if during is not None:
        during(process)
    return finish(process, said)


def _redirected(output: DupFd, target: Callable[..., None], *arguments: Any) -> None:
    descriptor = output.detach()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    target(*arguments)


def _run_py(arguments: list[str], folder: str) -> None:
    from imgclf.cli import run_py

    os.chdir(folder)
    sys.argv = ["run.py", *arguments]
    run_py.main()
