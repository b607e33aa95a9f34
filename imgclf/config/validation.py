"""The checks of a config that are made before any data is touched."""

import re
from collections.abc import Callable
from typing import Any

from imgclf.config import durations
from imgclf.config.arguments import parse_arguments
from imgclf.config.fields import Config, default_config
from imgclf.config.names import check_field, flatten
from imgclf.errors import UserError, nearest

CHOICES = {
    "data.layout": ("auto", "classes", "splits"),
    "data.resize": ("squash", "crop", "pad", "weights"),
    "data.interpolation": ("bilinear", "bicubic"),
    "data.verify": ("auto", "first", "background"),
    "data.audit": ("fix", "error", "off"),
    "data.scenes": ("off", "auto"),
    "data.split.method": ("auto", "given", "stratified", "hash", "kfold"),
    "augment.mode": ("corrected", "keras_legacy"),
    "augment.fill": ("nearest", "constant", "reflect", "wrap"),
    "augment.policy": ("none", "rand_augment", "trivial_augment", "aug_mix"),
    "augment.erase_fill": ("mean", "noise"),
    "loader.sampling": ("natural", "balanced", "sqrt"),
    "model.precision": ("auto", "f32", "bf16"),
    "model.gradient_precision": ("bf16", "f32"),
    "model.output": ("softmax", "sigmoid"),
    "model.head.kind": ("auto", "linear", "mlp", "avgmax", "norm", "family"),
    "model.head.norm": ("batch", "none"),
    "model.cnn.padding": ("same", "valid"),
    "model.cnn.norm": ("batch", "none"),
    "train.method": ("auto", "fit", "probe", "lp_ft"),
    "train.forms": ("off", "on", "auto"),
    "probe.solver": ("logistic", "ridge", "nearest_mean", "minibatch"),
    "probe.scaling": ("standardize", "shrunk", "none"),
    "freeze.batch_norm": ("auto", "frozen", "train"),
    "train.best_metric": ("val_loss", "val_top1", ""),
    "optimizer.schedule.name": ("constant", "cosine", "linear", "step", "exponential", "time", "one_cycle"),
    "eval.views": ("plain", "flip", "framings", "crops"),
    "eval.split": ("train", "val", "test"),
}

DURATIONS = (
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "optimizer.schedule.warmup",
    "optimizer.schedule.every",
)


def _is_size(value: Any) -> bool:
    return len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)


