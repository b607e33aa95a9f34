"""The folder of an export: what stands in it, how it is written whole or not at all, and how it is opened again."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgclf import files, outputs
from imgclf.errors import UserError
from imgclf.evaluation import open_set
from imgclf.evaluation.conformal import Conformal
from imgclf.evaluation.open_set import OpenSet
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable
from imgclf.exports.pictures import Picture

EXPORT_JSON = "export.json"
SCHEMA = 1  # of export.json: raised when a reader of the former would misread it
GOLDEN = "golden"  # the folder of pictures with what the network is shown of them
PREPROCESS, PREDICT = "preprocess.py", "predict.py"  # programs that need neither imgclf nor JAX


@dataclasses.dataclass(frozen=True)
class Export:
    """An export, as its export.json describes it.

    Attributes:
      folder: where it is.
      format: onnx, stablehlo, timm or keras.
      model_file: the name of the file with the model.
      class_names: in the order of the logits.
      size: (height, width) of the input, uint8 [B,H,W,3].
      preprocessing: see `Exportable.preprocessing`.
      temperature, logit_offset, conformal: see `deploy.predictor.Predictor`; the output "probabilities" has the first two in it.
      precision: float32, int8 or float16.
      params_sha256: of the run's kept model.
      table: what the gate has measured: `megabytes`, `cold_start_s`, `ms_batch_1`, `ms_batch_16`, `top1_agreement`, `max_difference`, …
      about: all of export.json.
    """

    folder: Path
    format: str
    model_file: str
    class_names: tuple[str, ...]
    size: tuple[int, int]
    preprocessing: dict[str, Any]
    temperature: float
    logit_offset: tuple[float, ...]
    conformal: Conformal | None
    precision: str
    params_sha256: str
    table: dict[str, Any]
    about: dict[str, Any]

    @property
    def model(self) -> Path:
        """The file with the model."""
        return self.folder / self.model_file

    def open_set(self) -> OpenSet | None:
        """The training images' features to compare others with; None where the run has kept none."""
        return OpenSet.load(self.folder, self.params_sha256)

    def __repr__(self) -> str:
        return f"{self.format} ({self.precision}) for {len(self.class_names)} classes, in {self.folder}"


def read(folder: str | os.PathLike[str]) -> Export:
    """Opens the folder of an export, and checks every byte of it.

    Raises:
      UserError: if this is no export, or one of another version; if a file is missing or has changed, which is named.
    """
    place = files.path_of(folder, "the folder of an export")
    path = place / EXPORT_JSON
    if not path.is_file():
        raise UserError(f"{place} is no export (it has no {EXPORT_JSON}): name a folder that imgclf export wrote.")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        schema = about["schema"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): export again, or restore it from a copy.") from error
    if schema != SCHEMA:
        raise UserError(
            f"{place} was exported by another version of imgclf ({about.get('imgclf', 'unknown')}; its export.json has schema {schema!r}, "
            f"this one reads {SCHEMA}): export again with this one."
        )
    try:
        export = _parsed(place, about)
        expected = dict(about["files"])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): export again, or restore it from a copy.") from error
    if about.get("self_sha256") != _self_sha256(about):
        raise UserError(f"{path} has changed since it was exported: export again, or restore it from a copy.")
    for name, sha256 in expected.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path} is damaged (it names {name!r}, which is outside of the export): export again.")
        if not (place / name).is_file():
            raise UserError(f"{place / name} is missing: export again, or restore it from a copy.")
        if _sha256(place / name) != sha256:
            raise UserError(f"{place / name} has changed since it was exported: export again, or restore it from a copy.")
    return export


def _parsed(place: Path, about: dict[str, Any]) -> Export:
    rule, size = about["conformal"], about["preprocessing"]["size"]
    return Export(
        place,
        about["format"],
        about["model_file"],
        tuple(about["class_names"]),
        (int(size[0]), int(size[1])),
        about["preprocessing"],
        float(about["temperature"]),
        tuple(about["logit_offset"]),
        Conformal(rule["alpha"], rule["threshold"], rule["n"]) if rule else None,
        about["precision"],
        about["params_sha256"],
        about["table"],
        about,
    )


