"""`imgclf push`: a run's model, with its card, in a repository of the Hugging Face hub, for `imgclf.load("hf://USER/NAME")`; or an export,
for the library that it is for, such as `timm.create_model("hf-hub:USER/NAME", pretrained=True)`.

What is pushed is what `Classifier.save` keeps, but for the report, which shows training images, and for the folders of this machine; the
parameters are safetensors. All of it becomes visible in one commit, or nothing does; what the hub has already is not sent again.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import RevisionNotFoundError
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, progress
from imgclf.config import Config
from imgclf.deploy import hub
from imgclf.deploy.classifier import Classifier, load
from imgclf.deploy.hub import Repository
from imgclf.errors import UserError
from imgclf.evaluation import open_set
from imgclf.exports import folder as exported
from imgclf.openimages import attribution
from imgclf.publishing import card, export_card
from imgclf.reporting import leaderboard

README, EXPORTS = "README.md", "exports"
_LOCAL = ("path", "root", "label_patch")  # fields of config.data that name places on this machine


def push(
    run: str | os.PathLike[str],
    address: str,
    *,
    private: bool = False,
    export: str = "",
    licence: str = "",
    overwrite: bool = False,
    console: Console | None = None,
) -> str:
    """Puts a finished run's model, or an export, on the Hugging Face hub, for everybody, or for the owner and whom they let in.

        imgclf.push("runs/photos", "hf://USER/photos", private=True)
        imgclf.load("hf://USER/photos").predict("cat.jpg")
        imgclf.push("runs/photos/exports/timm", "hf://USER/photos-timm")  # timm.create_model("hf-hub:USER/photos-timm", pretrained=True)

    The token is that of the hub's own tools: HF_TOKEN, or what `hf auth login` has kept. Photos are not pushed; of the training images go
    along their hashes and, where the run has an open set, their features.

    Args:
      run: the folder of a finished run, or of a saved model; or that of an export, whose files then stand at the repository's root, where
        timm looks for them.
      address: hf://USER/NAME, or hf://USER/NAME@BRANCH; the repository, and the branch, are made where they are not there.
      private: whether a repository that is made here is.
      export: a format that goes along, such as "onnx", see `Classifier.export`.
      licence: of the trained model, see `card.write`.
      overwrite: whether to write into a repository that has other things in it than an earlier push of the same kind.
      console: where the progress is shown; None = the terminal.

    Returns:
      The address of the commit's page.

    Raises:
      UserError: for no finished run, no address, no token, one without the right to write, or a repository with other things in it; if the
        hub can't be reached. The repository stays as it was.

    Example:
      >>> imgclf.push("runs/photos", "photos")
      Traceback (most recent call last):
      imgclf.errors.UserError: 'photos' names no repository of the hub: write hf://USER/NAME, or hf://USER/NAME@REVISION.
    """
    repository = hub.parse(address)
    card.check_licence(licence)
    if not huggingface_hub.get_token():
        raise UserError("There is no token for the hub: set HF_TOKEN, or run hf auth login.")
    place = files.path_of(run, "the folder of a run")
    is_export = (place / exported.EXPORT_JSON).is_file()
    if is_export and export:
        raise UserError(f"{place} is an export itself: leave export={export!r} out, or name the run.")
    subject = exported.read(place) if is_export else load(place)
    mark = exported.EXPORT_JSON if is_export else hub.MARK
    console = console or Console(stderr=True)
    api = huggingface_hub.HfApi(library_name="imgclf")
    with contextlib.ExitStack() as stack:
        with hub.told(repository, "written"):
            api.whoami()  # whether the hub is there, and knows the token
            there = _files_of(api, repository)
            former = _pushed_before(api, repository, there)
        if mark not in there and not overwrite and set(there) - {".gitattributes"}:
            kind = "an export" if is_export else "a model of imgclf"
            raise UserError(
                f"{repository} holds other things than {kind}, such as {sorted(set(there) - {'.gitattributes'})[0]}: name another, or give "
                "overwrite=True."
            )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgclf-push-")))
        with progress.bar(console) as bar:
            bar.add_task("collecting the model", total=None)
            if isinstance(subject, exported.Export):
                _collect_export(subject, folder, repository, licence)
            else:
                _collect(subject, folder, repository, export=export, licence=licence)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # hashes of images, no data set
        with hub.told(repository, "written"):
            return _commit(api, repository, folder, former, private=private)


def _files_of(api: huggingface_hub.HfApi, repository: Repository) -> list[str]:
    """The files of a repository's branch; none where the repository or the branch is not there yet."""
    if not api.repo_exists(repository.name):
        return []
    try:
        return api.list_repo_files(repository.name, revision=repository.revision or None)
    except RevisionNotFoundError:
        return []


