"""Real processes of one training, on loopback; each is `run.py … --distributed` with devices of its own."""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

import warm_start

HEARTBEAT = 10  # seconds; in use they are 40

Started = list[tuple[BaseProcess, TextIO]]


def coordinator() -> str:
    """An address for process 0, at a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start(
    arguments: Sequence[str],
    folder: Path,
    count: int,
    *,
    devices: int = 1,
    own: Sequence[Sequence[str]] = (),
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Starts `count` processes of one training.

    Args:
      arguments: of run.py.
      folder: in which they start; `opened-K.json` are the files that process K opened, if it ended by itself.
      devices: of each process.
      own: further arguments of each process.
      environment: variables that are set in them; else they have those of the moment at which the first process of the tests was started.
    """
    common = [*arguments, "--distributed", f"--coordinator={coordinator()}", f"--num-processes={count}"]
    given = own or [()] * count
    return [
        warm_start.start(_main, [*common, f"--process-id={k}", *given[k]], str(folder), devices, k, environment or {}) for k in range(count)
    ]


def run_one(arguments: Sequence[str], folder: Path, devices: int = 1) -> None:
    """Runs a training of one process to its end."""
    code, told = warm_start.finish(*warm_start.start(_main, list(arguments), str(folder), devices, 0, {}))
    assert code == 0, told


def finish(started: Started, timeout: float = 300) -> list[tuple[int, str]]:
    """Waits for the processes; returns (exit code, everything it said) of each."""
    return [warm_start.finish(*one, timeout) for one in started]


def wait_for_step(metrics: Path, step: int, started: Started, timeout: float = 240) -> None:
    """Returns when the training has logged this step."""
    until = time.monotonic() + timeout
    while time.monotonic() < until and all(process.is_alive() for process, _ in started):
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if lines and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.1)
    raise AssertionError(f"step {step} was not reached: {finish(started, 1)}")


def _main(arguments: list[str], folder: str, devices: int, index: int, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    os.environ.setdefault("IMGCLF_HEARTBEAT_TIMEOUT", str(HEARTBEAT))
    import jax

    jax.config.update("jax_platforms", "cpu")
    from imgclf.cli import run_py

    opened: list[str] = []
    sys.addaudithook(lambda event, about: opened.append(str(about[0])) if event == "open" else None)
    os.chdir(folder)
    sys.argv = ["run.py", *arguments]
    try:
        run_py.main()
    finally:
        Path(f"opened-{index}.json").write_text(json.dumps(opened))
