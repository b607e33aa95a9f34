"""What is checked before anything is read or made, and before JAX is imported: a mistake in a path or a field is told at once."""

import os
from pathlib import Path

from imgclf.config import Config, validation
from imgclf.data import sources
from imgclf.data.paths import existing
from imgclf.errors import UserError
from imgclf.files import path_of
from imgclf.remote import mirror, places


def check_start(config: Config, workdir: str | os.PathLike[str] | None = None) -> Path:
    """Checks all fields by themselves, that the data are there, and that the run's folder can be made and lies apart from them.

    Args:
      config: the whole config.
      workdir: the run's folder; None = runs/NAME, after config.name.

    Returns:
      The run's folder.

    Raises:
      UserError: for the first thing that is found wrong.
    """
    check_config(config)
    return check_workdir(config, workdir)


def check_config(config: Config) -> None:
    """Checks all fields by themselves, and that the data and the files that fields name are there; see `check_start`."""
    validation.validate(config)
    check_data_path(config)
    if config.data.label_patch:
        existing(config.data.label_patch, "data.label_patch")
    weights = Path(config.model.weights.removeprefix("path:")).expanduser()
    if config.model.weights.startswith("path:") and not weights.is_file():
        why = "it is a folder" if weights.is_dir() else "there is no such file"
        raise UserError(f"The weights {weights} can't be read ({why}); give the path of a .safetensors or .h5 file.")


def check_data_path(config: Config) -> None:
    """Raises a UserError where what `config.data` names is not there, or is a run's folder rather than one of photos."""
    data = config.data
    sources.create(data)
    if places.is_url(data.path):
        return
    path = Path(data.path).expanduser()
    if data.path and (path / "checkpoints").is_dir() and ((path / "config.json").exists() or (path / ".lock").exists()):
        raise UserError(f"config.data.path={data.path!r} is the folder of a run, not of photos: name the folder that holds the photos.")


def check_workdir(config: Config, workdir: str | os.PathLike[str] | None = None) -> Path:
    """Returns the run's folder, which is not made yet, or the working copy of a URL; see `check_start`."""
    if workdir is not None and not os.fspath(workdir):
        raise UserError("The run's folder has an empty name: choose one with --workdir=DIR; this folder itself is --workdir=.")
    if isinstance(workdir, str) and places.is_url(workdir):
        return mirror.working_copy(_check_url(config, workdir))
    folder = path_of(workdir, "the run's folder") if workdir is not None else Path("runs") / config.name
    check_apart(config, folder, "--workdir")
    parent = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        why = "no folder" if not parent.is_dir() else "a folder that you may not write to"
        raise UserError(f"The run's folder {folder} can't be made ({parent} is {why}); choose another with --workdir=DIR.")
    return folder


def _check_url(config: Config, url: str) -> str:
    """Returns the URL, checked, of a run's folder."""
    url = places.check(url)
    if places.is_http(url):
        raise UserError(f"--workdir={url}: https:// can be read but not written: choose a folder, or a URL such as s3://BUCKET/NAME.")
    places.system(url, f"--workdir={url}")  # the package for it is there
    photos = (config.data.root or config.data.path).rstrip("/")
    if places.is_url(photos) and (url == photos or (url.startswith(f"{photos}/") and config.data.source == "folder")):
        raise UserError(f"--workdir={url} lies in the folder of the photos, where its files would be taken for photos: choose another.")
    return url


def check_apart(config: Config, folder: Path, option: str) -> None:
    """Raises a UserError where output would be written among the photos: the next run would take it for photos, or for a class.

    Args:
      config: its `data` are looked at, where they are a folder, or a list of files in one.
      folder: that will be written to.
      option: by which the user chooses another, such as "--workdir".
    """
    data = config.data
    if data.source not in ("folder", "csv") or not data.path or places.is_url(data.root or data.path):
        return
    listed = data.source == "csv"
    photos = Path(os.path.realpath(os.path.expanduser((data.root or os.path.dirname(data.path) or ".") if listed else data.path)))
    target = Path(os.path.realpath(folder))
    # A list often stands beside its pictures, where a folder runs/NAME does no harm: what is no picture of the list is not read.
    if target == photos or (photos in target.parents and not listed):
        what = "is the folder of the photos itself" if target == photos else f"lies in the folder of the photos, {data.path}"
        raise UserError(f"{option}={folder} {what}, where its files would be taken for photos: choose a folder outside with {option}=DIR.")