def _pushed_before(api: huggingface_hub.HfApi, repository: Repository, there: list[str]) -> list[str]:
    """Those of a repository's files that an earlier push has put there."""
    ours = {*hub.FILES, hub.MARK, attribution.FILE, exported.EXPORT_JSON}
    if exported.EXPORT_JSON in there:
        about = api.hf_hub_download(repository.name, exported.EXPORT_JSON, revision=repository.revision or None)
        ours |= set(json.loads(Path(about).read_text(encoding="utf-8")).get("files", ()))
    return [name for name in there if name in ours or name.startswith(f"{EXPORTS}/")]


def _collect_export(export: exported.Export, folder: Path, repository: Repository, licence: str) -> None:
    """Fills the folder that is pushed with an export, without the run's pictures."""
    shutil.copytree(export.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    exported.without_pictures(folder)
    files.write_text(folder / README, export_card.write(export, repository, licence))


def _collect(classifier: Classifier, folder: Path, repository: Repository, *, export: str, licence: str) -> None:
    """Fills the folder that is pushed."""
    run = classifier.folder
    assert run is not None
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for name in (open_set.FILE, leaderboard.FILE):
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    environment = run / "environment.json"
    if environment.exists():
        known = json.loads(environment.read_text(encoding="utf-8"))
        files.write_json(folder / environment.name, {name: value for name, value in known.items() if name != "command"})
    if (run / "dataset.parquet").exists():  # which images it has seen, without their names
        pd.read_parquet(run / "dataset.parquet", columns=["sha256", "split"]).to_parquet(folder / "dataset.parquet", index=False)
    about = {"class_names": list(classifier.class_names), "params_sha256": results["params_sha256"]}
    hub.write_model({"params": classifier.params, "batch_stats": classifier.batch_stats}, about, folder / hub.MODEL)
    files.write_json(folder / "results.json", results | {"checkpoint": hub.MODEL})
    files.write_text(folder / "config.json", config_lib.to_json(_without_places(classifier.config)))
    if (authors := card.attribution_of(run)) is not None:
        shutil.copyfile(authors, folder / attribution.FILE)
    if export:
        classifier.export(export, folder / EXPORTS / export, verbose=False)
        exported.without_pictures(folder / EXPORTS / export)  # which are the run's
    files.write_text(folder / README, card.write(run, address=str(repository), licence=licence))
    mark = {"schema": hub.SCHEMA, "imgclf": importlib.metadata.version("imgclf"), "files": dict(_hashes(folder))}
    files.write_json(folder / hub.MARK, mark)


def _without_places(config: Config) -> Config:
    """The config without the folders of this machine, which are nobody else's business."""
    config = config.copy_and_resolve_references()
    for field in _LOCAL:
        config.data[field] = Path(config.data[field]).name
    config.data.tfds.data_dir = ""
    if config.model.weights.startswith("path:"):
        config.model.weights = f"path:{Path(config.model.weights.removeprefix('path:')).name}"
    return config


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for name in _names(folder):
        with (folder / name).open("rb") as file:
            yield name, hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _commit(api: huggingface_hub.HfApi, repository: Repository, folder: Path, former: list[str], *, private: bool) -> str:
    """Puts the folder into the repository, in one commit that also removes what an earlier push has left and this one hasn't."""
    names = _names(folder)
    operations: list[Any] = [CommitOperationAdd(name, str(folder / name)) for name in names]
    operations += [CommitOperationDelete(name) for name in former if name not in names]
    api.create_repo(repository.name, private=private, exist_ok=True)
    if repository.revision:
        api.create_branch(repository.name, branch=repository.revision, exist_ok=True)
    message = f"Model by imgclf {importlib.metadata.version('imgclf')}"
    done = api.create_commit(repository.name, operations, commit_message=message, revision=repository.revision or None)
    return str(done.commit_url)
