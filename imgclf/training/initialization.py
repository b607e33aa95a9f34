"""The parameters before the first step: where they are made, and what is found from the training images, such as whitening of patches."""

from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from imgclf import models
from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.models import forms
from imgclf.models.network import Network
from imgclf.training.layout import Layout
from imgclf.training.state import split_model
from imgclf.training.step import normalize


def create_model(config: Config, num_classes: int, mesh: Mesh, *, tell: Callable[[str], None]) -> Network:
    """The model that training starts from (`models.create`), laid out as `config.mesh` says, where that splits it.

    Args:
      config: the whole config, resolved.
      num_classes: of the data.
      mesh: of all devices.
      tell: is given what the user should know.

    Raises:
      UserError: as `models.create`, and for a row of `config.mesh.rules` that doesn't fit.
    """
    with forms.on_devices_of(mesh):
        if mesh.shape["fsdp"] == mesh.shape["model"] == 1:
            return models.create(config, num_classes, tell=tell)
        shapes = models.abstract(config, num_classes)
        layout = Layout.create(config.mesh, split_model(shapes)[1], mesh)
        return models.create(config, num_classes, tell=tell, shardings=layout.shardings)


def initialize_from_images(config: Config, model: Network, dataset: Dataset) -> None:
    """Lets a backbone with an `initialize_from` see training images as evaluation shows them; one with published weights keeps those.

    The images are drawn by `config.seed` and taken in the table's order, so that a run that is continued finds the same parameters.

    Args:
      config: the whole config, resolved.
      model: it is changed in place.
      dataset: with its splits.

    Raises:
      UserError: if an image can no longer be read.
    """
    initialize = getattr(model.backbone, "initialize_from", None)
    if initialize is None or config.model.weights != "none":
        return
    rows = np.flatnonzero((dataset.table["split"] == "train").to_numpy())
    wanted = min(model.backbone.initial_images, len(rows))
    chosen = np.sort(np.random.default_rng(config.seed).choice(rows, wanted, replace=False))
    with pipeline.row_batches(dataset, config, chosen) as batches:
        shown = [normalize(batch["image"][batch["mask"]], config.data.mean, config.data.std) for batch in batches]
    initialize(np.concatenate([np.asarray(images) for images in shown]))
