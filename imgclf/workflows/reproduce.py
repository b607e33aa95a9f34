"""`imgclf reproduce`: is what a bundle claims what comes out, in an environment made anew, from its data and code?"""

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, formatting
from imgclf.errors import AlteredError, UserError
from imgclf.publishing import comparison, environments, manifest, places, reading, source
from imgclf.publishing.comparison import Verdict
from imgclf.publishing.manifest import Manifest
from imgclf.workflows.console import or_terminal
from imgclf.workflows.rerun import EVALUATED, NOTE, RETRAINED

REPORT = "reproduction.json"
_SMALL = 32 << 20  # bytes of what is read before anything of a bundle is trusted
_NEEDED = {
    "lock.txt": _SMALL,
    "run/config.json": _SMALL,
    "run/environment.json": _SMALL,
    "run/results.json": 0,
    "run/predictions.csv": 0,
    "run/dataset.parquet": 0,
    "data/where.json": _SMALL,
}  # a bundle has these; path → the most bytes, 0 = any number
Trust = Callable[[str], bool]  # is told what would run, and answers whether it may


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What a reproduction came to.

    Attributes:
      verdicts: in order.
      folder: with evaluated/, retrained/, reproduction.json and the environment.
      root: of the bundle.
    """

    verdicts: tuple[Verdict, ...]
    folder: Path
    root: str

    @property
    def reproduced(self) -> bool:
        """Whether every verdict passed."""
        return all(verdict.passed for verdict in self.verdicts)


def reproduce(  # noqa: PLR0913  (options by name)
    bundle: str | os.PathLike[str],
    *,
    retrain: bool = False,
    out: str | os.PathLike[str] | None = None,
    trust: bool | Trust = False,
    new_environment: bool = True,
    python: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] = "",
    mirror_url: str = "",
    expect: str = "",
    console: Console | None = None,
) -> Reproduction:
    """Checks a bundle, byte for byte, and computes anew what it claims.

        imgclf.reproduce("s3://my-bucket/food", trust=True)
        imgclf.reproduce("food-bundle", retrain=True, trust=True)

    Nothing of the bundle runs, and nothing is unpacked, before every byte has been compared with its manifest and the user has agreed.

    Args:
      bundle: a folder, or an address: s3://BUCKET/NAME, hf://USER/NAME.
      retrain: whether to train again, too.
      out: the folder for what is made; None = NAME-reproduced, after the run.
      trust: whether the bundle's code may run with the user's rights; or a function that is asked.
      new_environment: False: use this environment and this imgclf, which is quicker and proves less.
      python: the interpreter that the environment is made from, or with new_environment=False the one to use; None = the bundle's version.
      images: a folder that holds the images, where the bundle does not say where they are.
      mirror_url: of Open Images' photos.
      expect: the root hash that the bundle must have; "" = any.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: if the bundle is not as it was written, its code is not trusted, or its environment or all of its images can't be had.

    Example:
      >>> bundled = imgclf.bundle("runs/photos", "bundle", console=quiet)
      >>> checked = imgclf.reproduce("bundle", trust=True, new_environment=False, images="photos", out="checked", console=quiet)
      >>> checked.reproduced
      True
    """
    console = or_terminal(console)
    place = os.fspath(bundle)
    folder, whole, target = _brought(place, out, console)
    if expect and not whole.root.startswith(expect.lower()):
        raise AlteredError(f"The bundle {place} has the root hash {whole.root}, not {expect}: it is another one than you were told of.")
    _check_complete(folder, whole)
    reason = _what_runs(folder, whole, new_environment=new_environment)
    if reason and not (trust(reason) if callable(trust) else trust):
        raise UserError(f"{reason} Nothing of it has run. Read it in {folder}, and if you trust it give trust=True.")
    _claim(target, whole)
    with files.locked(target / ".lock", f"Another reproduction is running in {target}: wait for it, or choose another with out=DIR."):
        program = _interpreter(folder, whole, target, console, new_environment=new_environment, python=python)
        _clear(target)
        arguments = ["-m", "imgclf.workflows.rerun", str(folder), str(target), *(["--retrain"] if retrain else [])]
        arguments += ["--images", str(Path(images).absolute())] if images else []
        arguments += ["--mirror-url", mirror_url] if mirror_url else []
        saved = json.loads((folder / "run" / "environment.json").read_text(encoding="utf-8"))
        code = environments.call(
            program,
            arguments,
            user_code=folder / source.USER_CODE,
            cache=_cache(target),
            xla_flags=saved.get("xla_flags") if new_environment else None,
            quiet=console.quiet,
        )
        if code:
            raise UserError(f"The bundle {place} can't be evaluated: what went wrong stands above (exit code {code}).")
        found = Reproduction(_verdicts(folder, whole, target, retrain=retrain), target, whole.root)
        _write(found, target, new_environment=new_environment)
    return found


def _brought(place: str, out: str | os.PathLike[str] | None, console: Console) -> tuple[Path, Manifest, Path]:
    """The bundle in a folder, verified, its manifest, and the folder for what is made."""
    if not places.is_address(place):
        folder = files.path_of(place, "the folder of a bundle").resolve()
        whole = manifest.verify(folder, console)
        target = _target(out, whole)
        if folder == target or folder in target.parents:
            raise UserError(f"{target} lies in the bundle itself, which must stay as it is: choose another folder with out=DIR.")
        return folder, whole, target
    store = places.open_store(place)
    whole = reading.remote_manifest(store)
    target = _target(out, whole)
    folder = target / "bundle"
    _claim(target, whole)
    reading.download(store, whole, folder, console)
    return folder, manifest.verify(folder, console), target


def _target(out: str | os.PathLike[str] | None, whole: Manifest) -> Path:
    """The folder for what is made; an earlier reproduction of this bundle may be there, and nothing else."""
    name = Path(str(whole.about.get("name", "bundle"))).name or "bundle"
    target = files.path_of(
        out if out is not None else f"{name}-reproduced", "the folder for what is made"
    ).resolve()  # without "..", by which reproduce.sh names it
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / ".bundle").exists())):
        raise UserError(f"{target} is not empty, and no reproduction: choose another folder with out=DIR.")
    if (target / ".bundle").exists() and (target / ".bundle").read_text() != whole.root:
        raise UserError(f"{target} holds the reproduction of another bundle: choose another folder with out=DIR, or remove it.")
    return target


def _claim(target: Path, whole: Manifest) -> None:
    """Makes the folder, and notes of which bundle it is."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        files.write_text(target / ".bundle", whole.root)
    except OSError as error:
        raise UserError(f"{target} can't be written ({error.strerror}): choose another folder with out=DIR.") from None


