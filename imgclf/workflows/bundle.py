"""`imgclf bundle`: a finished run with all that others need to check it and to train it again."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from imgclf import config as config_lib
from imgclf import files
from imgclf.config import Config
from imgclf.data import run_images
from imgclf.deploy import hub
from imgclf.errors import UserError, nearest
from imgclf.methods.probe import OUT_OF_FOLD
from imgclf.publishing import card, examples, kept, lock, manifest, metadata, places, source, stores, texts, writing
from imgclf.training.checkpoint import load_model
from imgclf.workflows import checks, rerun, run_folder
from imgclf.workflows.console import or_terminal

DATA = ("manifest", "include")
_KINDS = (".json", ".jsonl", ".csv", ".parquet", ".html", ".safetensors")  # of the files in a run's folder that are of its results


@dataclasses.dataclass(frozen=True)
class Bundled:
    """A bundle that was written.

    Attributes:
      place: where.
      root: its root hash, which stands for every byte of it.
      files: their number, with the manifest.
      bytes: of all files.
      sent: how many of them were written now; what was there already is not counted.
      notes: what a reader should know.
    """

    place: str
    root: str
    files: int
    bytes: int
    sent: int
    notes: tuple[str, ...]


def bundle(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str = "manifest",
    data_url: str = "",
    croissant: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Bundled:
    """Packs a finished run for others: its results, model, images or where they are, code, and the lock of its environment.

        imgclf.bundle("runs/food", "food-bundle")
        imgclf.bundle("runs/food", "s3://my-bucket/food", data="include")

    An interrupted call continues: what is there with the right SHA-256 is not sent again. No pickle is ever written.

    Args:
      run: the run's folder. Its images must be there, as they were.
      out: a folder, or an address: s3://BUCKET/NAME, hf://USER/NAME. A bundle of the same run is replaced.
      data: "manifest" (each image's SHA-256 and where it is to be had) or "include" (the images themselves, too).
      data_url: with "manifest", the address under which others find the images, with the same paths as here.
      croissant: whether to describe the images in Croissant's format as well.
      overwrite: whether to replace the bundle of another run.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: if there is no such run, its images have changed, something else stands at `out`, or it can't be written.

    Example:
      >>> bundled = imgclf.bundle("runs/photos", "bundle", console=quiet)
      >>> len(bundled.root), bundled.files > 20
      (64, True)
    """
    console = or_terminal(console)
    folder = finished(run)
    if data not in DATA:
        raise UserError(f"data={data!r} is unknown; {nearest(data, DATA)}")
    if data_url and data == "include":
        raise UserError(f"The images are included, so that nobody needs an address of them: leave data_url={data_url!r} out.")
    metadata.check(croissant=croissant)
    store = places.open_store(os.fspath(out))
    made = _Run.read(folder)
    if isinstance(store, stores.Folder):
        _check_apart(store.folder, made)
    writing.check_free(store, made.subject, overwrite=overwrite)
    described = examples.describe(made.config, run_images.load(folder, made.config), include=data == "include", base=data_url)
    with tempfile.TemporaryDirectory(prefix="imgclf-bundle-") as staged:
        console.print("Packing the code, the model and the lock of the environment.", highlight=False)
        about, sources = _contents(made, described, Path(staged), store.place if places.is_address(store.place) else ".")
        sources |= _metadata(made, described, about, sources, croissant=croissant)
        whole = manifest.Manifest.of(about, [manifest.file_of(path, content) for path, content in sources.items()])
        sent = writing.write(store, whole, sources, overwrite=overwrite, console=console)
    size = whole.size + len(whole.to_bytes())
    return Bundled(store.place, whole.root, len(whole.files) + 1, size, sent, tuple(about["source"]["notes"]))


def finished(run: str | os.PathLike[str]) -> Path:
    """Returns the folder of a finished run.

    Raises:
      UserError: if it is none.
    """
    folder = files.path_of(run, "the folder of a run")
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} (looked for as {folder.absolute()}): name the folder of a finished run.")
    if not (folder / "results.json").exists():
        raise UserError(f"{folder} is not a finished run (it has no results.json): finish it with imgclf train CONFIG --workdir={folder}.")
    return folder


@dataclasses.dataclass(frozen=True)
class _Run:
    """A finished run, as its folder tells of it."""

    folder: Path
    config: Config
    results: dict[str, Any]
    environment: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "_Run":
        try:
            config = config_lib.from_json((folder / "config.json").read_text(encoding="utf-8"))
            results, environment = (
                json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("results", "environment")
            )
            kept.kept_models(results)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{folder} is damaged ({type(error).__name__}: {error}): restore it from a copy, or train again.") from error
        return cls(folder, config, results, environment)

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    @property
    def subject(self) -> str:
        return f"{self.name}, parameters {self.results['params_sha256'][:16]}"

    @property
    def finished_at(self) -> str:
        """When its results were written, ISO 8601: bundled again it is the same."""
        seconds = int((self.folder / "results.json").stat().st_mtime)
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def _check_apart(target: Path, made: _Run) -> None:
    """Raises a UserError where the bundle would lie in the run's own folder, or among the photos."""
    if made.folder.resolve() in (target.resolve(), *target.resolve().parents):
        raise UserError(f"{target} lies in the run's own folder: choose another place for the bundle.")
    checks.check_apart(made.config, target, "--out")


def _contents(made: _Run, described: examples.Described, staged: Path, place: str) -> tuple[dict[str, Any], dict[str, Path | bytes]]:
    """What the manifest says of the bundle, and its files but for their metadata: path → contents."""
    code = source.user_code(made.config)
    packed = source.pack(staged, made.environment.get("git"))
    pinned, no_index = _split(lock.distributions(source.requirements(staged), code.distributions))
    source.pack_others(staged, no_index)
    about: dict[str, Any] = {
        "name": made.name,
        "subject": made.subject,
        "python": platform.python_version(),
        "params_sha256": made.results["params_sha256"],
        "place": place,
        "data": described.where | {"images": len(described.table)},
        "user_code": {"fields": dict(code.fields), "files": sorted(code.files)},
        "source": packed,
    }
    about["source"]["notes"] += _other_versions(made.environment, pinned)
    lock.write(staged / lock.FILE, pinned)
    _write_weights(made, staged)
    sources: dict[str, Path | bytes] = {**_of_run(made), **_inputs(made.config), **described.files}
    sources |= {f"{source.USER_CODE}/{name}": path for name, path in code.files.items()}
    sources |= {path.relative_to(staged).as_posix(): path for path in staged.rglob("*") if path.is_file()}
    sources[examples.TABLE] = described.table.to_csv(index=False).encode("utf-8", "backslashreplace")
    sources[examples.WHERE] = (json.dumps(described.where, indent=1, sort_keys=True) + "\n").encode()
    sources[texts.SCRIPT] = texts.script(about)
    sources["README.md"] = f"{card.write(made.folder).rstrip()}\n\n{texts.section(about)}".encode()
    return about, sources


def _metadata(
    made: _Run, described: examples.Described, about: dict[str, Any], sources: Mapping[str, Path | bytes], *, croissant: bool
) -> dict[str, Path | bytes]:
    """The files that describe the others to machines."""
    listed = [manifest.file_of(path, content) for path, content in sorted(sources.items()) if not path.startswith(examples.FILES)]
    crate = metadata.rocrate_json(about, made.results, listed, made.finished_at, described.table)
    if not croissant:
        return {metadata.ROCRATE: crate}
    table = next(file for file in listed if file.path == examples.TABLE)
    return {metadata.ROCRATE: crate, metadata.CROISSANT: metadata.croissant_json(about, table, made.finished_at)}


def _split(
    needed: Mapping[str, importlib.metadata.Distribution],
) -> tuple[dict[str, str], dict[str, importlib.metadata.Distribution]]:
    """The distributions that an index has, with their versions, and those that were installed from elsewhere."""
    no_index = {name: distribution for name, distribution in needed.items() if lock.of_no_index(distribution) is not None}
    return {name: distribution.version for name, distribution in needed.items() if name not in no_index}, no_index


def _other_versions(environment: Mapping[str, Any], pinned: Mapping[str, str]) -> list[str]:
    """Says where the environment has changed since the run was made."""
    before = environment.get("packages", {})
    told = [f"{name} {version}" for name, version in before.items() if name in pinned and pinned[name] != version]
    if environment.get("python") != platform.python_version():
        told.append(f"Python {environment.get('python')}")
    return [f"The run was made with {', '.join(told)}; the lock is of the day on which it was bundled."] if told else []


def _write_weights(made: _Run, staged: Path) -> None:
    """Writes the kept model as safetensors."""
    model, about = load_model(made.folder / made.results["checkpoint"])
    said = {"class_names": list(about["class_names"]), "params_sha256": about["params_sha256"]}
    if about["params_sha256"] != made.results["params_sha256"]:
        raise UserError(
            f"{made.folder} is of two runs: its results.json and its kept model differ; restore it from a copy, or train again."
        )
    (staged / "weights").mkdir()
    hub.write_model(model, said, staged / "weights" / "model.safetensors")


def _of_run(made: _Run) -> dict[str, Path]:
    """The files of the run's folder that become part of the bundle: results, kept models and exports; not what training resumes from."""
    folder = made.folder
    found = [path for path in folder.iterdir() if path.is_file() and (path.suffix in _KINDS or path.name == OUT_OF_FOLD)]
    for kept_model in kept.kept_models(made.results):
        found += [path for path in (folder / kept_model).rglob("*") if path.is_file()]
    for export in folder.glob("*/**/export.json"):
        found += [path for path in export.parent.rglob("*") if path.is_file()]
    return {f"run/{path.relative_to(folder).as_posix()}": path for path in found if not path.name.startswith(".") and path.suffix != ".pyc"}


def _inputs(config: Config) -> dict[str, Path]:
    """What a training starts from beside images, and nobody else has: weights of one's own, and a teacher."""
    found: dict[str, Path] = {}
    if config.model.weights.startswith("path:"):
        path = Path(config.model.weights.removeprefix("path:")).expanduser()
        found[f"{rerun.WEIGHTS}/{path.name}"] = path
    if config.train.teacher:
        teacher = Path(config.train.teacher).expanduser()
        checkpoint = run_folder.results(finished(teacher))["checkpoint"]
        paths = [teacher / "config.json", teacher / "results.json", *(path for path in (teacher / checkpoint).rglob("*") if path.is_file())]
        found |= {f"{rerun.TEACHER}/{path.relative_to(teacher).as_posix()}": path for path in paths}
    absent = [path for path in found.values() if not path.is_file()]
    if absent:
        raise UserError(f"{absent[0]}, which the run was trained from, is gone: bring it back, then bundle again.")
    return found
