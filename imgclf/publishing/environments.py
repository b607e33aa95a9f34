"""An environment made anew from a bundle's lock and source, and programs run in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from imgclf import progress
from imgclf.errors import UserError
from imgclf.publishing import lock, source

_DONE = "imgclf-bundle"  # in the environment, once it is whole: the root of the bundle that it was made from
LOG = "install.log"


def find_python(version: str) -> Path:
    """Finds an interpreter of a bundle's version of Python, such as "3.11.9": this one, or one that the shell finds.

    Raises:
      UserError: if there is none.
    """
    minor = tuple(version.split(".")[:2])
    if minor == tuple(map(str, sys.version_info[:2])):
        return Path(sys.executable)
    name = f"python{'.'.join(minor)}"
    if found := shutil.which(name):
        return Path(found)
    raise UserError(
        f"The bundle's environment needs Python {'.'.join(minor)}, and {name} is not found: install it, or use this environment (--no-env)."
    )


def make(bundle: Path, folder: Path, python: Path, root: str, console: Console) -> Path:
    """Makes the environment, or returns the one that was made from this very bundle.

    Args:
      bundle: its folder, verified.
      folder: of the environment; an unfinished one is made anew.
      python: the interpreter.
      root: of the bundle's manifest.
      console: tells what is being done.

    Returns:
      The environment's interpreter.

    Raises:
      UserError: if it can't be made, with the reason; all that the installer said stands in install.log beside it.
    """
    program = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (folder / _DONE).exists() and (folder / _DONE).read_text() == root and program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    source.check_wheels(bundle)
    wheels = sorted(map(str, (bundle / source.WHEELS).glob("*.whl")))
    if not wheels:
        raise UserError(f"{bundle} holds no wheel of imgclf: get it anew.")
    log = folder.parent / LOG
    log.unlink(missing_ok=True)
    pip = [str(program), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    steps: tuple[tuple[str, Sequence[str]], ...] = (
        ("Making an environment", (str(python), "-m", "venv", str(folder))),
        ("Installing the locked packages", (*pip, "--require-hashes", "--requirement", str(bundle / lock.FILE))),
        ("Installing the bundle's imgclf", (*pip, "--no-deps", "--no-index", *wheels)),
    )
    with progress.bar(console) as bar:
        task = bar.add_task("", total=len(steps))
        for told, command in steps:
            bar.update(task, description=told)
            _run(command, log)
            bar.advance(task)
    (folder / _DONE).write_text(root)
    return program


def call(program: Path, arguments: Sequence[str], *, user_code: Path, cache: Path, xla_flags: str | None, quiet: bool) -> int:
    """Runs Python with these arguments, apart from this process and from caches of earlier results; returns its exit code.

    Args:
      program: the interpreter.
      arguments: of it.
      user_code: the folder of the bundle's own modules, which are importable.
      cache: imgclf's cache in it: features of earlier runs prove nothing.
      xla_flags: XLA's, as the run had them; None = those of this process.
      quiet: whether what it prints is left out; its errors are not.
    """
    environment = dict(os.environ) | {"IMGCLF_CACHE": str(cache), "PYTHONPATH": str(user_code), "PYTHONSAFEPATH": "1"}
    if xla_flags is not None:
        environment["XLA_FLAGS"] = xla_flags
    return subprocess.run([str(program), *arguments], env=environment, stdout=subprocess.DEVNULL if quiet else None, check=False).returncode


def _run(command: Sequence[str], log: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_without_python_variables())
    with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        said = (
            [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
            or done.stderr.splitlines()
            or ["no reason given"]
        )
        raise UserError(
            f"The bundle's environment can't be made: {said[-1].strip()} (all of it in {log}). Check pip's index and the space on the "
            "disk, or use this environment (--no-env)."
        )


def _without_python_variables() -> Mapping[str, str]:
    """This process's environment without what would let its packages into the new one."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
