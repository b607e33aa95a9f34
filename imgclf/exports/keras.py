"""Export to Keras's names: a .weights.h5 that the networks of keras.applications load.

The conversion tables by which Keras's weights come in (imgclf/models/weights) are read backwards. In the file of Keras 3, layers are
counted by their class in the order of `model.layers`, which imgclf/models/keras_layers.py knows: keras/src/saving/saving_lib.py, version
3.6 and later.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from imgclf import files
from imgclf.errors import UserError
from imgclf.exports import folder, process
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable
from imgclf.exports.formats import UNASKED, Answers, Format
from imgclf.exports.naming import EPSILON, WAY_OUT, adapted, own_variant, program_of, published, read_back, telling
from imgclf.exports.program import network
from imgclf.models import keras_layers, registry
from imgclf.models.convnext import ConvNeXt
from imgclf.models.heads import DenseHead
from imgclf.models.network import Network
from imgclf.models.vgg import VGGHead
from imgclf.models.weights import conversion, inversion
from imgclf.models.weights.conversion import Rule, Tree

MODEL_FILE, DESCRIPTION, NETWORK = "model.weights.h5", "keras.json", "keras_network.py"

_PLAIN: dict[str, Any] = {"include_preprocessing": False}  # its layer for pixels' values: mean and std are outside
# our name → Keras's builder, and its arguments
_BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"vgg{depth}": (f"VGG{depth}", {}) for depth in (16, 19)},
    **{f"resnet{depth}": (f"ResNet{depth}", {}) for depth in (50, 101, 152)},
    **{f"densenet{depth}": (f"DenseNet{depth}", {}) for depth in (121, 169, 201)},
    **{f"efficientnet_{size}": (f"EfficientNet{size.upper()}", {}) for size in ("b0", "b1", "b2", "b3", "b4")},
    **{f"efficientnet_v2_{size}": (f"EfficientNetV2{size.upper()}", _PLAIN) for size in ("s", "m")},
    **{f"convnext_{size}": (f"ConvNeXt{size.capitalize()}", _PLAIN) for size in ("tiny", "small", "base")},
    "mobilenet_v2": ("MobileNetV2", {"alpha": 1.0}),
    **{f"mobilenet_v2_{width:03}": ("MobileNetV2", {"alpha": width / 100}) for width in (35, 50, 75, 130, 140)},
    "inception_v3": ("InceptionV3", {}),
    "xception": ("Xception", {}),
}
# The order of a layer's variables in the file, by their names; of all others kernel and bias.
_ORDER = ("depthwise_kernel", "pointwise_kernel", "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True)
class _Target:
    """Keras's network: its builder with arguments, the table of its names, and by how much its epsilon is less than ours."""

    builder: str
    arguments: dict[str, Any]
    rules: tuple[Rule, ...]
    epsilon: float


def _target(exportable: Exportable, model: Network) -> _Target:
    """Finds Keras's network.

    Raises:
      UserError: where it has none that computes the same.
    """
    builder, entry = _named(exportable), published(exportable, "keras")[0]
    _check_head(exportable, model, builder)
    ours, theirs = own_variant(exportable), telling(entry.variant)
    epsilon = ours.get("epsilon", EPSILON) - theirs.get("epsilon", EPSILON)
    name = exportable.config.model.name
    return _Target(builder, _BUILDERS[name][1], registry.family(name).conversion[entry.layout], epsilon)


def _named(exportable: Exportable) -> str:
    """The builder of Keras's network; raises as `_target` does."""
    name, entries = exportable.config.model.name, published(exportable, "keras")
    if name not in _BUILDERS or not entries:
        raise UserError(f"keras.applications has no {name!r}: {WAY_OUT}")
    builder, ours, theirs = _BUILDERS[name][0], own_variant(exportable), telling(entries[0].variant)
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if others := [key for key in differing if key != "epsilon"]:
        told = ", ".join(f"{key}={theirs.get(key, 'the default')!r} where this run has {ours.get(key, 'the default')!r}" for key in others)
        raise UserError(
            f"Keras's {builder} is another network than this run's: it has {told} (config.model.variant; of weights by another library): "
            f"{WAY_OUT}"
        )
    return builder


def _check_head(exportable: Exportable, model: Network, builder: str) -> None:
    have, head = set(exportable.params["head"]), model.head
    wanted = {"fc1", "fc2", "logits"} if builder.startswith("VGG") else {"norm", "logits"} if builder.startswith("ConvNeXt") else {"logits"}
    if have != wanted or (isinstance(head, DenseHead) and (head.normalize or head.pool != "average")):
        raise UserError(f"Keras's {builder} has no head like this run's (config.model.head): {WAY_OUT}")
    if isinstance(head, VGGHead) and head.pool_size != model.backbone.map_size(*exportable.size):
        raise UserError(f"Keras's {builder} does not average maps before its head, which this run's head does: {WAY_OUT}")