# field → (test, what was expected)
_POSITIVE = (lambda v: v > 0, "a number above 0")
_NOT_NEGATIVE = (lambda v: v >= 0, "0 or more")
_AT_LEAST_ONE = (lambda v: v >= 1, "1 or more")
_PROBABILITY = (lambda v: 0 <= v <= 1, "between 0 and 1")
_BELOW_ONE = (lambda v: 0 <= v < 1, "at least 0 and below 1")
_AREA_SHARES = (lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1, "(smallest, largest) share of the area, within 0..1")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _NOT_NEGATIVE,
    "data.image_size": (_is_size, "(height, width) in whole pixels"),
    "data.crop_fraction": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "data.mean": (lambda v: len(v) in (0, 3), "three numbers, one per RGB channel, or () for the weights' own"),
    "data.std": (
        lambda v: len(v) in (0, 3) and all(n > 0 for n in v),
        "three numbers above 0, one per RGB channel, or () for the weights' own",
    ),
    "data.max_pixels": _POSITIVE,
    "data.in_memory_mb": _NOT_NEGATIVE,
    "data.near_duplicate_bits": (lambda v: -1 <= v <= 16, "between -1 (off) and 16"),
    "data.per_class": _NOT_NEGATIVE,
    "data.split.fractions": (
        lambda v: len(v) == 3 and v[0] > 0 and min(v) >= 0 and abs(sum(v) - 1) < 1e-6,
        "(train, val, test) shares that add up to 1, with train above 0",
    ),
    "data.split.folds": (lambda v: v >= 2, "2 or more"),
    "data.split.fold": _NOT_NEGATIVE,
    "augment.image_size": (lambda v: v == () or _is_size(v), "(height, width) in whole pixels, or () for data.image_size"),
    "augment.crop_scale": _AREA_SHARES,
    "augment.crop_ratio": (lambda v: len(v) == 2 and 0 < v[0] <= v[1], "(smallest, largest) aspect ratio"),
    "augment.flip": _PROBABILITY,
    "augment.vertical_flip": _PROBABILITY,
    "augment.rotate": _NOT_NEGATIVE,
    "augment.shift": (lambda v: len(v) == 2 and min(v) >= 0, "(height, width) shares, 0 or more"),
    "augment.shear": (lambda v: 0 <= v < 90, "degrees, at least 0 and below 90"),
    "augment.zoom": (lambda v: len(v) == 2 and 0 < v[0] <= v[1], "(smallest, largest) factor, above 0"),
    "augment.perspective": _PROBABILITY,
    "augment.fill_value": (lambda v: 0 <= v <= 255, "between 0 and 255"),
    "augment.pad_crop": _NOT_NEGATIVE,
    "augment.margin_crop": _NOT_NEGATIVE,
    "augment.margin_scale": _NOT_NEGATIVE,
    "augment.brightness": _PROBABILITY,
    "augment.contrast": _PROBABILITY,
    "augment.saturation": _PROBABILITY,
    "augment.hue": (lambda v: 0 <= v <= 180, "degrees, between 0 and 180"),
    "augment.grayscale": _PROBABILITY,
    "augment.erase": _PROBABILITY,
    "augment.erase_area": _AREA_SHARES,
    "augment.erase_ratio": (lambda v: len(v) == 2 and 0 < v[0] <= v[1], "(smallest, largest) height / width"),
    "augment.cutout": _NOT_NEGATIVE,
    "augment.mixup": _NOT_NEGATIVE,
    "augment.cutmix": _NOT_NEGATIVE,
    "augment.mix_switch": _PROBABILITY,
    "augment.mix_probability": _PROBABILITY,
    "loader.batch_size": _AT_LEAST_ONE,
    "loader.eval_batch_size": _AT_LEAST_ONE,
    "loader.threads": _NOT_NEGATIVE,
    "loader.workers": _NOT_NEGATIVE,
    "loader.prefetch": _NOT_NEGATIVE,
    "model.batch_norm_group": (lambda v: v == 0 or v >= 2, "0, or 2 or more images"),
    "model.head.dropout": _BELOW_ONE,
    "model.head.dense": (lambda v: all(isinstance(n, int) and n > 0 for n in v), "whole numbers above 0"),
    "model.cnn.widths": (lambda v: len(v) > 0 and all(isinstance(n, int) and n > 0 for n in v), "one or more whole numbers above 0"),
    "model.cnn.kernel": _AT_LEAST_ONE,
    "model.cnn.pool": _AT_LEAST_ONE,
    "model.cnn.dense": (lambda v: all(isinstance(n, int) and n > 0 for n in v), "whole numbers above 0"),
    "model.cnn.dropout": _BELOW_ONE,
    "model.cnn.maps_dropout": _BELOW_ONE,
    "train.label_smoothing": _BELOW_ONE,
    "train.clip_norm": _NOT_NEGATIVE,
    "train.accumulate": _AT_LEAST_ONE,
    "train.ema": _BELOW_ONE,
    "train.soup": _NOT_NEGATIVE,
    "train.teacher_share": _PROBABILITY,
    "train.checkpoint_seconds": _POSITIVE,
    "train.early_stopping.patience": _NOT_NEGATIVE,
    "train.early_stopping.min_delta": _NOT_NEGATIVE,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.layer_decay": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "optimizer.schedule.final": _PROBABILITY,
    "optimizer.schedule.rate": _POSITIVE,
    "probe.l2": (lambda v: all(l2 > 0 for l2 in v), "one or more numbers above 0, or () for a grid to choose from"),
    "probe.folds": (lambda v: v >= 2, "2 or more"),
    "probe.views": _NOT_NEGATIVE,
    "mesh.fsdp": _AT_LEAST_ONE,
    "mesh.model": _AT_LEAST_ONE,
    "mesh.split_from_mb": _NOT_NEGATIVE,
    "eval.top_k": _AT_LEAST_ONE,
    "eval.conformal": _BELOW_ONE,
    "eval.logit_adjustment": _NOT_NEGATIVE,
    "eval.open_set": _NOT_NEGATIVE,
    "eval.explain": _NOT_NEGATIVE,
}


