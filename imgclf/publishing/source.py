"""The code that a run was made by: a wheel of imgclf, its git history where it is a checkout, and the modules that a config names."""

import ast
import base64
import csv
import dataclasses
import email
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from imgclf.config import Config, flatten
from imgclf.errors import UserError
from imgclf.publishing import lock

WHEELS = "source"  # the folder of wheels in a bundle
USER_CODE = "source/user_code"
_FIELDS = ("data.source", "model.name", "optimizer.name")  # which may name code, `module:attribute`
_DATE = (2020, 2, 2, 0, 0, 0)  # of files in a wheel: the same contents make the same bytes
_LARGEST = 1 << 30  # bytes that a wheel unfolds to


@dataclasses.dataclass(frozen=True)
class UserCode:
    """The user's own modules that a config names.

    Attributes:
      fields: config field → what it names.
      files: path below the folder from which they are imported → the file.
      distributions: those installed ones that the modules come from, or import.
    """

    fields: Mapping[str, str]
    files: Mapping[str, Path]
    distributions: tuple[str, ...]


def user_code(config: Config) -> UserCode:
    """Finds the modules that a config names, and those beside them that they import.

    Raises:
      UserError: if a module is not there.
    """
    values = flatten(config)
    fields = {name: str(values[name]) for name in _FIELDS if ":" in str(values[name])}
    by_module = importlib.metadata.packages_distributions() if fields else {}
    files: dict[str, Path] = {}
    distributions: set[str] = set()
    waiting = [(text.partition(":")[0], Path.cwd(), field) for field, text in fields.items()]
    seen: set[str] = set()
    while waiting:
        module, folder, field = waiting.pop()
        top = module.partition(".")[0]
        if top in seen or top == "imgclf" or top in sys.stdlib_module_names:
            continue
        seen.add(top)
        found = _local(top, folder)
        if found:
            files |= {path.relative_to(folder).as_posix(): path for path in found}
            waiting += [(name, folder, "") for path in found for name in _imports(path)]
        elif top in by_module:
            distributions |= set(by_module[top])
        elif field:
            raise UserError(f"config.{field} names the module {top!r}, which is not in {folder}: bundle in the folder where it lies.")
    return UserCode(fields, files, tuple(sorted(distributions)))


def pack(folder: Path, made_by: str | None) -> dict[str, Any]:
    """Writes the source into `folder`/source/: imgclf's wheel, its history and uncommitted changes where it is a checkout.

    Args:
      folder: of the bundle that is being made.
      made_by: what the run's environment.json says of git; None = the run was made by an installed imgclf.

    Returns:
      What the manifest says of it: `imgclf` (version), `commit` (None where it is no checkout), `changed` (whether there are uncommitted
      changes), `notes` (sentences that a reader should know).

    Raises:
      UserError: if a wheel can't be built.
    """
    target = folder / WHEELS
    target.mkdir(parents=True)
    version = importlib.metadata.version("imgclf")
    notes: list[str] = []
    checkout = Path(__file__).resolve().parents[2]
    if not ((checkout / ".git").exists() and (checkout / "pyproject.toml").exists()):
        _repack(importlib.metadata.distribution("imgclf"), target)
        return {"imgclf": version, "commit": None, "changed": False, "notes": notes}
    _build(checkout, target)
    commit, changed = _history(checkout, target, notes)
    now = f"{commit[:12]}{'-dirty' if changed else ''}"
    if made_by is None or not commit.startswith(made_by.removesuffix("-dirty").rpartition("-g")[2]):
        notes.append(f"The run was made by imgclf {made_by or version}, and the source here is {now}.")
    elif made_by.endswith("-dirty"):
        notes.append("The run was made with uncommitted changes; those of the day on which it was bundled are here.")
    return {"imgclf": version, "commit": commit, "changed": changed, "notes": notes}


