"""Export to timm's names: a file that `timm.create_model` takes, strictly, with the arguments that make its network this one.

The conversion tables by which timm's weights come in (imgclf/models/weights) are read backwards. What timm computes as this network does
only when told so, such as another epsilon, stands in `model_args` of config.json, which has the form of timm's repositories on the Hugging
Face hub: `timm.create_model("local-dir:FOLDER", pretrained=True)` needs nothing else. timm's own code: timm/models/_factory.py and _hub.py
of https://github.com/huggingface/pytorch-image-models.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from imgclf import files
from imgclf.data.augment import Preprocessing
from imgclf.errors import UserError
from imgclf.exports import folder, process
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable
from imgclf.exports.formats import UNASKED, Answers, Format
from imgclf.exports.naming import EPSILON, WAY_OUT, adapted, own_variant, program_of, published, read_back, telling
from imgclf.exports.program import network
from imgclf.models import registry
from imgclf.models.heads import DenseHead
from imgclf.models.network import Network
from imgclf.models.vgg import VGGHead
from imgclf.models.vit import VisionTransformer, resampled_positions
from imgclf.models.weights import conversion, inversion
from imgclf.models.weights.conversion import Rule, Tree

MODEL_FILE, CONFIG, NETWORK = "model.safetensors", "config.json", "timm_network.py"

_UNPUBLISHED = {"mobilenet_v2_035": "mobilenetv2_035", "mobilenet_v2_075": "mobilenetv2_075"}  # networks that timm has without weights
_BUILT = ("mobilenetv", "efficientnet", "tf_efficientnet")  # architectures whose epsilon and padding are arguments in timm
_CONV_MLP = ("convnext_nano", "convnextv2_nano")  # those whose dense layers are 1x1 convolutions in timm
_POOLS = {"token": "token", "average": "avg", "attention": "map"}
# The layers of the heads that timm's networks have, by the beginning of their names; of all others "logits" alone.
_HEADS = {
    "convnext": {"norm", "logits"},
    "mobilenetv3": {"hidden", "logits"},
    "mobilenetv4": {"hidden", "bn", "logits"},
    "vgg": {"fc1", "fc2", "logits"},
}
_HIDDEN = 1280  # units of MobileNetV3's and V4's hidden layer in timm


@dataclasses.dataclass(frozen=True)
class _Target:
    """timm's network: its name, the table of its names, the arguments that it is made with, and by how much its epsilon is too small."""

    architecture: str
    rules: tuple[Rule, ...]
    model_args: dict[str, Any]
    epsilon: float


def _target(exportable: Exportable, model: Network) -> _Target:
    """Finds timm's network.

    Raises:
      UserError: where it has none that computes the same.
    """
    name = exportable.config.model.name
    architecture, variant, layout = _nearest(exportable)
    ours = own_variant(exportable)
    arguments: dict[str, Any] = {"num_classes": len(exportable.class_names)}
    epsilon = 0.0
    for key in sorted(key for key in ours.keys() | variant.keys() if ours.get(key) != variant.get(key)):
        if key == "epsilon" and architecture.startswith(_BUILT):
            arguments["bn_eps"] = ours.get(key, EPSILON)
        elif key == "padding" and architecture.startswith(_BUILT):
            arguments["pad_type"] = "same" if ours.get(key) == "same" else ""
        elif key == "epsilon" and isinstance(ours.get(key), float):
            epsilon = ours[key] - variant.get(key, EPSILON)
        elif key != "pool":  # of Vision Transformers, see _arguments_of_vit
            raise UserError(f"timm's {architecture} is no {name!r} with {key}={ours.get(key)!r} (config.model.variant): {WAY_OUT}")
    if isinstance(model.backbone, VisionTransformer):
        arguments |= _arguments_of_vit(exportable, model.backbone, architecture)
    arguments |= _arguments_of_head(model, set(exportable.params["head"]), architecture)
    return _Target(architecture, registry.family(name).conversion[layout], arguments, epsilon)


def _nearest(exportable: Exportable) -> tuple[str, dict[str, Any], str]:
    """timm's name of the network, the options of ours that are the same, and the layout of its files."""
    name, entries = exportable.config.model.name, published(exportable, "timm")
    if name in _UNPUBLISHED:
        return _UNPUBLISHED[name], {}, "timm"
    if not entries:
        raise UserError(f"timm has no {name!r}: {WAY_OUT}")
    entry = next((entry for entry in entries if telling(entry.variant) == own_variant(exportable)), entries[0])
    return entry.name.removeprefix("timm/").split(".")[0], telling(entry.variant), entry.layout


