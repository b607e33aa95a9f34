"""The folder of a run: claimed by one process, refused to another experiment, and the files that say what the run is."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from imgclf import config as config_lib
from imgclf import files
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.errors import UserError


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes the run's folder, and keeps a second process out of it while this one writes there."""
    try:
        (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The run's folder {workdir} can't be made ({error.strerror}); choose another with --workdir=DIR.") from None
    if jax.process_index():
        yield
        return
    with files.locked(workdir / ".lock", f"Another process is running in {workdir}; wait for it, or choose another --workdir."):
        yield


def check_same_experiment(config: Config, workdir: Path) -> None:
    """Raises a UserError where the folder holds a run whose config would give another result."""
    saved = workdir / "config.json"
    if not saved.exists():
        return
    changes = config_lib.changes(config_lib.from_json(saved.read_text()), config)
    if changes:
        told = "; ".join(f"config.{name} was {old!r}, now {new!r}" for name, (old, new) in changes.items())
        raise UserError(
            f"{workdir} holds a run with another config: {told}. Choose another --workdir, or give the old values back to continue."
        )


_IDENTITY = ["id", "label", "split", "sha256"]


def check_same_data(dataset: Dataset, workdir: Path) -> None:
    """Raises a UserError where the folder holds a run on other images, labels or splits."""
    saved = workdir / "dataset.parquet"
    if not saved.exists():
        return
    before = pd.read_parquet(saved, columns=_IDENTITY).set_index("id")
    now = dataset.table[_IDENTITY].set_index("id")
    added, removed = now.index.difference(before.index), before.index.difference(now.index)
    common = now.index.intersection(before.index)
    differing = common[(now.loc[common] != before.loc[common]).any(axis=1)]
    if len(added) or len(removed) or len(differing):
        example = next(iter([*added, *removed, *differing]))
        raise UserError(
            f"The data has changed since the run in {workdir} began: {len(added)} added, {len(removed)} gone, {len(differing)} with other "
            f"contents, label or split (such as {example!r}). Choose another --workdir, or bring the old data back to continue."
        )


def write_inputs(workdir: Path, config: Config, dataset: Dataset, audit_report: dict[str, Any]) -> None:
    """Writes what the run starts from; the config last, as it is what makes the folder this experiment's."""
    with files.replacing(workdir / "dataset.parquet") as aside:
        dataset.table.to_parquet(aside)
    dataset.quarantine.to_csv(workdir / "quarantine.csv", index=False)
    files.write_json(workdir / "audit.json", audit_report | {"ignored": dataset.ignored})
    files.write_json(workdir / "environment.json", environment())
    files.write_text(workdir / "config.json", config_lib.to_json(config))


def environment() -> dict[str, Any]:
    """Describes where a run ran: Python, packages, platform, devices, command, git commit (None outside a checkout)."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "numpy",
        "pandas",
        "pillow",
        "opencv-python-headless",
        "imgclf",
    )
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    root = Path(__file__).resolve().parents[2]
    git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command": " ".join(sys.argv),
        "git": git.stdout.strip() if git.returncode == 0 else None,
    }
