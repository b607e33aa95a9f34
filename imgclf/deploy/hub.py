"""Models in repositories of the Hugging Face hub: `imgclf.load("hf://USER/NAME")`.

What comes from the hub is a stranger's. Nothing in it is run: neither a pickle, nor a module that a config names. The parameters are a file
of safetensors, which holds numbers and nothing else; of the repository, only the files in `FILES` are fetched, by these names; and each of
them must be what the repository's own list of hashes says.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from imgclf.config import Config
from imgclf.errors import UserError
from imgclf.evaluation import open_set
from imgclf.models.weights.conversion import flatten, nest
from imgclf.reporting import leaderboard
from imgclf.training.state import Tree, tree_sha256

PREFIX = "hf://"
MODEL, MARK = "model.safetensors", "imgclf_files.json"  # parameters and statistics; the files with their hashes
FILES = ("config.json", "results.json", "environment.json", "dataset.parquet", open_set.FILE, leaderboard.FILE, MODEL)
SCHEMA = 1  # of MARK: raised when a reader of the former would misread it
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(rf"hf://({_NAME}/{_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")
_LARGEST_SIDE = 4096  # pixels of an image that the network is shown: more is no classifier, but a way to fill the memory
_LARGEST_JSON = 64 << 20  # bytes
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository of the hub: `name` is USER/NAME; `revision` a branch, a tag or a commit, "" = main."""

    name: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"@{self.revision}" if self.revision else "")


def parse(address: str) -> Repository:
    """Reads `hf://USER/NAME` or `hf://USER/NAME@REVISION`.

    Raises:
      UserError: for anything else.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or ".." in address or "--" in found[1]:
        raise UserError(f"{address!r} names no repository of the hub: write hf://USER/NAME, or hf://USER/NAME@REVISION.")
    return Repository(found[1], found[2] or "")


@contextlib.contextmanager
def told(repository: Repository, done: str) -> Iterator[None]:
    """Turns what the hub's client raises into one sentence; `done` is what was asked for, such as "read" or "written"."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except UserError:
        raise
    except RevisionNotFoundError as error:
        raise UserError(
            f"{repository} has no revision {repository.revision or 'main'!r}: name a branch, a tag or a commit of it."
        ) from error
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is open to those only whom its owner has admitted: ask for it on its page, and set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{repository} is not on the hub, or private: check the name, or set HF_TOKEN to a token that may see it (hf auth login)."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise UserError(f"The hub does not know this token: set HF_TOKEN to another, or run hf auth login ({repository}).") from error
        if status == 403:
            raise UserError(f"{repository} can't be {done} with this token: give it the right to, or set HF_TOKEN to another.") from error
        raise UserError(f"{repository} can't be {done}: the hub answers {status} ({_reason(error)}); try again later.") from error
    except Exception as error:  # whatever the client's HTTP library raises: there is no network, or no disk
        raise UserError(f"{repository} can't be {done} ({_reason(error)}): check the network, and HF_ENDPOINT if it is set.") from error


def _reason(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).split(". ")[0].strip().rstrip(".") or type(error).__name__