def requirements(folder: Path) -> list[str]:
    """What the wheel of imgclf in `folder`/source/ requires, as it states it."""
    (wheel,) = (folder / WHEELS).glob("imgclf-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        stated = email.message_from_bytes(archive.read(name))
    return [str(need) for need in stated.get_all("Requires-Dist", [])]


def pack_others(folder: Path, no_index: Mapping[str, importlib.metadata.Distribution]) -> None:
    """Makes the wheels of distributions that were not installed from an index, beside imgclf's.

    Raises:
      UserError: if a wheel can't be made.
    """
    for distribution in no_index.values():
        _pack_distribution(distribution, folder / WHEELS)


def check_wheels(folder: Path) -> None:
    """Refuses wheels that unfold to more than a gigabyte, or to files outside of their folder.

    Raises:
      UserError: for such a wheel, and for one that is damaged.
    """
    for wheel in sorted(folder.glob(f"{WHEELS}/*.whl")):
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{wheel} is no wheel ({error}): get the bundle anew.") from None
        if sum(member.file_size for member in members) > _LARGEST:
            raise UserError(f"{wheel} unfolds to more than {_LARGEST:,} bytes: it is not of imgclf's making, don't use it.")
        if any(".." in member.filename.split("/") or member.filename.startswith("/") for member in members):
            raise UserError(f"{wheel} holds files that lead out of its folder: it is not of imgclf's making, don't use it.")


def _local(top: str, folder: Path) -> list[Path]:
    """The files of a module or package that lies in the folder; [] where it comes from elsewhere."""
    if (folder / f"{top}.py").is_file():
        return [folder / f"{top}.py"]
    return sorted(path for path in (folder / top).rglob("*.py") if "__pycache__" not in path.parts) if (folder / top).is_dir() else []


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _build(folder: Path, target: Path) -> None:
    """Builds the wheel of a source tree; in an environment of its own where hatchling is not installed."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") is not None else []
    command = [*pip, *here, "--wheel-dir", str(target), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=target)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gives no reason"])[-1]
        raise UserError(f"The wheel of {folder} can't be built ({reason}): python -m pip install hatchling, then bundle again.")


def _pack_distribution(distribution: importlib.metadata.Distribution, target: Path) -> None:
    """Makes the wheel of a distribution that was not installed from an index."""
    about = lock.of_no_index(distribution) or {}
    url = str(about.get("url", ""))
    if about.get("dir_info", {}).get("editable") and url.startswith("file://"):
        _build(Path(url2pathname(url.removeprefix("file://"))), target)
    else:
        _repack(distribution, target)


def _repack(distribution: importlib.metadata.Distribution, target: Path) -> None:
    """Makes a wheel of what a wheel has installed, by its RECORD (PEP 427)."""
    tags = [line.partition(": ")[2] for line in (distribution.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")]
    files = [file for file in distribution.files or [] if not _made_by_installer(file)]
    if not tags or not files:
        raise UserError(f"{distribution.name} {distribution.version} is installed in a way that can't be packed: install its wheel.")
    stem = f"{distribution.name.replace('-', '_')}-{distribution.version}"
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(target / f"{stem}-{tags[0]}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files, key=str):
            data = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.writerow((file.as_posix(), f"sha256={digest}", len(data)))
            archive.writestr(zipfile.ZipInfo(file.as_posix(), _DATE), data, zipfile.ZIP_DEFLATED)
        name = f"{stem}.dist-info/RECORD"
        rows.writerow((name, "", ""))
        archive.writestr(zipfile.ZipInfo(name, _DATE), record.getvalue(), zipfile.ZIP_DEFLATED)


def _made_by_installer(file: importlib.metadata.PackagePath) -> bool:
    """Whether a file was no part of the wheel: commands, compiled modules, and notes of the installer."""
    notes = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    return ".." in file.parts or "__pycache__" in file.parts or (file.parts[0].endswith(".dist-info") and file.name in notes)


def _history(checkout: Path, target: Path, notes: list[str]) -> tuple[str, bool]:
    """Writes history.gitbundle, and uncommitted.diff where there are changes; returns the commit, and whether there are."""
    commit = _git(checkout, "rev-parse", "HEAD").decode().strip()
    made = subprocess.run(
        ["git", "-C", str(checkout), "-c", "pack.threads=1", "bundle", "create", "--quiet", str(target / "history.gitbundle"), "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        (target / "history.gitbundle").unlink(missing_ok=True)
        notes.append(f"The history of imgclf is not packed: git says {made.stderr.strip().splitlines()[-1]!r}.")
    with tempfile.TemporaryDirectory() as folder:  # an index of our own, so that the user's stays as it is
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(checkout, "read-tree", "HEAD", environment=index)
        _git(checkout, "add", "--all", "imgclf", "configs", "pyproject.toml", environment=index)
        changes = _git(checkout, "diff", "--cached", "--binary", "HEAD", environment=index)
    if changes:
        (target / "uncommitted.diff").write_bytes(changes)
    return commit, bool(changes)


def _git(checkout: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, check=False, env={**os.environ, **(environment or {})}
        )
    except OSError:
        raise UserError(f"{checkout} is a git checkout, and git is not installed: install git, then bundle again.") from None
    if done.returncode:
        raise UserError(f"git can't read {checkout} ({done.stderr.decode(errors='replace').strip()}): mend it, then bundle again.")
    return done.stdout