def validate(config: Config) -> None:
    """Checks every field by itself and against the others, before any data is touched.

    Raises:
      UserError: one sentence that names the field, its value and what is valid.
    """
    fields = flatten(config)
    for name in fields:
        check_field(name)
    for name, choices in CHOICES.items():
        if fields[name] not in choices:
            raise UserError(f"config.{name}={fields[name]!r} is not a valid choice; {nearest(str(fields[name]), choices)}")
    for name, (test, expected) in RANGES.items():
        value = fields[name]
        if (isinstance(value, tuple) and not all(isinstance(item, int | float) for item in value)) or not test(value):
            raise UserError(f"config.{name}={value!r} is not valid; expected {expected}.")
    for name in DURATIONS:
        durations.parse(fields[name], f"config.{name}")
    if config.train.duration != "auto":
        durations.parse(config.train.duration, "config.train.duration")
    if config.train.stop_after:
        durations.parse(config.train.stop_after, "config.train.stop_after")
    for boundary in config.optimizer.schedule.boundaries:
        durations.parse(str(boundary), "config.optimizer.schedule.boundaries")
    parse_arguments(config.optimizer.args, "optimizer.args")
    parse_arguments(config.data.source_args, "data.source_args")
    if config.model.variant != "auto":
        parse_arguments(config.model.variant, "model.variant")
    _validate_table(fields, "optimizer.weight_decay_table", "(regex, multiplier), such as ('.*/bias', 0.0)")
    _validate_table(fields, "optimizer.lr_table", "(regex, multiplier), such as ('head/.*', 10.0)")
    _validate_table(fields, "freeze.table", "(regex, True or False), such as ('backbone/stem/.*', True)")
    _validate_texts(
        fields, "train.remat", "(regex, 'all', 'cheap' or 'none'), such as ('backbone/stage.*/.*', 'all')", ("all", "cheap", "none")
    )
    _validate_texts(fields, "mesh.rules", "(regex, how), such as ('head/.*', 'whole')")
    _validate_freeze(config)
    _validate_combinations(config)


def _validate_table(fields: dict[str, Any], name: str, expected: str) -> None:
    for row in fields[name]:
        try:
            pattern, value = row
            re.compile(pattern)
            float(value)
        except (TypeError, ValueError, re.error) as error:
            raise UserError(f"config.{name} has a row {row!r} that is not {expected}: {error}.") from None


def _validate_texts(fields: dict[str, Any], name: str, expected: str, choices: tuple[str, ...] = ()) -> None:
    for row in fields[name]:
        fits = isinstance(row, tuple) and len(row) == 2 and all(isinstance(item, str) for item in row)
        if not fits or (choices and row[1] not in choices):
            raise UserError(f"config.{name} has a row {row!r} that is not {expected}.")
        try:
            re.compile(row[0])
        except re.error as error:
            raise UserError(f"config.{name} has a row {row!r} that is not {expected}: {error}.") from None


FIRST_LAYERS = re.compile(r"first_(\d+)_layers")
_PRESETS = ("none", "head", "last_stage", "table", "first_15_layers")


def _validate_freeze(config: Config) -> None:
    options = config.freeze
    for row in options.stages:
        if not (isinstance(row, tuple) and len(row) == 2 and all(isinstance(item, str) for item in row)):
            raise UserError(f"config.freeze.stages has a row {row!r} that is not (duration, preset), such as ('20%', 'head').")
        durations.parse(row[0], "config.freeze.stages")
    presets = [preset for _, preset in options.stages] or [options.preset]
    for preset in (*presets, options.preset):
        if preset not in _PRESETS and not FIRST_LAYERS.fullmatch(preset):
            field = "preset" if preset == options.preset else "stages"
            raise UserError(f"config.freeze.{field} names no preset {preset!r}; {nearest(preset, _PRESETS)} N counts as Keras does.")
    if options.stages and options.preset != "none":
        raise UserError(f"config.freeze.preset={options.preset!r} and config.freeze.stages exclude each other; leave preset at 'none'.")
    if ("table" in presets) != bool(options.table):
        way_out = "give it rows" if "table" in presets else "set config.freeze.preset='table', or name 'table' in a stage"
        raise UserError(f"config.freeze.table={options.table!r} does not go with the presets {', '.join(map(repr, presets))}; {way_out}.")