# ---- the file ----


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer with its variables in the order of the file; `inside`: the Sequential that it is in, "" = none."""

    name: str
    kind: str
    values: tuple[np.ndarray, ...]
    inside: str = ""


def _layers(exportable: Exportable, model: Network, target: _Target, params: Tree, stats: Tree) -> list[_Layer]:
    """The layers with variables, in Keras's order."""
    prefix = exportable.config.model.name
    tensors = inversion.invert(params, stats, target.rules, prefix=prefix)
    variables: dict[str, dict[str, np.ndarray]] = {}
    places: dict[str, str] = {}
    for name, value in tensors.items():
        layer, variable = name.split("/")
        variables.setdefault(layer, {})[variable] = value
        found = conversion.match(name, target.rules)
        places[layer] = "" if found is None or found[0] is None else found[0]
    order = {path: number for number, path in enumerate(keras_layers.of(exportable.config.model.name)) if path}
    stems = isinstance(model.backbone, ConvNeXt)
    return [_layer(name, variables[name], _inside(places[name]) if stems else "") for name in sorted(variables, key=_ranks(places, order))]


def _ranks(places: dict[str, str], order: dict[str, int]) -> Any:
    """A key that sorts layers, by name, as Keras orders them; what is in a head comes last, its normalisation before its output."""
    heads = ("head/norm", "head/fc1", "head/fc2", "head/logits")

    def rank(name: str) -> tuple[int, int]:
        place = places[name]
        if place.startswith("head/"):
            return len(order) * 1000, next(i for i, head in enumerate(heads) if place.startswith(head))
        path = place.removeprefix("backbone/")
        while path not in order:  # a part of a layer, such as the depthwise kernel of a separable convolution
            path = path.rpartition("/")[0]
        return order[path], 0

    return rank


def _inside(place: str) -> str:
    """The Sequential of ConvNeXt's stem or downsampling that a layer is in."""
    part = place.split("/")[1]
    return part if part == "stem" or part.startswith("downsample") else ""


def _layer(name: str, variables: dict[str, np.ndarray], inside: str) -> _Layer:
    given = [variable for variable in _ORDER if variable in variables] or list(variables)
    values = tuple(variables[variable] for variable in given)
    if "pointwise_kernel" in variables:
        kind = "separable_conv2d"
    elif "depthwise_kernel" in variables:
        kind = "depthwise_conv2d"
    elif "moving_mean" in variables:
        kind = "batch_normalization"
    elif "kernel" in variables:
        kind = "dense" if variables["kernel"].ndim == 2 else "conv2d"
    else:
        kind = "layer_normalization" if "beta" in variables else "layer_scale"
    return _Layer(name, kind, values, inside)


def _write_file(path: Path, layers: Sequence[_Layer], normalization: tuple[np.ndarray, ...]) -> None:
    """Writes layers/CLASS_NUMBER/vars/0, …, with the layer's name as an attribute; `normalization` are the variables of that layer."""
    counts: dict[str, int] = {}

    def numbered(group: str, kind: str) -> str:
        number = counts[f"{group}/{kind}"] = counts.get(f"{group}/{kind}", -1) + 1
        return f"{group}/{kind}_{number}" if number else f"{group}/{kind}"

    sequentials: dict[str, str] = {}
    with h5py.File(path, "w") as file:
        everything = [*([_Layer("normalization", "normalization", normalization)] if normalization else []), *layers]
        for layer in everything:
            group = "layers"
            if layer.inside:
                if layer.inside not in sequentials:
                    sequentials[layer.inside] = numbered("layers", "sequential")
                group = f"{sequentials[layer.inside]}/layers"
            place = file.create_group(f"{numbered(group, layer.kind)}/vars")
            place.attrs["name"] = layer.name
            for number, value in enumerate(layer.values):
                place.create_dataset(str(number), data=value)


def _normalization(exportable: Exportable, target: _Target) -> tuple[np.ndarray, ...]:
    """Mean, variance and count of the layer that EfficientNet has for pixels on [0, 1]."""
    if not _normalizes(target):
        return ()
    mean, std = (np.array(values, np.float32) for values in (exportable.config.data.mean, exportable.config.data.std))
    return mean, np.square(std), np.zeros((), np.int64)


def _normalizes(target: _Target) -> bool:
    return target.builder.startswith("EfficientNetB")


# ---- the format ----


def _check(exportable: Exportable, options: Options) -> None:
    del options
    _named(exportable)  # before the network is built
    _target(exportable, network(exportable))


def _write(exportable: Exportable, place: Path, options: Options) -> dict[str, Any]:
    del options
    model = network(exportable)
    target = _target(exportable, model)
    params, stats = map(conversion.nest, adapted(exportable, target.epsilon))
    layers = _layers(exportable, model, target, params, stats)
    _write_file(place / MODEL_FILE, layers, _normalization(exportable, target))
    read_back(place / MODEL_FILE, target.rules, params, stats)
    reversed_channels = any(transform is conversion.bgr for _, _, transform in target.rules)
    about = {
        "builder": target.builder,
        "arguments": {"classes": len(exportable.class_names), "input_shape": [*exportable.size, 3], **target.arguments},
        "pixels": "0 to 255" if _normalizes(target) else "bgr" if reversed_channels else "rgb",
        "mean": list(exportable.config.data.mean),
        "std": list(exportable.config.data.std),
        "class_names": list(exportable.class_names),
        "flips": exportable.flips,
    }
    files.write_json(place / DESCRIPTION, about)
    return {"keras": {"builder": target.builder, "arguments": about["arguments"]}}


def _answers(place: Path, images: np.ndarray, options: Options) -> Answers:
    if not options.python and not importlib.util.find_spec("keras"):
        return UNASKED
    return process.answers(place, images, program_of(NETWORK), ("imgclf",), options)


FORMAT = Format("keras", MODEL_FILE, (folder.PREPROCESS, folder.PREDICT, NETWORK), _check, _write, _answers)
