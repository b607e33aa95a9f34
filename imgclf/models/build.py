"""Builds the network that a config asks for, with fresh parameters or with published weights."""

import inspect
import json
import logging
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.config import Config, parse_arguments
from imgclf.errors import UserError
from imgclf.models import forms, layers, registry
from imgclf.models.backbone import Backbone
from imgclf.models.heads import DenseHead, Head, NormHead
from imgclf.models.network import Network
from imgclf.models.weights import conversion, pretrained
from imgclf.models.weights.conversion import Weights

_log = logging.getLogger(__name__)


Shardings = Callable[[Any], Any]  # a tree of the shapes of parameters or statistics, under their paths → where each of them lies


def create(
    config: Config,
    num_classes: int,
    *,
    load_weights: bool = True,
    tell: Callable[[str], None] = _log.info,
    shardings: Shardings | None = None,
) -> Network:
    """Builds the network of `config.model` for images of `config.data.image_size`; initialised by `config.seed`, or from `model.weights`.

    What it computes in depends on the devices that it is for: those of `forms.on_devices_of`, else this process's own.

    Args:
      config: the whole config, resolved (`methods.resolve`).
      num_classes: of the data.
      load_weights: False leaves out reading `model.weights`: for a network whose parameters come from elsewhere.
      tell: is given what the user should know: which head is new, normalisation other than the weights' own, and a licence
        that forbids commercial use.
      shardings: where parameters and statistics are made, so that no device ever has more of them than its part; None = on one device.

    Raises:
      UserError: for an unknown name, a builder of the user's own that can't be imported or doesn't return a backbone, weights that can't be
        had or don't fit, a sigmoid output with other than two classes, and images too small for the network.
    """
    _check(config, num_classes)

    def build() -> Network:
        return _build(config, num_classes, nnx.Rngs(config.seed))

    if config.model.weights == "none" or not load_weights:
        return build() if shardings is None else _made_split(build, shardings)
    entry = pretrained.find(config.model.weights, config.model.name)
    loaded = _with_weights(config, entry, num_classes, tell)
    if shardings is None:
        # jnp.asarray would compile a program for each shape: half a second of CPU for MobileNetV2
        trees = jax.device_put((loaded.params, loaded.batch_stats), may_alias=False)
        return nnx.merge(loaded.graphdef, *map(nnx.State, trees))
    placed = (jax.tree.map(jax.device_put, tree, shardings(tree)) for tree in (loaded.params, loaded.batch_stats))
    return nnx.merge(loaded.graphdef, *map(nnx.State, placed))


def abstract(config: Config, num_classes: int) -> Network:
    """The network of `create` without weights, its parameters and statistics as shapes: nothing is computed.

    To trace a network takes a tenth of a second of CPU and more, and a run needs the shapes many times: those of a config and devices that
    were asked for lately are kept. Each caller gets a network of its own.

    Raises:
      UserError: as `create` without weights.
    """
    if config.model.name not in registry.NAMES:  # a builder of the user's own may have changed
        return nnx.eval_shape(lambda: create(config, num_classes, load_weights=False))
    of_model = config.model.to_dict() | {"weights": "none"}
    asked = json.dumps([of_model, list(config.data.image_size), bool(config.data.mean and config.data.std), config.seed], sort_keys=True)
    key = (asked, num_classes, forms.target(), forms.is_portable())
    if key not in _abstract:
        while len(_abstract) >= _KEPT:
            _abstract.pop(next(iter(_abstract)))
        _check(config, num_classes)
        _abstract[key] = nnx.split(nnx.eval_shape(lambda: _build(config, num_classes, _OneKey())))
    return nnx.merge(*_abstract[key])


_KEPT = 8
_abstract: dict[tuple[str, int, forms.Target, bool], tuple[nnx.GraphDef, nnx.State]] = {}


class _OneKey(nnx.Rngs):
    """Gives the same key to all, where only shapes are asked for: to trace the making of so many keys is most of tracing a network."""

    def __init__(self) -> None:
        super().__init__(0)
        self.only = super().__call__()

    def __call__(self) -> jax.Array:
        return self.only

    params = __call__


