"""What trains when: parameters frozen by preset or regex table, in stages if asked; BatchNorm statistics by a switch of their own."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from imgclf.config import Config, durations
from imgclf.config.validation import FIRST_LAYERS
from imgclf.errors import UserError
from imgclf.models import keras_layers, layer_groups, layers
from imgclf.models.network import Network
from imgclf.models.weights.conversion import flatten
from imgclf.training.parameter_tables import match_table
from imgclf.training.state import Tree

FOLLOWED = 5.0  # time constants after which a running average has followed: the old statistics weigh e^-5


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of training in which the same parameters train."""

    start: int  # first and last step, counted as batches seen: start < step <= stop
    stop: int
    preset: str
    since: Mapping[str, int]  # each parameter that trains, and the step since which it has done so without a break
    frozen_norms: frozenset[str]  # BatchNorm layers whose statistics stand: `backbone/stem/bn`


@dataclasses.dataclass(frozen=True)
class Freezing:
    """The stages of a training, and what the user should know of its BatchNorm statistics ("" = nothing)."""

    stages: tuple[Stage, ...]
    remark: str

    @property
    def trainable(self) -> frozenset[str]:
        """The parameters that train in any stage."""
        return frozenset().union(*(stage.since for stage in self.stages))


def create_freezing(config: Config, model: Network, total_steps: int, steps_per_epoch: float) -> Freezing:
    """Lays out `config.freeze` for a model with the parameters that training starts from.

    Raises:
      UserError: for a preset that the model doesn't have, a table that doesn't fit, stages that don't fit into the training, and
        where nothing is left to train.
    """
    names = list(flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
    folded = config.model.weights != "none" and _folded(nnx.to_pure_dict(nnx.state(model.backbone, nnx.BatchStat)))
    stages: list[Stage] = []
    for start, stop, preset in _boundaries(config, total_steps, steps_per_epoch):
        frozen = _frozen(config, preset, model)
        if len(frozen) == len(names):
            raise UserError(f"config.freeze.{_source(config, preset)} freezes every parameter; leave some to train, such as head/.*.")
        before = stages[-1].since if stages else {}
        since = {name: before.get(name, start) for name in names if name not in frozen}
        stages.append(Stage(start, stop, preset, since, _frozen_norms(config, model, frozen, folded, total_steps)))
    slow = any(_lags(config, norm, total_steps) for path, norm in norms(model).items() if path.startswith("backbone/"))
    return Freezing(tuple(stages), _remark(config, folded, slow, total_steps))


def _boundaries(config: Config, total_steps: int, steps_per_epoch: float) -> list[tuple[int, int, str]]:
    """(start, stop, preset) of each stage; the last one takes what is left of the training."""
    rows, every, found, start = config.freeze.stages, config.train.accumulate, [], 0
    if not rows:
        return [(0, total_steps, config.freeze.preset)]
    field = "config.freeze.stages"
    for i, (duration, preset) in enumerate(rows):
        length = durations.steps(duration, steps_per_epoch=steps_per_epoch, total_steps=total_steps, field=field)
        # an update that several batches add up to belongs to one stage
        stop = total_steps if i == len(rows) - 1 else start + max(1, round(length / every)) * every
        if start >= total_steps:
            raise UserError(f"{field}: the stage ({duration!r}, {preset!r}) begins after the training's {total_steps} steps; cut others.")
        found.append((start, stop, preset))
        start = stop
    return found


def _source(config: Config, preset: str) -> str:
    return f"table={config.freeze.table!r}" if preset == "table" else f"preset={preset!r}"


def _frozen(config: Config, preset: str, model: Network) -> frozenset[str]:
    """Names of the parameters that a preset freezes."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    backbone = [name for name in flatten(params) if name.startswith("backbone/")]
    first = FIRST_LAYERS.fullmatch(preset)
    if preset == "table":
        rows = match_table(config.freeze.table, params, "config.freeze.table", example="('.*', False)")
        return frozenset(name for name, frozen in flatten(rows).items() if frozen)
    if preset == "head":
        return frozenset(backbone)
    if preset == "last_stage":
        last = layer_groups.last_stage(model.backbone)
        return frozenset(name for name in backbone if not layer_groups.group_of(name, last))
    if first:
        early = tuple(keras_layers.first(config.model.name, int(first[1])))
        return frozenset(name for name in backbone if layer_groups.group_of(name, early))
    return frozenset()  # none


def norms(model: nnx.Module) -> dict[str, layers.BatchNorm]:
    """The BatchNorm layers of a model, by path."""
    return {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model) if isinstance(module, layers.BatchNorm)}


def norm_gains(model: Network, frozen_norms: frozenset[str]) -> dict[str, float]:
    """What frozen BatchNorm layers multiply the kernels before them by, |scale| / √(variance + epsilon): path of a kernel → gain above 1.

    It is the median over the layer's channels. A kernel and its normalisation are one linear map, so that a step in the kernel is a step
    times the gain in the map: MobileNetV2's projections have gains of 3 to 10, and Adam, whose steps are the same for all kernels, spoils
    them first. Kernels are told by their names: `conv2/kernel` is before `bn2`.
    """
    params, gains = flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))), dict[str, float]()
    for path, norm in norms(model).items():
        kernel = re.sub(r"(bn|norm)(\w*)$", r"conv\2/kernel", path)
        if path in frozen_norms and norm.use_scale and kernel in params and not isinstance(params[kernel], jax.ShapeDtypeStruct):
            multipliers = np.abs(np.asarray(norm.scale[...])) / np.sqrt(np.asarray(norm.var[...]) + norm.epsilon)
            gains[kernel] = max(1.0, round(float(np.median(multipliers)), 3))
    return {kernel: gain for kernel, gain in gains.items() if gain > 1}


def _lags(config: Config, norm: layers.BatchNorm, total_steps: int) -> bool:
    """Whether a training from pretrained statistics ends before their running averages have followed: Keras's momentum is up to 0.999."""
    return config.model.weights != "none" and total_steps * (1 - norm.momentum) < FOLLOWED


def _frozen_norms(config: Config, model: Network, frozen: frozenset[str], folded: bool, total_steps: int) -> frozenset[str]:
    rule, found = config.freeze.batch_norm, set()
    for path, norm in norms(model).items():
        own = {f"{path}/scale", f"{path}/bias"} & flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).keys()
        of_weights = path.startswith("backbone/")  # statistics of a new head are still to be found
        kept = of_weights and (folded or _lags(config, norm, total_steps))
        if (rule == "frozen" and of_weights) or (rule == "auto" and (own <= frozen or kept)):
            found.add(path)
    return frozenset(found)


