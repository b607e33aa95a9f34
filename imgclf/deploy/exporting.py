"""`classifier.export(…)`: gives `imgclf.exports` what it needs of a classifier and of its run."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from imgclf import files, models
from imgclf.config import Config
from imgclf.data.prepare import load_path
from imgclf.data.table import Dataset
from imgclf.deploy.items import dataset_of
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.exports import choices
from imgclf.exports.choices import Options
from imgclf.exports.export import export as write
from imgclf.exports.exportable import Exportable, Outputs
from imgclf.exports.folder import Export
from imgclf.exports.pictures import Pictures
from imgclf.models.weights import pretrained
from imgclf.training import sharding
from imgclf.training.state import split_model
from imgclf.training.step import make_eval_step

_BATCH = 16


def export(
    predictor: Predictor,
    to: str,
    out: str | os.PathLike[str] | None,
    *,
    options: Options,
    images: object = None,
    overwrite: bool = False,
    console: Console,
) -> Export:
    """Exports a classifier; see `Classifier.export`."""
    choices.check(to, options)  # before anything is read
    if out is None:
        if predictor.folder is None:
            raise UserError("This classifier was loaded from no folder: name one for the export with out=DIR.")
        precision = "" if options.precision == "float32" else f"-{options.precision}"
        out = predictor.folder / "exports" / f"{to}{precision}"
    place = files.path_of(out, "the folder of the export")
    return write(exportable(predictor, images), to, place, options, overwrite=overwrite, console=console)


def exportable(predictor: Predictor, images: object = None) -> Exportable:
    """What an export is made of.

    Args:
      predictor: the classifier.
      images: to check the export with: a folder, a table, or labeled images; None = the run's own.

    Raises:
      UserError: if `images` holds none.
    """
    folder = predictor.folder
    return Exportable(
        name=folder.absolute().name if folder else predictor.config.name,
        config=predictor.config,
        class_names=predictor.class_names,
        params=jax.tree.map(np.asarray, predictor.params),
        batch_stats=jax.tree.map(np.asarray, predictor.batch_stats),
        temperature=predictor.temperature,
        logit_offset=predictor.logit_offset,
        conformal=predictor.conformal,
        open_set=predictor.open_set,
        licence=_licence(predictor.config),
        pictures=_pictures(predictor, images),
        run=lambda shown: _outputs(predictor, shown),
        sha256=predictor.sha256,
    )


def _pictures(predictor: Predictor, images: object) -> Pictures:
    if images is None:
        return Pictures.of_run(predictor.folder or Path(), predictor.config)
    if (dataset := dataset_of(images)) is not None:
        return Pictures.of_dataset(dataset, predictor.config)
    found: Dataset = load_path(files.path_of(images, "a folder of images"))[0]
    return Pictures.of_dataset(found, predictor.config)


def _licence(config: Config) -> dict[str, Any] | None:
    """Name, licence and source of the published weights that a run began with; None for random weights and for files."""
    if config.model.weights == "none" or config.model.weights.startswith("path:"):
        return None
    entry = pretrained.find(config.model.weights, config.model.name)
    return {"weights": entry.name, "licence": entry.licence, "source": entry.source, "commercial": entry.commercial}


def _outputs(predictor: Predictor, shown: np.ndarray) -> Outputs:
    """What evaluation says of images, uint8 [N,H,W,3], in float32, by the forms of this machine.

    Where the run shows several views, these are the image and its mirror image, see `Exportable.flips`.
    """
    config = predictor.config.copy_and_resolve_references()
    config.model.precision = "f32"
    graphdef, _, _ = split_model(models.abstract(config, len(predictor.class_names)))
    mesh = sharding.create_mesh()
    step = make_eval_step(config, graphdef, mesh, features=True)
    size = -(-_BATCH // jax.device_count()) * jax.device_count()
    if config.eval.views != "plain":
        shown = np.stack([shown, shown[:, :, ::-1]], axis=1)
    params, batch_stats = sharding.replicate((predictor.params, predictor.batch_stats), mesh)
    parts: list[Outputs] = []
    for start in range(0, len(shown), size):
        image = shown[start : start + size]
        index = np.arange(size)
        padding = ((0, size - len(image)), *((0, 0),) * (shown.ndim - 1))
        batch = {"image": np.pad(image, padding), "label": np.zeros(size, np.int32), "index": index, "mask": index < len(image)}
        found = step(params, batch_stats, sharding.put_batch(batch, mesh))
        parts.append({name: np.asarray(found[name])[: len(image)] for name in ("logits", "features")})
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return outputs | {"probabilities": predictor.calibrated(outputs["logits"])}