def _arguments_of_vit(exportable: Exportable, backbone: VisionTransformer, architecture: str) -> dict[str, Any]:
    pool = _POOLS[backbone.architecture.pool]
    eva = backbone.architecture.grid == 0  # timm has rotary positions in another class, with another name of this argument
    unnormalized = {"use_fc_norm" if eva else "fc_norm": False} if pool == "avg" else {}  # its own way is to normalise after pooling
    if pool == "map" and not architecture.endswith("siglip_224"):
        raise UserError(f"timm's {architecture} has no attention pooling: {WAY_OUT}")
    return {"img_size": list(exportable.size), "global_pool": pool, **unnormalized}


def _arguments_of_head(model: Network, have: set[str], architecture: str) -> dict[str, Any]:
    """`have`: the names of the head's layers."""
    wanted = next((layers for start, layers in _HEADS.items() if architecture.startswith(start)), {"logits"})
    head = model.head
    pool = head.pool if isinstance(head, DenseHead) else "average"
    if isinstance(head, DenseHead) and (head.normalize or pool == "flatten" or have != {"logits"}):
        raise UserError(f"timm's {architecture} has no head like this run's (config.model.head): {WAY_OUT}")
    if have != wanted and not (have == {"logits"} and "hidden" in wanted):
        raise UserError(
            f"timm's {architecture} has {', '.join(sorted(wanted - have)) or 'nothing'} before its last layer, this run's head has "
            f"{', '.join(sorted(have - {'logits'})) or 'nothing'} there (config.model.head.kind): {WAY_OUT}"
        )
    if pool == "average":
        return {}
    if wanted != {"logits"} or isinstance(model.backbone, VisionTransformer):
        raise UserError(f"timm's {architecture} can't pool by average and maximum (config.model.head): {WAY_OUT}")
    return {"global_pool": "catavgmax"}


# ---- parameters ----


def _adapted(exportable: Exportable, model: Network, target: _Target) -> tuple[Tree, Tree]:
    """The parameters and statistics of timm's network, by our names: what our network has otherwise, in its terms."""
    params, stats = adapted(exportable, target.epsilon)
    if isinstance(model.backbone, VisionTransformer) and "backbone/embedding/position" in params:
        path = "backbone/embedding/position"
        params[path] = _positions(params[path], exportable.size, model.backbone)
    if set(exportable.params["head"]) == {"logits"} and target.architecture.startswith(("mobilenetv3", "mobilenetv4")):
        _insert_identity(params, stats, biased=target.architecture.startswith("mobilenetv3"))
    return conversion.nest(params), conversion.nest(stats)


