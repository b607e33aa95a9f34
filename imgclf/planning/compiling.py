"""Has programs compiled in a process of its own, and keeps what came of it: a plan that was made before is there at once."""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax

from imgclf import config as config_lib
from imgclf import files
from imgclf.config import Config
from imgclf.errors import UserError
from imgclf.planning import child, facts
from imgclf.planning.topologies import Topology

FOLDER = "plans"  # in the folder of what is worth keeping
_COMPILERS = {"tpu": ("libtpu",), "gpu": ("jax-cuda12-plugin", "jax-cuda13-plugin")}
EXTRAS = {"tpu": "plan-tpu", "gpu": "plan-cuda"}
# The rooms whose code makes the programs and counts them: a change in one of them makes what was kept old.
_ROOMS = ("config", "models", "training", "probes", "planning")


@dataclasses.dataclass(frozen=True)
class Demand:
    """What is to be planned for one topology.

    Attributes:
      config: the whole config, resolved for its number of devices.
      topology: which devices.
      programs: names of what is compiled.
      num_classes, train_images: of the data.
    """

    config: Config
    topology: Topology
    programs: tuple[str, ...]
    num_classes: int
    train_images: int


class OnStep(Protocol):
    """Is told of a program, what is done with it now, and whether that was all."""

    def __call__(self, program: str, state: str, *, done: bool) -> None: ...


def compiler(topology: Topology) -> str:
    """Name and version of the installed compiler for these devices; "" = there is none."""
    for name in _COMPILERS[topology.chip.kind]:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def facts_of(demand: Demand, on_step: OnStep) -> list[dict[str, Any]]:
    """What the programs take on the devices, each compiled once, counted (see `facts.count`) and kept.

    Of a program that is refused for its memory the facts are `name`, `batch`, `needed`, its bytes, and `argument_bytes`; where no compiler
    for the devices is installed, those of `lowered.count` with `name`, `batch`, `donatable` and `argument_bytes`, of one chip.

    Args:
      demand: what is compiled.
      on_step: told of what is done now.

    Raises:
      UserError: where the programs can't be made, or the compiler fails.
    """
    folder = files.cache_dir() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{_key(demand)}.facts.json"
    if kept.exists():
        found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
        for one in found:
            on_step(one["name"], "kept", done=True)
        return found
    results = _results(demand, folder, on_step)
    found = [_counted(folder / one, demand.topology) if isinstance(one, str) else one for one in results]
    with files.replacing(kept, shared=True) as aside:
        aside.write_text(json.dumps(found), encoding="utf-8")
    return found


def _key(demand: Demand) -> str:
    fields = {name: value for name, value in config_lib.flatten(demand.config).items() if name not in config_lib.FREE_ON_RESUME}
    fields |= {name: value for name, value in config_lib.flatten(demand.config).items() if name.startswith(("mesh.", "train.remat"))}
    asked = [demand.topology.name, demand.programs, demand.num_classes, demand.train_images, _versions(demand.topology), _code()]
    return hashlib.sha256(json.dumps([fields, asked], sort_keys=True).encode()).hexdigest()[:24]


def _versions(topology: Topology) -> str:
    return f"jax {jax.__version__}, {compiler(topology)}"


def _code() -> str:
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _results(demand: Demand, folder: Path, on_step: OnStep) -> list[str | dict[str, Any]]:
    """Runs the process that compiles.

    Returns:
      By program, in their order: the name of the file that it has written, or found; or what it tells of a program that is only traced.
    """
    request = child.Request(
        config=config_lib.to_json(demand.config),
        topology=demand.topology.name,
        compiles=bool(compiler(demand.topology)),
        programs=demand.programs,
        num_classes=demand.num_classes,
        train_images=demand.train_images,
        folder=str(folder),
        versions=_versions(demand.topology),
    )
    found = []
    for event in answers(request):
        on_step(event["program"], event["state"], done="result" in event)
        if "result" in event:
            found.append(event["result"])
    return found


def answers(request: child.Request) -> Iterator[dict[str, Any]]:
    """What the process that compiles tells, event by event; it ends with the iteration.

    Raises:
      UserError: for a mistake of the user's that it finds, and where the compiler fails or ends its process.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path, log = Path(temporary) / "request.json", Path(temporary) / "log"
        path.write_text(json.dumps(dataclasses.asdict(request)), encoding="utf-8")
        command = [sys.executable, "-m", child.__name__, str(path)]
        with log.open("w+", encoding="utf-8", errors="replace") as told:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True, env=os.environ | child.ENVIRONMENT)
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if not line.startswith("\x1e"):
                        continue
                    event = json.loads(line[1:])
                    if "error" in event:
                        raise UserError(event["error"])
                    yield event
                code = process.wait()
            finally:
                process.kill()
                process.wait()
            if code:
                told.seek(0)
                raise UserError(_failure(request.topology, code, told.read()))


def _failure(topology: str, code: int, log: str) -> str:
    """One sentence on a compiler that failed, with the last that it said."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(("  ", "*** ", "@ "))]
    said = next((line for line in reversed(lines) if ":" in line), lines[-1] if lines else "it said nothing")
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return f"Compiling for {topology} {how} ({said[:300]}); try another topology, or fewer programs with --programs train."


def _counted(path: Path, topology: Topology) -> dict[str, Any]:
    about = json.loads(path.read_text(encoding="utf-8"))
    if "needed" in about:
        return {name: about[name] for name in ("name", "batch", "needed", "argument_bytes")}
    with gzip.open(path.with_suffix(".hlo.gz"), "rt", encoding="utf-8") as file:
        text = file.read()
    return facts.count(facts.Compiled(text=text, **about), topology)