def check_target(out: str | os.PathLike[str], exportable: Exportable, format_name: str, options: Options, *, overwrite: bool) -> Path:
    """Returns where an export may be written, as an absolute path; call it before the work.

    Raises:
      UserError: if something that is not to be replaced stands there.
    """
    return outputs.check_folder(out, identity(exportable, format_name, options), EXPORT_JSON, overwrite=overwrite)


def identity(exportable: Exportable, format_name: str, options: Options) -> outputs.Identity:
    """What the export is of; an older one of the same classifier in the same form is replaced."""
    subject = f"{format_name} ({options.precision}), of the run {exportable.name}"
    return outputs.identity("export", subject, exportable.sha256, format_name, options.precision)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yields a folder to fill, which takes its place as `target` at the end of the block; where the block fails, nothing is left.

    Raises:
      UserError: if the disk is full, or the folder can't be written.
    """
    made = [path for path in (target.parent, *target.parent.parents) if not path.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing_folder(target) as aside:
            yield aside
        made = []
    except OSError as error:
        raise UserError(
            f"{target} can't be written ({error.strerror or error}): make room, or choose another folder with out=DIR."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # somebody else has put something into one of them
            for path in made:
                path.rmdir()


def describe(exportable: Exportable, format_name: str, model_file: str, options: Options, more: dict[str, Any]) -> dict[str, Any]:
    """What export.json says before the gate: all that `preprocess.py` and `predict.py` read, and what people want to know."""
    rule, of = exportable.conformal, identity(exportable, format_name, options)
    return {
        "schema": SCHEMA,
        "kind": of.kind,
        "subject": of.subject,
        "digest": of.digest,
        "imgclf": importlib.metadata.version("imgclf"),
        "format": format_name,
        "precision": options.precision,
        "model_file": model_file,
        "model": exportable.config.model.name,
        "run": exportable.name,
        "class_names": list(exportable.class_names),
        "preprocessing": exportable.preprocessing,
        "mean": list(exportable.config.data.mean),
        "std": list(exportable.config.data.std),
        "views": "flip" if exportable.flips else "plain",
        "temperature": exportable.temperature,
        "logit_offset": list(exportable.logit_offset),
        "conformal": dataclasses.asdict(rule) if rule else None,
        "open_set": exportable.open_set.about if exportable.open_set else None,
        "licence": exportable.licence,
        "params_sha256": exportable.params_sha256,
        "note": exportable.note,
        **more,
    }


def write_companions(exportable: Exportable, folder: Path, programs: tuple[str, ...]) -> None:
    """Writes what stands beside every model: the programs, and the open set's references."""
    for name in programs:
        text = resources.files("imgclf.exports.programs").joinpath(name).read_bytes()
        (folder / name).write_bytes(text)
    open_set.write(exportable.open_set, folder)


def write_golden(pictures: list[Picture], folder: Path) -> None:
    """Writes pictures as they are stored, and what the network is shown of them, uint8 [H,W,3] as .npy, to check `preprocess.py` by."""
    place = folder / GOLDEN
    place.mkdir()
    for number, picture in enumerate(pictures):
        if isinstance(picture.stored, bytes):
            suffix = Path(picture.id).suffix.lower()
            (place / f"{number}{suffix if suffix.isascii() else ''}").write_bytes(picture.stored)
        else:
            Image.fromarray(picture.stored).save(place / f"{number}.png")
        np.save(place / f"{number}.npy", picture.shown)


def without_pictures(folder: Path) -> None:
    """Takes the run's pictures out of an export that is to be published."""
    about = json.loads((folder / EXPORT_JSON).read_text(encoding="utf-8"))
    shutil.rmtree(folder / GOLDEN)
    finish(folder, {name: value for name, value in about.items() if name not in ("files", "self_sha256")})


def finish(folder: Path, about: dict[str, Any]) -> None:
    """Writes export.json, with the sha256 of every file, and with its own."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != EXPORT_JSON)
    about = about | {"files": {name: _sha256(folder / name) for name in names}}
    files.write_json(folder / EXPORT_JSON, about | {"self_sha256": _self_sha256(about)})


def megabytes(folder: Path, name: str) -> float:
    """The size of a file, in millions of bytes."""
    return math.ceil((folder / name).stat().st_size / 1e4) / 100


def _self_sha256(about: dict[str, Any]) -> str:
    rest = {name: value for name, value in about.items() if name != "self_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
