"""Parameters that are found from the training images before the first step, such as a layer that whitens their patches."""

import numpy as np

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.models.network import Network
from imgclf.training.step import normalize


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