def _check_complete(folder: Path, whole: Manifest) -> None:
    """Raises a UserError where a bundle that is whole lacks what every bundle has; it may be a stranger's, and no bundle of imgclf's."""
    about, sizes = whole.about, {file.path: file.bytes for file in whole.files}
    for path, largest in _NEEDED.items():
        if path not in sizes or (largest and sizes[path] > largest):
            why = "no" if path not in sizes else "a far too large"
            raise UserError(f"The bundle {folder} has {why} {path}: it is not of imgclf's making, don't use it.")
    said = [about.get(name) for name in ("name", "python", "subject")] + [(about.get("source") or {}).get("imgclf")]
    plain = all(isinstance(text, str) and text.isprintable() and len(text) < 300 for text in said)
    if not plain or not re.fullmatch(r"\d+\.\d+(\.\w+)?", str(about["python"])):
        raise UserError(f"The {manifest.NAME} of {folder} lacks what the bundle is of: it is not of imgclf's making, don't use it.")


def _what_runs(folder: Path, whole: Manifest, *, new_environment: bool) -> str:
    """Says what code of the bundle would run; "" where none would."""
    about = whole.about
    try:
        config = config_lib.from_json((folder / "run" / "config.json").read_text(encoding="utf-8"))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / 'run' / 'config.json'} is no config of imgclf's ({type(error).__name__}): don't use this bundle."
        ) from None
    named = [repr(value) for value in (config.data.source, config.model.name, config.optimizer.name) if ":" in value]
    named += [f"the TFDS data set {config.data.tfds.name!r}"] if config.data.source == "tfds" else []  # its builder is code, too
    if not new_environment:
        return f"This bundle's config runs {', '.join(named)} with your rights." if named else ""
    packages = (folder / "lock.txt").read_text(encoding="utf-8").count("==")
    own = f", and {', '.join(named)} of its maker" if named else ""
    return (
        f"This bundle installs {packages} packages, and its own imgclf {about['source']['imgclf']}{own}, into an environment apart, "
        "and runs them with your rights."
    )


def _interpreter(
    folder: Path, whole: Manifest, target: Path, console: Console, *, new_environment: bool, python: str | os.PathLike[str] | None
) -> Path:
    """The Python that the rerun is given to."""
    if not new_environment:
        return Path(python or sys.executable)
    found = Path(python) if python is not None else environments.find_python(whole.about["python"])
    return environments.make(folder, target / "env", found, whole.root, console)


def _cache(target: Path) -> Path:
    """A cache of imgclf's own for the reproduction, without features of earlier runs; published weights that are here are found."""
    cache = target / "cache"
    cache.mkdir(exist_ok=True)
    weights = files.cache_dir().absolute() / "weights"
    if weights.is_dir() and not (cache / "weights").exists():
        (cache / "weights").symlink_to(weights, target_is_directory=True)
    return cache


def _clear(target: Path) -> None:
    """Removes what an earlier reproduction has computed: it is to be computed anew."""
    for name in (EVALUATED, RETRAINED):
        shutil.rmtree(target / name, ignore_errors=True)
    for name in (NOTE, REPORT):
        (target / name).unlink(missing_ok=True)


def _verdicts(folder: Path, whole: Manifest, target: Path, *, retrain: bool) -> tuple[Verdict, ...]:
    def read(path: Path) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value

    run, evaluated = folder / "run", target / EVALUATED
    note, then = read(target / NOTE), read(run / "results.json")
    differences = comparison.machines(read(run / "environment.json"), read(evaluated / "environment.json"))
    same = not differences
    size = f"all {formatting.count(len(whole.files), 'file')}, {whole.size:,} bytes; root hash {whole.root[:16]}…"
    verdicts = [
        Verdict("bytes", "equal", size),
        comparison.of_machines(differences),
        comparison.of_images(note["images"], note["problems"]),
        comparison.of_predictions(run / "predictions.csv", evaluated / "predictions.csv", same_machine=same),
        comparison.of_results(then, read(evaluated / "results.json"), same_machine=same),
    ]
    if retrain:
        verdicts.append(comparison.of_training(then, read(target / RETRAINED / "results.json"), same_machine=same))
    return tuple(verdicts)


def _write(found: Reproduction, target: Path, *, new_environment: bool) -> None:
    report = {
        "reproduced": found.reproduced,
        "root": found.root,
        "environment": "made anew from the lock" if new_environment else "the one at hand",
        "verdicts": [dataclasses.asdict(verdict) for verdict in found.verdicts],
    }
    files.write_json(target / REPORT, report)