def _check(config: Config, num_classes: int) -> None:
    pretrained.check_name(config.model.name)
    if config.model.output == "sigmoid" and num_classes != 2:
        raise UserError(f"config.model.output='sigmoid' needs two classes, the data have {num_classes}; use 'softmax'.")
    head_is_open = config.model.head.kind == "auto" and config.model.name != "cnn"
    if head_is_open or config.model.variant == "auto" or not (config.data.mean and config.data.std):
        raise ValueError("models.create takes a config in which nothing is left to choose: what methods.resolve.resolve returns")


def _build(config: Config, num_classes: int, rngs: nnx.Rngs) -> Network:
    backbone = _build_backbone(config, rngs)
    if config.model.precision == "bf16" and forms.target().platform == "cpu":
        layers.use_bf16_products(backbone)
    network = Network(backbone, _build_head(config, backbone, num_classes, rngs), dtype=activation_dtype(config.model.precision))
    layers.group_batch_norms(network, config.model.batch_norm_group)
    if config.model.gradient_precision == "f32":
        layers.use_f32_gradients(network)
    return network


def _made_split(build: Callable[[], Network], shardings: Shardings) -> Network:
    """A fresh network of which each device makes its part."""
    graphdef, *like = nnx.split(nnx.eval_shape(build), nnx.Param, nnx.BatchStat)
    where = tuple(shardings(nnx.to_pure_dict(state)) for state in like)

    def make() -> tuple[Any, ...]:
        return tuple(nnx.to_pure_dict(nnx.state(made, kind)) for made in (build(),) for kind in (nnx.Param, nnx.BatchStat))

    return nnx.merge(graphdef, *map(nnx.State, jax.jit(make, out_shardings=where)()))


class _Loaded(NamedTuple):
    """A network's definition, and its parameters and statistics in this process's memory."""

    graphdef: nnx.GraphDef
    params: Any
    batch_stats: Any


def _with_weights(config: Config, entry: Weights, num_classes: int, tell: Callable[[str], None]) -> _Loaded:
    """The network with published weights; what of its head they don't have is fresh."""
    if (config.data.mean, config.data.std) != (entry.mean, entry.std):
        tell(f"config.data.mean and std are not the weights' own, {entry.mean} and {entry.std}; () takes those.")
    if not entry.commercial:
        tell(f"{entry.name}: the licence, {entry.licence}, forbids commercial use ({entry.source}).")
    like = abstract(config, num_classes)
    params_like, batch_stats_like = (nnx.to_pure_dict(nnx.state(like, kind)) for kind in (nnx.Param, nnx.BatchStat))
    kind = config.model.head.kind
    own_head = kind in ("linear", "norm", "family") and not config.model.head.normalize
    params, batch_stats, new = pretrained.load(entry, params_like, batch_stats_like, own_head=own_head)
    if new:
        head = _build_head(config, like.backbone, num_classes, nnx.Rngs(config.seed))
        params["head"] = nnx.to_pure_dict(nnx.state(head, nnx.Param)) | params.get("head", {})  # only whole layers are missing
        batch_stats["head"] = nnx.to_pure_dict(nnx.state(head, nnx.BatchStat))
        had = f"that of {entry.num_classes} classes is left out" if entry.num_classes else "the file has none"
        part = "head is" if new == "head/" else "head's last layer is"
        tell(f"{entry.name}: the {part} new ({kind}, {num_classes} classes; {had}).")
    return _Loaded(nnx.graphdef(like), params, batch_stats)


def activation_dtype(precision: str) -> Any:
    """The dtype of activations under `config.model.precision`; float32 on the CPU, where narrower ones are no faster and less exact."""
    return jnp.float32 if precision == "f32" or forms.target().platform == "cpu" else jnp.bfloat16


_CNN_HEAD = ("flatten", "maps_dropout", "dense", "dropout")  # fields of config.model.cnn that describe its head


def _build_backbone(config: Config, rngs: nnx.Rngs) -> Backbone:
    name = config.model.name
    options: dict[str, Any] = parse_arguments(config.model.variant, "model.variant")
    if name == "cnn":
        options |= {key: value for key, value in config.model.cnn.items() if key not in _CNN_HEAD}
    options |= {"dtype": activation_dtype(config.model.precision), "rngs": rngs}
    if name not in registry.NAMES:
        return _build_users_backbone(config, options)
    try:
        return registry.builder(name)(**options)
    except TypeError as error:
        if not config.model.variant:
            raise
        raise UserError(f"config.model.variant={config.model.variant!r} does not suit {name!r} ({error}); leave it at 'auto'.") from None