def fetch(address: str) -> Path:
    """Fetches a model, or takes it from the hub's cache, and checks every byte of it.

    The hub's own settings hold: HF_HOME (cache), HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN. Where the hub can't be reached, what was fetched
    before is taken.

    Returns:
      The folder in the cache.

    Raises:
      UserError: if there is no such repository, it is no model of imgclf, or what it holds is damaged; if the hub can't be reached and
        nothing was fetched before.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository = parse(address)
    options: dict[str, Any] = {"revision": repository.revision or None, "allow_patterns": [MARK, *FILES], "library_name": "imgclf"}
    reached: Exception | None = None
    try:
        huggingface_hub.HfApi().model_info(repository.name, revision=repository.revision or None, timeout=20)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code < 500:
            with told(repository, "read"):
                raise
        reached = error
    except Exception as error:  # no network, or HF_HUB_OFFLINE
        reached = error
    if reached is None:
        with told(repository, "read"):
            return _checked(Path(huggingface_hub.snapshot_download(repository.name, **options)), repository)
    try:
        folder = Path(huggingface_hub.snapshot_download(repository.name, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{repository} is not on this machine, and the hub can't be reached ({_reason(reached)}): check the network, and HF_ENDPOINT "
            "if it is set."
        ) from reached
    return _checked(folder, repository)


def _checked(folder: Path, repository: Repository) -> Path:
    """The folder, once each of its files is what MARK says of it."""
    mark = folder / MARK
    if not mark.is_file():
        raise UserError(f"{repository} is no model of imgclf (it has no {MARK}): imgclf push writes one.")
    try:
        about = json.loads(_small(mark))
        schema, expected = about["schema"], dict(about["files"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{repository} is damaged: its {MARK} can't be read ({type(error).__name__}: {error}).") from error
    if schema != SCHEMA:
        raise UserError(
            f"{repository} was written by another version of imgclf (its {MARK} has schema {schema!r}, this one reads {SCHEMA})."
        )
    for name in FILES:
        path = folder / name
        if name in expected and not path.is_file():
            raise UserError(f"{repository} is damaged: {name} is missing; push it again, or delete {folder} to fetch it again.")
        if path.is_file() and _sha256(path) != expected.get(name):
            raise UserError(f"{repository} is damaged: {name} is not what its {MARK} says; delete {path.resolve()} to fetch it again.")
    return folder


def _small(path: Path) -> str:
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"it has {path.stat().st_size:,} bytes")
    return path.read_text(encoding="utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_model(model: dict[str, Tree], about: dict[str, Any], path: Path) -> None:
    """Writes parameters and statistics under the paths that they have in imgclf, such as `params/backbone/stem/conv/kernel`.

    Args:
      model: `params` and `batch_stats`, nested dicts of arrays.
      about: what stands beside them, `class_names` and `params_sha256` at least; anything that JSON can hold. It is one text in the
        file's metadata, as safetensors writes several in another order each time.
      path: of the file.
    """
    tensors = {f"{part}/{name}": np.ascontiguousarray(leaf) for part, tree in model.items() for name, leaf in flatten(tree).items()}
    save_file(tensors, path, {"imgclf": json.dumps(about, sort_keys=True)})


def read_model(path: Path, place: str) -> tuple[dict[str, Tree], dict[str, Any]]:
    """Reads what `write_model` wrote; safetensors refuses a file whose tensors are not as large as its header says.

    Raises:
      UserError: if it is damaged, or something else; `place` is what the user calls it.
    """
    try:
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["imgclf"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        parts: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        model = {part: nest(leaves) for part, leaves in parts.items()}
        about["class_names"] = [str(name) for name in about["class_names"]]
        if tree_sha256(model["params"]) != about["params_sha256"]:
            raise ValueError("its parameters don't match their hash")
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{place} is damaged: its {path.name} can't be read ({type(error).__name__}: {error}).") from error
    return model, about


def check_code(config: Config, address: str) -> None:
    """Refuses a stranger's config that names code of its author's own."""
    named = {"model.name": config.model.name, "optimizer.name": config.optimizer.name, "data.source": config.data.source}
    if own := [f"config.{field}={value!r}" for field, value in named.items() if ":" in str(value)]:
        raise UserError(
            f"{address} names code of its author's own ({', '.join(own)}), which imgclf does not run from the hub: get the code and the "
            "files, read them, and load the folder."
        )


def check_config(config: Config, results: dict[str, Any], address: str) -> None:
    """Refuses what a stranger's config could do beside naming a network of this package.

    Raises:
      UserError: for code of their own, for a model in another file than `MODEL`, for sizes and numbers that no classifier has.
    """
    check_code(config, address)
    if results.get("checkpoint") != MODEL:
        raise UserError(f"{address} keeps its model in {results.get('checkpoint')!r}; from the hub, only {MODEL} is read.")
    if not all(0 < side <= _LARGEST_SIDE for side in config.data.image_size):
        raise UserError(
            f"{address} wants images of {config.data.image_size} pixels; from the hub, sides of up to {_LARGEST_SIDE} are taken."
        )
    numbers = [results.get("temperature", 1.0), *(results.get("logit_offset") or ())]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers) or numbers[0] <= 0:
        raise UserError(f"{address} is damaged: its temperature or logit_offset in results.json are no numbers.")
