"""The models, by name: `create` builds the one that a config asks for."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.config import Config, parse_arguments
from imgclf.errors import UserError
from imgclf.models import layers, registry
from imgclf.models.classifier import Classifier, Head, NormHead
from imgclf.models.registry import BACKBONES, NAMES  # new models: a line in registry.py
from imgclf.models.weights import pretrained

_log = logging.getLogger(__name__)


def create(config: Config, num_classes: int, *, load_weights: bool = True, tell: Callable[[str], None] = _log.info) -> Classifier:
    """Builds the model of `config.model` for images of `config.data.image_size`; initialised by `config.seed`, or from `model.weights`.

    Args:
      config: the whole config, resolved by `pretrained.resolve` or not.
      num_classes: of the data.
      load_weights: False leaves out reading `model.weights`: for a model whose parameters come from elsewhere.
      tell: is given what the user should know: which head is new, and normalisation other than the weights' own.

    Raises:
      UserError: for an unknown name, weights that can't be had or don't fit, a sigmoid output with other than two classes, and images
        too small for the model.
    """
    name = config.model.name
    pretrained.check_name(name)
    if config.model.output == "sigmoid" and num_classes != 2:
        raise UserError(f"config.model.output='sigmoid' needs two classes, the data have {num_classes}; use 'softmax'.")
    config = pretrained.resolve(config, num_classes)

    def build() -> Classifier:
        rngs = nnx.Rngs(config.seed)
        backbone = _build_backbone(config, rngs)
        if config.model.precision == "bf16" and _on_cpu():
            layers.use_bf16_products(backbone)
        return Classifier(backbone, _build_head(config, backbone, num_classes, rngs), dtype=activation_dtype(config.model.precision))

    if config.model.weights == "none" or not load_weights:
        return build()
    entry = pretrained.find(config.model.weights, name)
    if (config.data.mean, config.data.std) != (entry.mean, entry.std):
        tell(f"config.data.mean and std are not the weights' own, {entry.mean} and {entry.std}; () takes those.")
    abstract = nnx.eval_shape(build)
    graphdef, params_like, batch_stats_like = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    likes = nnx.to_pure_dict(params_like), nnx.to_pure_dict(batch_stats_like)
    kind = config.model.head.kind
    params, batch_stats, new = pretrained.load(entry, *likes, own_head=kind in ("linear", "norm", "family"))
    if new:
        head = _build_head(config, abstract.backbone, num_classes, nnx.Rngs(config.seed))
        _, head_params, head_stats = nnx.split(head, nnx.Param, nnx.BatchStat)
        params["head"] = nnx.to_pure_dict(head_params) | params.get("head", {})  # only whole layers are missing
        batch_stats["head"] = nnx.to_pure_dict(head_stats)
        had = f"that of {entry.num_classes} classes is left out" if entry.num_classes else "the file has none"
        part = "head is" if new == "head/" else "head's last layer is"
        tell(f"{entry.name}: the {part} new ({kind}, {num_classes} classes; {had}).")
    return nnx.merge(graphdef, nnx.State(jax.tree.map(jnp.asarray, params)), nnx.State(jax.tree.map(jnp.asarray, batch_stats)))


def activation_dtype(precision: str) -> Any:
    """The dtype of activations under `config.model.precision`: the CPU gains nothing from narrow ones, and loses exactness."""
    return jnp.float32 if precision == "f32" or _on_cpu() else jnp.bfloat16


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


_CNN_HEAD = ("flatten", "maps_dropout", "dense", "dropout")


def _build_backbone(config: Config, rngs: nnx.Rngs) -> nnx.Module:
    name = config.model.name
    options: dict[str, Any] = parse_arguments(config.model.variant, "model.variant")
    if name == "cnn":
        options |= {key: value for key, value in config.model.cnn.items() if key not in _CNN_HEAD}
    try:
        return BACKBONES[name](**options, dtype=activation_dtype(config.model.precision), rngs=rngs)
    except TypeError as error:
        if not config.model.variant:
            raise
        raise UserError(f"config.model.variant={config.model.variant!r} does not suit {name!r} ({error}); leave it at 'auto'.") from None


def _build_head(config: Config, backbone: nnx.Module, num_classes: int, rngs: nnx.Rngs) -> nnx.Module:
    height, width = config.data.image_size
    map_size = backbone.map_size(height, width)
    if min(map_size) < 1:
        name = config.model.name
        raise UserError(f"config.data.image_size=({height}, {width}) is too small for config.model.name={name!r}; use larger images.")
    kind, fields = config.model.head.kind, config.model.head
    outputs = 1 if config.model.output == "sigmoid" else num_classes
    dtype = activation_dtype(config.model.precision)
    own = getattr(registry.family(config.model.name), "head", None)
    if kind == "family" and own is not None:
        if outputs == 1:
            raise UserError("config.model.output='sigmoid' has no head.kind='family'; use head.kind='linear' or 'mlp'.")
        return own(map_size, backbone.features, outputs, dropout=fields.dropout, dtype=dtype, rngs=rngs)
    if kind == "norm":
        return NormHead(map_size, backbone.features, outputs, dropout=fields.dropout, rngs=rngs)
    if kind == "auto":
        cnn = config.model.cnn
        pool = "flatten" if cnn.flatten else "average"
        options = {"pool": pool, "maps_dropout": cnn.maps_dropout, "dense": cnn.dense, "dropout": cnn.dropout}
    elif kind == "mlp":
        pool = "flatten" if fields.flatten else "average"
        options = {"pool": pool, "dense": fields.dense, "norm": fields.norm == "batch", "dropout": fields.dropout}
    else:
        options = {"pool": "avgmax" if kind == "avgmax" else "average", "features_dropout": fields.dropout}
    return Head(map_size, backbone.features, outputs, **options, dtype=dtype, rngs=rngs)


__all__ = ["NAMES", "Classifier", "create"]