def _build_users_backbone(config: Config, options: dict[str, Any]) -> Backbone:
    """Calls a builder of the user's own and checks what it returns; an error inside it keeps its traceback."""
    field, build = f"config.model.name={config.model.name!r}", registry.builder(config.model.name)
    try:
        _signature(build).bind(**options)
    except TypeError as error:
        raise UserError(
            f"{field} can't be called with {', '.join(options)} ({error}): a builder takes dtype, rngs, and the arguments in "
            "config.model.variant."
        ) from None
    backbone = build(**options)
    if not isinstance(backbone, nnx.Module):
        raise UserError(f"{field} returns {type(backbone).__name__}, not a backbone; see imgclf.models.Backbone.")
    if lacking := [attribute for attribute in ("features", "map_size") if not hasattr(backbone, attribute)]:
        raise UserError(f"{field} returns a module without {' and '.join(lacking)}; see imgclf.models.Backbone.")
    others = nnx.state(backbone, nnx.Not(nnx.Any(nnx.Param, nnx.BatchStat)))
    if names := sorted(conversion.flatten(nnx.to_pure_dict(others))):
        raise UserError(
            f"{field} has variables ({', '.join(names)}) that are neither nnx.Param nor nnx.BatchStat, which training can't keep."
        )
    size = config.data.image_size
    stated = (*backbone.map_size(*size), backbone.features)
    if min(stated) > 0:
        image = jax.ShapeDtypeStruct((1, *size, 3), options["dtype"])
        maps = nnx.eval_shape(lambda backbone, image: backbone(image, train=False), backbone, image)
        if maps.shape[1:] != stated:
            raise UserError(f"{field} returns maps of shape {maps.shape[1:]}, but states {stated} by map_size and features.")
    return backbone


def _signature(build: Callable[..., Any]) -> inspect.Signature:
    """The signature of a builder; that of a class is its constructor's, which nnx.Module hides."""
    if not isinstance(build, type):
        return inspect.signature(build)
    signature = inspect.signature(operator.attrgetter("__init__")(build))
    return signature.replace(parameters=list(signature.parameters.values())[1:])  # without self


def _build_head(config: Config, backbone: Backbone, num_classes: int, rngs: nnx.Rngs) -> Head:
    height, width = config.data.image_size
    map_size = backbone.map_size(height, width)
    if min(map_size) < 1:
        name = config.model.name
        raise UserError(f"config.data.image_size=({height}, {width}) is too small for config.model.name={name!r}; use larger images.")
    kind, fields, cnn = config.model.head.kind, config.model.head, config.model.cnn
    outputs = 1 if config.model.output == "sigmoid" else num_classes
    dtype = activation_dtype(config.model.precision)
    published = registry.family(config.model.name).head
    if kind == "family" and published is not None:
        if outputs == 1:
            raise UserError("config.model.output='sigmoid' has no head.kind='family'; use head.kind='linear' or 'mlp'.")
        return published(map_size, backbone.features, outputs, dropout=fields.dropout, dtype=dtype, rngs=rngs)
    if kind == "norm":
        return NormHead(map_size, backbone.features, outputs, dropout=fields.dropout, rngs=rngs)
    options: dict[str, Any]
    if kind == "auto":
        pool = "flatten" if cnn.flatten else "average"
        options = {"pool": pool, "maps_dropout": cnn.maps_dropout, "dense": cnn.dense, "dropout": cnn.dropout}
    elif kind == "mlp":
        pool = "flatten" if fields.flatten else "average"
        options = {"pool": pool, "dense": fields.dense, "norm": fields.norm == "batch", "dropout": fields.dropout}
    else:
        options = {"pool": "avgmax" if kind == "avgmax" else "average", "features_dropout": fields.dropout}
    return DenseHead(map_size, backbone.features, outputs, **options, normalize=fields.normalize, dtype=dtype, rngs=rngs)
