"""The models, by name: `create` builds the one that a config asks for."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from imgclf.errors import UserError, nearest
from imgclf.models.classifier import Classifier, Head
from imgclf.models.families import BACKBONES, NAMES  # new models: a line in families.py


def create(config: ConfigDict, num_classes: int) -> Classifier:
    """Builds and initialises the model of `config.model` for images of `config.data.image_size`, seeded by `config.seed`.

    Raises:
      UserError: for an unknown name, a sigmoid output with other than two classes, and images too small for the model.
    """
    name, dtype = config.model.name, jnp.dtype(config.model.dtype)
    if name not in BACKBONES:
        raise UserError(f"config.model.name={name!r} is not a model; {nearest(name, NAMES)}")
    sigmoid = config.model.output == "sigmoid"
    if sigmoid and num_classes != 2:
        raise UserError(f"config.model.output='sigmoid' needs two classes, the data have {num_classes}; use 'softmax'.")
    rngs = nnx.Rngs(config.seed)
    options: dict[str, Any] = config.model.cnn.to_dict() if name == "cnn" else {}
    head = {key: options.pop(key) for key in ("flatten", "maps_dropout", "dense", "dropout") if key in options}
    backbone = BACKBONES[name](**options, dtype=dtype, rngs=rngs)
    map_size = backbone.map_size(*config.data.image_size)
    if min(map_size) < 1:
        height, width = config.data.image_size
        raise UserError(f"config.data.image_size=({height}, {width}) is too small for config.model.name={name!r}; use larger images.")
    outputs = 1 if sigmoid else num_classes
    return Classifier(backbone, Head(map_size, backbone.features, outputs, **head, dtype=dtype, rngs=rngs), dtype=dtype)


__all__ = ["NAMES", "Classifier", "create"]
