"""The lock: everything that a run imports, at exactly the installed versions, with the SHA-256 of what is to be installed.

It lists imgclf's dependencies and theirs, the distributions that the user's own code imports, JAX's plugins (CUDA, TPU) and decoders that
are installed, so that what else happens to lie in an environment, such as a notebook server, is left out. Hashes come from the index that
the installer is configured with; its address is not written down, so that the lock works with any index.
"""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from imgclf.errors import UserError

FILE = "lock.txt"
_OPTIONAL = ("pillow-heif",)  # changes which photos can be read


def distributions(own: Iterable[str], more: Iterable[str] = ()) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that imgclf needs, by canonical name, imgclf itself left out.

    Args:
      own: imgclf's requirements, as its wheel states them: what a checkout was installed with may be older than the checkout.
      more: names of further distributions, such as those that the user's own code imports; what they need is added too.

    Raises:
      UserError: where a needed one is not installed.
    """
    plugins = {point.dist.name for point in importlib.metadata.entry_points(group="jax_plugins") if point.dist is not None}
    optional = {name for name in _OPTIONAL if _installed(name) is not None}
    found: dict[str, importlib.metadata.Distribution] = {}
    extras: dict[str, set[str]] = {}
    waiting = [(name, set[str]()) for name in sorted(plugins | optional | set(more))]
    waiting += [(need.name, set(need.extras)) for need in map(Requirement, own) if _applies(need, ("",))]
    while waiting:
        name, wanted = waiting.pop()
        key = canonicalize_name(name)
        if key == "imgclf" or (key in found and wanted <= extras[key]):
            continue
        distribution = _installed(name)
        if distribution is None:
            raise UserError(f"{name} is not installed, and the run needs it: python -m pip install {name}, then bundle again.")
        found[key] = distribution
        extras[key] = extras.get(key, set()) | wanted
        for text in distribution.requires or []:
            need = Requirement(text)
            if _applies(need, ("", *extras[key])):
                waiting.append((need.name, set(need.extras)))
    return dict(sorted(found.items()))


def _applies(need: Requirement, extras: Iterable[str]) -> bool:
    """Whether a requirement holds here, for some of these extras."""
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)


def of_no_index(distribution: importlib.metadata.Distribution) -> dict[str, Any] | None:
    """Where a distribution was installed from, as PEP 610's direct_url.json has it; None where an index gave it."""
    text = distribution.read_text("direct_url.json")
    return json.loads(text) if text else None


def write(path: Path, pinned: Mapping[str, str]) -> None:
    """Writes the lock.

    Args:
      path: the file.
      pinned: distribution → version, all from an index.

    Raises:
      UserError: if the index does not have one of them, or can't be asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pinned.items())))
        lines = _by_uv(wanted) or _by_pip(wanted)
    text = "\n".join(lines)
    missing = [name for name in pinned if not re.search(rf"^{re.escape(name)}==", text, re.MULTILINE)]
    if missing:
        raise UserError(
            f"The package index gives no hash for {missing[0]}=={pinned[missing[0]]}: install it from an index, and bundle again."
        )
    path.write_text(f"{text}\n", encoding="utf-8")


def _by_uv(wanted: Path) -> list[str]:
    """Asks uv, which lists the files for all platforms; [] where uv is not installed, or its own index lacks something."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv") or _uv_of_package()
    if not uv:
        return []
    plain = ("--no-deps", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet")
    command = [uv, "pip", "compile", "--generate-hashes", *plain, "--python", sys.executable, str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _uv_of_package() -> str:
    """The program that the package uv brings along; "" where that is not installed."""
    if importlib.util.find_spec("uv") is None:
        return ""
    distribution = importlib.metadata.distribution("uv")
    programs = [Path(str(file.locate())) for file in distribution.files or [] if file.name in ("uv", "uv.exe")]
    return next((str(program) for program in programs if program.is_file()), "")


def _by_pip(wanted: Path) -> list[str]:
    """Asks pip, which names the files for this platform and this Python."""
    report = wanted.with_name("report.json")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run", "--ignore-installed"]
    done = subprocess.run(
        [*command, "--no-deps", "--report", str(report), "--requirement", str(wanted)], capture_output=True, text=True, check=False
    )
    if done.returncode or not report.exists():
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["no answer"]
        reason = said[-1].removeprefix("ERROR: ")
        raise UserError(f"pip can't find the installed packages again in its index ({reason}): check pip's index, then bundle again.")
    lines = []
    for entry in json.loads(report.read_text())["install"]:
        info, about = entry["download_info"]["archive_info"], entry["metadata"]
        sha256 = info.get("hashes", {}).get("sha256", "")
        lines += [f"{canonicalize_name(about['name'])}=={about['version']} \\", f"    --hash=sha256:{sha256}"] if sha256 else []
    return lines


def _installed(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