_NOT_KERAS = (
    *("crop_scale", "zoom_joint", "perspective", "pad_crop", "margin_crop", "margin_scale", "policy"),
    *("contrast", "saturation", "hue", "grayscale"),
)


def _validate_keras(config: Config) -> None:
    """Raises a UserError for what augment.mode="keras_legacy" can't do, as Keras's ImageDataGenerator couldn't."""
    default = default_config().augment
    for name in _NOT_KERAS:
        if config.augment[name] != default[name]:
            raise UserError(
                f"config.augment.{name}={config.augment[name]!r} does not go with augment.mode='keras_legacy': ImageDataGenerator "
                f"had no such thing; set it to {default[name]!r}, or use mode='corrected'."
            )
    for name, had in (("resize", "squash"), ("interpolation", "bilinear")):
        if config.data[name] != had:
            raise UserError(
                f"config.data.{name}={config.data[name]!r} does not go with augment.mode='keras_legacy', which resizes as Keras did; "
                f"leave it at {had!r}."
            )
    if config.eval.views in ("framings", "crops"):
        raise UserError(
            f"config.eval.views={config.eval.views!r} does not go with augment.mode='keras_legacy', which has no crops; use 'flip' or "
            "'plain'."
        )
    if max(config.augment.shift) >= 1:
        raise UserError(f"config.augment.shift={config.augment.shift!r} is not valid with augment.mode='keras_legacy'; expected below 1.")


def _validate_combinations(config: Config) -> None:
    data, train = config.data, config.train
    if data.split.method == "kfold" and data.split.fold >= data.split.folds:
        raise UserError(
            f"config.data.split.fold={data.split.fold} is beyond config.data.split.folds={data.split.folds}; "
            f"folds count from 0 to {data.split.folds - 1}."
        )
    if config.augment.mode == "keras_legacy":
        _validate_keras(config)
    if data.resize == "weights" and (data.crop_fraction, data.interpolation) != (1.0, "bilinear"):
        raise UserError(
            f"config.data.resize='weights' takes crop_fraction and interpolation from the weights, where config.data.crop_fraction="
            f"{data.crop_fraction} and interpolation={data.interpolation!r} are given too; use data.resize='crop' with them."
        )
    if (group := config.model.batch_norm_group) and config.loader.batch_size % group:
        size = config.loader.batch_size
        groups = [number for number in range(2, size + 1) if size % number == 0]
        below, above = [number for number in groups if number < group], [number for number in groups if number > group]
        near = " or ".join(map(str, below[-1:] + above[:1]))
        way_out = f"use groups of {near}, or" if groups else "use"
        raise UserError(
            f"config.model.batch_norm_group={group} does not divide config.loader.batch_size={size}; {way_out} batches of a multiple of "
            f"{group}."
        )
    head = config.model.head
    averages = head.kind in ("auto", "linear") or (head.kind == "mlp" and not head.flatten)
    if head.normalize and (not averages or (head.kind == "auto" and config.model.name == "cnn")):
        raise UserError(
            f"config.model.head.normalize=True does not go with config.model.head.kind={head.kind!r} of {config.model.name!r}; use "
            "head.kind='linear', or 'mlp' without flatten."
        )
    if config.augment.policy == "none" and config.augment.policy_args:
        raise UserError(f"config.augment.policy_args={config.augment.policy_args!r} needs config.augment.policy, such as 'rand_augment'.")
    if train.early_stopping.patience and not train.best_metric:
        raise UserError("config.train.early_stopping.patience needs config.train.best_metric, 'val_loss' or 'val_top1'.")
    if train.soup and not train.best_metric:
        raise UserError("config.train.soup needs config.train.best_metric, 'val_loss' or 'val_top1'.")
    if config.optimizer.schedule.name == "one_cycle" and durations.parse(config.optimizer.schedule.warmup)[0]:
        raise UserError(
            f"config.optimizer.schedule.warmup={config.optimizer.schedule.warmup!r} does not go with schedule.name='one_cycle', which "
            "rises by itself; leave it at '0 steps'."
        )
