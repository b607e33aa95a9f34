"""The models, by name: `create` builds the one that a config asks for."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from imgclf.errors import UserError, nearest
from imgclf.models import cifar_resnet, cnn, resnet
from imgclf.models.classifier import Classifier, Head

# A backbone is a module with `features`, the channels of its maps, and `map_size(height, width)`; it is called with
# (image [B,H,W,3], train=) and returns maps [B,h,w,features].
_BACKBONES: dict[str, Callable[..., nnx.Module]] = {
    "cnn": cnn.CNN,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet_tiny": resnet.resnet_tiny,
    "resnet20": cifar_resnet.resnet20,
    "resnet32": cifar_resnet.resnet32,
    "resnet44": cifar_resnet.resnet44,
    "resnet56": cifar_resnet.resnet56,
}
NAMES: tuple[str, ...] = tuple(_BACKBONES)


def create(config: ConfigDict, num_classes: int) -> Classifier:
    """Builds and initialises the model of `config.model` for images of `config.data.image_size`, seeded by `config.seed`.

    Raises:
      UserError: for an unknown name, a sigmoid output with other than two classes, and images too small for the model.
    """
    name, dtype = config.model.name, jnp.dtype(config.model.dtype)
    if name not in _BACKBONES:
        raise UserError(f"config.model.name={name!r} is not a model; {nearest(name, NAMES)}")
    sigmoid = config.model.output == "sigmoid"
    if sigmoid and num_classes != 2:
        raise UserError(f"config.model.output='sigmoid' needs two classes, the data have {num_classes}; use 'softmax'.")
    rngs = nnx.Rngs(config.seed)
    options: dict[str, Any] = config.model.cnn.to_dict() if name == "cnn" else {}
    head = {key: options.pop(key) for key in ("flatten", "maps_dropout", "dense", "dropout") if key in options}
    backbone = _BACKBONES[name](**options, dtype=dtype, rngs=rngs)
    map_size = backbone.map_size(*config.data.image_size)
    if min(map_size) < 1:
        height, width = config.data.image_size
        raise UserError(f"config.data.image_size=({height}, {width}) is too small for config.model.name={name!r}; use larger images.")
    outputs = 1 if sigmoid else num_classes
    return Classifier(backbone, Head(map_size, backbone.features, outputs, **head, dtype=dtype, rngs=rngs), dtype=dtype)


__all__ = ["NAMES", "Classifier", "create"]