def _positions(position: np.ndarray, size: tuple[int, int], backbone: VisionTransformer) -> np.ndarray:
    """Position embeddings [N,D] of the images' own size: timm's network is made for one size, ours interpolates."""
    kind = backbone.architecture
    first, grid = np.split(position, [len(position) - kind.grid**2])
    resampled = resampled_positions(jnp.asarray(grid), kind.grid, size[0] // kind.patch, size[1] // kind.patch)
    return np.concatenate([first, np.asarray(resampled)])


def _insert_identity(params: dict[str, np.ndarray], stats: dict[str, np.ndarray], *, biased: bool) -> None:
    """Gives a head without a hidden layer the one that timm's network always has, so that it changes nothing.

    The averaged maps x of MobileNetV4 are not negative, so that ReLU after an identity leaves them alone, and so does a batch
    normalisation of mean 0 and variance 1 − epsilon. Those of MobileNetV3 come from hard-swish, whose least value is −0.375; of z of 3 and
    more, hard-swish is z itself. So its layer adds 4, and the last layer's bias takes 4 times its weights off again.
    """
    kernel, bias = params["head/logits/kernel"], params["head/logits/bias"]
    features = len(kernel)
    params["head/hidden/kernel"] = np.eye(features, _HIDDEN, dtype=np.float32)
    params["head/logits/kernel"] = np.pad(kernel, ((0, _HIDDEN - features), (0, 0)))
    if biased:
        params["head/hidden/bias"] = np.where(np.arange(_HIDDEN) < features, np.float32(4), np.float32(0))
        params["head/logits/bias"] = (bias - 4 * kernel.sum(0, dtype=np.float64)).astype(np.float32)
        return
    params["head/bn/scale"], params["head/bn/bias"] = np.ones(_HIDDEN, np.float32), np.zeros(_HIDDEN, np.float32)
    stats["head/bn/mean"], stats["head/bn/var"] = np.zeros(_HIDDEN, np.float32), np.full(_HIDDEN, 1 - EPSILON, np.float32)


def _tensors(params: Tree, stats: Tree, target: _Target) -> dict[str, np.ndarray]:
    """The tensors of timm's file."""
    tensors = inversion.invert(params, stats, target.rules)
    if target.architecture in _CONV_MLP:
        tensors |= {name: value[:, :, None, None] for name, value in tensors.items() if ".mlp.fc" in name and value.ndim == 2}
    counted = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    return tensors | {f"{name}num_batches_tracked": np.zeros((), np.int64) for name in counted}


# ---- config.json ----


def _hub_config(exportable: Exportable, model: Network, target: _Target, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """config.json as timm's repositories have it; "imgclf" is for timm_network.py alone."""
    shown, data, names = Preprocessing.of(exportable.config), exportable.config.data, list(exportable.class_names)
    first = next(name for name, value in tensors.items() if value.ndim == 4 and value.shape[1] == 3)
    last = next(name for name in reversed(_by_rules(target.rules, tensors)))
    pretrained: dict[str, Any] = {
        "tag": exportable.name,
        "custom_load": False,
        "input_size": [3, *exportable.size],
        "fixed_input_size": isinstance(model.backbone, VisionTransformer),
        "interpolation": shown.interpolation,
        "crop_pct": shown.crop_fraction if shown.resize == "crop" else 1.0,
        "crop_mode": {"crop": "center", "squash": "squash", "pad": "border"}[shown.resize],
        "mean": list(data.mean),
        "std": list(data.std),
        "num_classes": len(names),
        "first_conv": first.removesuffix(".weight"),
        "classifier": last.removesuffix(".weight"),
    }
    if exportable.licence:
        pretrained["license"] = exportable.licence["licence"]
    return {
        "architecture": target.architecture,
        "num_classes": len(names),
        "num_features": model.backbone.features,
        "global_pool": target.model_args.get("global_pool", "avg"),
        "label_names": names,
        "model_args": target.model_args,
        "pretrained_cfg": pretrained,
        "imgclf": {"flips": exportable.flips, "averages": "maps" if model.head.takes_features else "logits"},
    }


def _by_rules(rules: Sequence[Rule], names: Mapping[str, Any]) -> list[str]:
    """The names of the kernels of the last layer."""
    return [name for name in names if (found := conversion.match(name, rules)) is not None and found[0] == "head/logits/kernel"]


# ---- the format ----


def _check(exportable: Exportable, options: Options) -> None:
    del options
    _nearest(exportable)  # before the network is built
    model = network(exportable)
    target = _target(exportable, model)
    if isinstance(model.head, VGGHead) and max(model.backbone.map_size(*exportable.size)) > max(model.head.pool_size):
        raise UserError(
            f"timm's {target.architecture} does not average maps of images of more than 224 pixels as this run's head does: {WAY_OUT}"
        )


def _write(exportable: Exportable, place: Path, options: Options) -> dict[str, Any]:
    del options
    model = network(exportable)
    target = _target(exportable, model)
    params, stats = _adapted(exportable, model, target)
    tensors = _tensors(params, stats, target)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, place / MODEL_FILE, {"format": "pt"})
    read_back(place / MODEL_FILE, target.rules, params, stats)
    files.write_json(place / CONFIG, _hub_config(exportable, model, target, tensors))
    return {"timm": {"architecture": target.architecture, "model_args": target.model_args}}


def _answers(place: Path, images: np.ndarray, options: Options) -> Answers:
    if not options.python and not all(importlib.util.find_spec(name) for name in ("timm", "torch")):
        return UNASKED
    return process.answers(place, images, program_of(NETWORK), ("imgclf", "jax", "flax"), options)


FORMAT = Format("timm", MODEL_FILE, (folder.PREPROCESS, folder.PREDICT, NETWORK), _check, _write, _answers)