def _folded(batch_stats: Tree) -> bool:
    """Whether all means are 0 and all variances the same: then the kernels contain the normalisation, as in files made for inference.

    Shapes without values, as a plan has them, are taken for statistics that aren't folded.
    """
    stats = flatten(batch_stats)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in stats.values()):
        return False
    means = [np.asarray(leaf) for name, leaf in stats.items() if name.endswith("/mean")]
    variances = [np.asarray(leaf) for name, leaf in stats.items() if name.endswith("/var")]
    return bool(means) and not any(mean.any() for mean in means) and len(np.unique(np.concatenate(variances))) == 1


def _remark(config: Config, folded: bool, slow: bool, total_steps: int) -> str:
    if slow and not folded and config.freeze.batch_norm == "auto" and config.freeze.preset != "head":
        return (
            f"The statistics of batch normalisation are kept frozen: {total_steps} steps are too few for their running averages to follow."
        )
    if not folded:
        return ""
    told = f"The batch normalisation of {config.model.weights} is folded into the kernels (all its means are 0, all variances equal)"
    if config.freeze.batch_norm == "train":
        return f"{told}; trained with the batches' statistics, as config.freeze.batch_norm='train' asks, it is another network."
    return f"{told}, so that its statistics are kept frozen: those of batches would make another network of it."


def graphdef_of(model: Network, frozen_norms: frozenset[str]) -> nnx.GraphDef:
    """The model's static definition with the statistics of these layers frozen."""
    for path, norm in norms(model).items():
        norm.frozen = path in frozen_norms
    return nnx.graphdef(model)


def describe(freezing: Freezing, params: Tree) -> str:
    """`"2,562 of them trainable (head)"`, stage by stage where there are several."""
    sizes: dict[str, Any] = {name: leaf.size for name, leaf in flatten(params).items()}

    def share(stage: Stage) -> str:
        count = sum(sizes[name] for name in stage.since)
        return "all trainable" if count == sum(sizes.values()) else f"{count:,} of them trainable ({stage.preset})"

    if len(freezing.stages) == 1:
        return share(freezing.stages[0])
    return ", then ".join(f"{share(stage)} to step {stage.stop}" for stage in freezing.stages)
