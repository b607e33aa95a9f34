"""Classifiers of random parameters for the export: as many classes and as small images as a test likes, and nothing is trained."""

import math
from typing import Any

import jax
import numpy as np
import pandas as pd
import random_weights
from flax import nnx

from imgclf import config as config_lib
from imgclf import models
from imgclf.exports.exportable import Exportable
from imgclf.exports.pictures import Pictures
from imgclf.exports.program import program
from imgclf.models import forms
from imgclf.models.weights import conversion, pretrained

KERAS = "padding='same', epsilon=0.001, momentum=0.99, unbiased=False"  # MobileNetV2 and EfficientNet as Keras has them


def exportable(
    model: str, variant: str = "", *, size: tuple[int, int] = (64, 96), classes: int = 5, zeros: bool = False, **fields: Any
) -> Exportable:
    """A network with numbers that keep its activations in bounds, or with zeros that take no memory.

    `fields` are of config.model, such as {"head.kind": "family"}.
    """
    config = config_lib.default_config()
    config.model.name, config.model.variant, config.data.image_size = model, variant, size
    config.model.update_from_flattened_dict(fields)
    config = pretrained.resolve(config, classes)
    abstract = nnx.eval_shape(lambda: models.create(config, classes, load_weights=False))
    trees = [conversion.flatten(nnx.to_pure_dict(nnx.state(abstract, kind))) for kind in (nnx.Param, nnx.BatchStat)]

    def leaf_of(path: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape) if zeros else _numbers(path, shape, model)

    params, stats = (conversion.nest({path: leaf_of(path, leaf.shape) for path, leaf in tree.items()}) for tree in trees)
    names = tuple(f"class {number}" for number in range(classes))
    pictures = Pictures(config, pd.DataFrame({"id": []}), None, "no images")
    return Exportable("run", config, names, params, stats, 1.0, (), None, None, None, pictures, _not_asked, "0")


def _not_asked(images: np.ndarray) -> Any:
    raise AssertionError("the classifier itself is not asked in this test")


def _numbers(path: str, shape: tuple[int, ...], model: str) -> np.ndarray:
    leaf = path.rsplit("/", 1)[-1]
    names = {"mean": "running_mean", "var": "running_var", "position": "pos_embed", "class_token": "cls_token", "registers": "reg_token"}
    name = f"{path.rpartition('/')[0].replace('/', '.')}.{names.get(leaf, leaf)}"
    depthwise = len(shape) == 4 and shape[2] == 1
    fan_in = math.prod(shape[:2] if depthwise else shape[:-1])
    return random_weights.tensor(name, shape, fan_in=max(1, fan_in), gain=random_weights.gain(model))


def images(size: tuple[int, int], count: int = 2) -> np.ndarray:
    """uint8 [N,H,W,3]."""
    return np.clip(50 * random_weights.images(count, *size) + 128, 0, 255).astype(np.uint8)


def logits(classifier: Exportable, shown: np.ndarray) -> np.ndarray:
    """What the network says of images, float32 [N,C]."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    with forms.portable("every platform"):
        lowered = jax.jit(program(classifier)).lower(jax.ShapeDtypeStruct(shown.shape, np.uint8))
    return np.asarray(lowered.compile(options)(shown)["logits"])
