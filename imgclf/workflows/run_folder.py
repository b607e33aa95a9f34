"""The folder of a run: claimed by one process, refused to another experiment, and the files that say what the run is."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from imgclf import config as config_lib
from imgclf import files
from imgclf.config import Config
from imgclf.data import run_images
from imgclf.data.prepare import prepare
from imgclf.data.scenes import FindScenes
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.remote import mirror, places
from imgclf.runtime import processor
from imgclf.workflows.asked import Asked

CONFIG = "config.json"  # written last of what a run starts from: it makes the folder the experiment's


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes the run's folder, and keeps a second process out of it while this one writes there.

    Where the block ends before the folder is an experiment's (has a config.json), what was made here is removed again, so that a failed
    start leaves nothing behind.
    """
    made = missing(workdir / "checkpoints")
    try:
        (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_empty(made)
        raise UserError(f"The run's folder {workdir} can't be made ({error.strerror}); choose another with --workdir=DIR.") from None
    if jax.process_index():
        yield
        return
    lock = workdir / ".lock"
    fresh = not lock.exists()
    with files.locked(lock, f"Another process is running in {workdir}; wait for it, or choose another --workdir."):
        try:
            yield
        finally:
            if not (workdir / CONFIG).exists():
                if fresh:
                    lock.unlink(missing_ok=True)
                remove_empty(made)


@contextlib.contextmanager
def at(folder: Path, workdir: str | os.PathLike[str] | None, tell: Callable[[str], object]) -> Iterator[None]:
    """While the block runs, `folder` is the working copy of `workdir`, where that is a URL; see `remote.mirror`.

    Process 0 fetches and sends. With several processes the cache folder, in which working copies are, must be one for all of them.

    Args:
      folder: what `checks.check_workdir` made of `workdir`.
      workdir: as the user gave it.
      tell: is given sentences for the user.

    Raises:
      UserError: where the URL can't be read or written, another process writes there, or the processes don't share the working copy.
    """
    if not isinstance(workdir, str) or not places.is_url(workdir):
        yield
        return
    mine = mirror.mirrored(folder, workdir, tell) if jax.process_index() == 0 else contextlib.nullcontext()
    with mine:
        if jax.process_count() > 1:
            _check_shared(folder)
        yield
        if jax.process_index() == 0:
            tell(f"Sending the run to {workdir}.")


def _check_shared(folder: Path) -> None:
    """Raises a UserError where the processes don't see one working copy."""
    from jax.experimental import multihost_utils

    mark = int.from_bytes(os.urandom(3), "little")
    if jax.process_index() == 0:
        files.write_text(folder.parent / "shared", str(mark))
    seen = int(multihost_utils.broadcast_one_to_all(np.int32(mark)))
    place = folder.parent / "shared"
    if not place.exists() or place.read_text(encoding="utf-8") != str(seen):
        raise UserError(
            f"The processes do not share the working copy of the run, {folder}: set IMGCLF_CACHE to a folder that all hosts see, or give a "
            "--workdir that they do."
        )


SELECTION = "selection.json"  # what was tried before the run's config was chosen; results.json and the report have it too


@contextlib.contextmanager
def selected(folder: Path, rows: list[dict[str, Any]]) -> Iterator[None]:
    """Notes what the run that begins in the block was chosen from; where it does not begin, the note is removed again."""
    if not rows:
        yield
        return
    made = missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The run's folder {folder} can't be made ({error.strerror}); choose another with --workdir=DIR.") from None
    files.write_json(folder / SELECTION, rows)
    try:
        yield
    finally:
        if not (folder / CONFIG).exists():
            (folder / SELECTION).unlink()
            remove_empty(made)


def selection(folder: Path) -> list[dict[str, Any]] | None:
    """What the run in this folder was chosen from, see `workflows.selection`; None where nothing was tried."""
    path = folder / SELECTION
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there yet, the innermost first: what making it would make."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Removes folders again, the innermost first; those with anything in them stay."""
    with contextlib.suppress(OSError):  # something has been put into one: then those above it are not empty either
        for folder in filter(Path.exists, folders):
            folder.rmdir()


def check_same_experiment(config: Config, workdir: Path) -> None:
    """Raises a UserError where the folder holds a run whose config would give another result."""
    saved = workdir / CONFIG
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
    identity = [*_IDENTITY, *(["file_size"] if dataset.unverified is not None else [])]  # while sha256 is not known
    before, now = pd.read_parquet(saved, columns=identity), dataset.table[identity]
    if len(before) == len(now) and all((before[name] == now[name]).all() for name in identity):
        return
    before, now = before.set_index("id"), now.set_index("id")
    added, removed = now.index.difference(before.index), before.index.difference(now.index)
    common = now.index.intersection(before.index)
    differing = common[(now.loc[common] != before.loc[common]).any(axis=1)]
    if len(added) or len(removed) or len(differing):
        example = next(iter([*added, *removed, *differing]))
        unreadable = len(removed.intersection(dataset.quarantine["id"].tolist()))
        gone = f"{len(removed)} gone" + (f", of which {unreadable} are there and can't be read" if unreadable else "")
        raise UserError(
            f"The data has changed since the run in {workdir} began: {len(added)} added, {gone}, {len(differing)} with other "
            f"contents, label or split (such as {example!r}). Choose another --workdir, or bring the old data back to continue."
        )


def images_for(asked: Asked, checked: Config, find_scenes: FindScenes) -> tuple[Config, Dataset, dict[str, Any] | None]:
    """The images that a workflow works on: the run's own where those are meant, else those that training would see.

    Args:
      asked: what `asked_for` returned.
      checked: its config, checked.
      find_scenes: see `prepare`.

    Returns:
      The config in which stands what the data decides (`Prepared.config`), the images, and the report of the audit, which is None for a
      run's own images.

    Raises:
      UserError: as `prepare` and `run_images.load` do.
    """
    if asked.same_data and asked.run is not None:
        return checked, run_images.load(asked.run, checked), None
    prepared = prepare(checked, find_scenes=find_scenes)
    return prepared.config, prepared.dataset, prepared.audit_report


def results(folder: Path) -> dict[str, Any]:
    """The contents of a finished run's results.json."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def write_audit(workdir: Path, dataset: Dataset, audit_report: dict[str, Any]) -> None:
    """Writes what is known of the images that were left out, and of copies among the others."""
    files.write_text(workdir / "quarantine.csv", dataset.quarantine.to_csv(index=False))
    files.write_json(workdir / "audit.json", audit_report | {"ignored": dataset.ignored})


def write_inputs(
    workdir: Path, config: Config, dataset: Dataset, audit_report: dict[str, Any], notes: dict[str, Any] | None = None
) -> None:
    """Writes what the run starts from; the config last, as it is what makes the folder this experiment's.

    Args:
      notes: what else environment.json is to say.
    """
    with files.replacing(workdir / "dataset.parquet") as aside:
        dataset.table.to_parquet(aside)
    write_audit(workdir, dataset, audit_report)
    files.write_json(workdir / "environment.json", environment() | (notes or {}))
    files.write_text(workdir / CONFIG, config_lib.to_json(config))


def write_stop(workdir: Path, stop_after: str) -> None:
    """Notes in a run's config where its training ends."""
    config = config_lib.from_json((workdir / CONFIG).read_text(encoding="utf-8"))
    config.train.stop_after = stop_after
    files.write_text(workdir / CONFIG, config_lib.to_json(config))


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
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        **processor.describe(),
        "cpu_count": processor.cores(),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command": " ".join(sys.argv),
        "git": _commit(root) if (root / ".git").exists() else None,  # else it would be that of a repository around the installation
    }


def _commit(root: Path) -> str | None:
    """What git calls the checkout's state; None where git can't be asked."""
    try:
        git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return git.stdout.strip() if git.returncode == 0 else None
