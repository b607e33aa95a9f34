"""The models by name.

A family of models is a file of this package and its line in FAMILIES. The file exports

- MODELS: what it builds, by name (backbone.Model);

and, where it has them,

- WEIGHTS: published weights, a tuple of conversion.Weights;
- CONVERSION: for each layout of those, the table that turns a file's tensors into ours;
- HEAD: the builder of the head that its networks were published with, where that is not a linear layer on averaged maps; it is called with
  (map_size, features, outputs, dropout=, dtype=, rngs=) and returns a heads.Head;
- NEW_HEAD: the `model.head.kind` of a head for other classes, where that is not "linear".

A model of the user's own needs no line here: `config.model.name="my_module:build"` names a builder in a module that Python can import.
The same module may export WEIGHTS, CONVERSION, HEAD and NEW_HEAD; its WEIGHTS give the builder's name, "build", as their `model`.
"""

import dataclasses
import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from imgclf.config import user_code
from imgclf.errors import UserError, nearest
from imgclf.models.backbone import Builder, Model
from imgclf.models.heads import Head
from imgclf.models.weights.conversion import Rule, Weights

FAMILIES = (
    "cnn",
    "resnet",
    "cifar_resnet",
    "airbench",
    "resnext",
    "regnet",
    "mobilenet_v2",
    "mobilenet_v3",
    "mobilenet_v4",
    "squeezenet",
    "convnext",
    "convnext_v2",
    "efficientnet",
    "efficientnet_v2",
    "vgg",
    "inception_v3",
    "xception",
    "densenet",
    "vit",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """What the module of a family exports."""

    models: Mapping[str, Model]
    weights: tuple[Weights, ...]
    conversion: Mapping[str, tuple[Rule, ...]]
    head: Callable[..., Head] | None
    new_head: str


def _family(module: ModuleType, models: Mapping[str, Model], weights: tuple[Weights, ...]) -> Family:
    conversion, head = getattr(module, "CONVERSION", {}), getattr(module, "HEAD", None)
    return Family(models, weights, conversion, head, getattr(module, "NEW_HEAD", "linear"))


def _shipped(name: str) -> Family:
    module = importlib.import_module(f"imgclf.models.{name}")
    return _family(module, module.MODELS, getattr(module, "WEIGHTS", ()))


_BY_MODEL = {name: family for family in map(_shipped, FAMILIES) for name in family.models}
NAMES: tuple[str, ...] = tuple(_BY_MODEL)


def families() -> tuple[Family, ...]:
    """The families of this package."""
    return tuple(dict.fromkeys(_BY_MODEL.values()))


def family(name: str) -> Family:
    """The family of a model, by `config.model.name`.

    Raises:
      UserError: for an unknown name, with the nearest ones; for a module of the user's own that can't be imported.
    """
    if name in _BY_MODEL:
        return _BY_MODEL[name]
    if ":" not in name:
        raise UserError(f"config.model.name={name!r} is not a model; {nearest(name, NAMES)} A model of your own: my_module:build.")
    build = user_code.load(name, "model.name")
    if not callable(build):
        raise UserError(f"config.model.name={name!r} is no builder: it must be a function, or a class, that returns a backbone.")
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    own = [entry for entry in getattr(module, "WEIGHTS", ()) if entry.model in (attribute, name)]
    return _family(module, {name: Model(build)}, tuple(dataclasses.replace(entry, model=name) for entry in own))


def builder(name: str) -> Builder:
    """The builder of a model, by `config.model.name`; raises as `family` does."""
    return family(name).models[name].build


def code_sha256(name: str) -> str:
    """The hash of the file that a builder of the user's own is in; "" for a model of this package, whose results don't change."""
    if name in _BY_MODEL:
        return ""
    family(name)  # imports the module
    file = importlib.import_module(name.partition(":")[0]).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def parameters() -> dict[str, int]:
    """The number of parameters of each model of this package, without the small variants for tests; see backbone.Model."""
    return {name: model.parameters for each in families() for name, model in each.models.items() if model.parameters is not None}


def weights(model: str | None = None) -> dict[str, Weights]:
    """Published weights by name: those of one model, or those of all models of this package."""
    if model is not None:
        return {entry.name: entry for entry in family(model).weights if entry.model == model}
    return {entry.name: entry for each in families() for entry in each.weights}


def best_for_probe(model: str | None = None, *, max_gmacs: float | None = None, commercial: bool = False) -> list[Weights]:
    """Published weights, the best fixed features first.

    Weights with a published linear probe (the accuracy on ImageNet of a linear classifier on the frozen features) come first, by it.
    After them come the others by the top-1 of the network's own head, which is a linear classifier on the features too, but one that
    they were trained with. Smoothed and mixed labels raise that figure, but not what the features are worth for other images (Kornblith
    et al., 2019, https://arxiv.org/abs/1805.08974, section 4.2): such weights count as no better than the same network's trained without.
    The top-1 of weights of other classes than ImageNet's 1,000, such as CIFAR's ten, does not count: it says nothing beside the others'.

    Args:
      model: whose weights; None = those of all models of this package.
      max_gmacs: leaves out what costs more for an image, in billions of multiply-adds (which papers call GFLOPs), or whose cost is unknown.
      commercial: leaves out weights whose licence forbids commercial use, and those for which none is stated.
    """
    found = list(weights(model).values())
    worth = worth_of_features(model)

    def order(entry: Weights) -> tuple[Any, ...]:
        own = entry.top1 or 0.0 if entry.num_classes == 1000 else 0.0
        return entry.linear_probe is None, -(worth.get(entry.name) or 0.0), entry.soft_labels, -own, not entry.repo, entry.name

    if max_gmacs is not None:
        found = [entry for entry in found if entry.gmacs is not None and entry.gmacs <= max_gmacs]
    return sorted((entry for entry in found if (entry.commercial and entry.licence) or not commercial), key=order)


def worth_of_features(model: str | None = None) -> dict[str, float | None]:
    """What `best_for_probe` goes by: of each name of weights the published linear probe, else the top-1 that counts, in percent."""
    every = weights(model).values()
    plain: dict[str, float] = {}
    for entry in every:
        if not entry.soft_labels and entry.top1 is not None:
            plain[entry.model] = max(plain.get(entry.model, 0.0), entry.top1)

    def of(entry: Weights) -> float | None:
        own = entry.top1 if entry.num_classes == 1000 else None
        if entry.linear_probe is not None or own is None:
            return entry.linear_probe
        return min(own, plain.get(entry.model, own)) if entry.soft_labels else own

    return {entry.name: of(entry) for entry in every}


def entries() -> list[dict[str, Any]]:
    """Returns, for every model of this package but those for tests: `name`, `parameters` (with the published head), and `weights`.

    Each of `weights` is as `described` says.
    """
    return [
        {"name": name, "parameters": count, "weights": [described(entry) for entry in weights(name).values()]}
        for name, count in parameters().items()
    ]


def described(entry: Weights) -> dict[str, Any]:
    """What is published of weights, as JSON can hold it.

    `name`, `model`, `input_size`, `crop_fraction`, `interpolation`, `mean`, `std`, `num_classes`, `top1` and `linear_probe` (percent, or
    None), `gmacs` (billions of multiply-adds, or None), `licence`, `commercial`, `hub` (repository on the Hugging Face hub, or "") and
    `source`.
    """
    return {
        "name": entry.name,
        "model": entry.model,
        "input_size": list(entry.input_size),
        "crop_fraction": entry.crop_fraction,
        "interpolation": entry.interpolation,
        "mean": list(entry.mean),
        "std": list(entry.std),
        "num_classes": entry.num_classes,
        "top1": entry.top1,
        "linear_probe": entry.linear_probe,
        "gmacs": entry.gmacs,
        "licence": entry.licence,
        "commercial": entry.commercial,
        "hub": entry.repo,
        "source": entry.source,
    }
