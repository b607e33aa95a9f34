"""Every field of an experiment, its default and its meaning. Their checks stand in validation.py.

A config file states only what differs:

    from imgclf.config import default_config

    def get_config():
        config = default_config()
        config.data.source = "digits"
        return config

This module is itself a config file for saved runs: `--config=RUN/config.json` is read by `get_config` below.
"""

import ast
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imgclf.errors import UserError, nearest


def default_config() -> ConfigDict:
    """Returns all fields with their defaults. Durations are strings: `"500 steps"`, `"10 epochs"`, `"20%"`."""
    config = ConfigDict()
    config.name = "run"  # names the run and its default folder, runs/NAME
    config.seed = 0  # of initialisation, data order, augmentation and dropout

    data = config.data = ConfigDict()
    data.source = "folder"  # folder | csv | tfds | digits
    data.path = ""  # the folder of class folders, or the CSV/parquet file
    data.root = ""  # csv: the folder that its paths are relative to; "" = the file's own
    data.columns = ConfigDict()  # csv: the names of its columns
    data.columns.path = "path"  # a path with extension, or a file stem (as in S2)
    data.columns.label = "label"
    data.columns.split = "split"  # optional in the file: train | val | test
    data.columns.group = "group"  # optional in the file: rows that must stay on one side of a split
    data.tfds = ConfigDict()  # tfds: read by tfds.data_source, which needs ArrayRecord files
    data.tfds.name = ""  # builder name, such as "beans" or "cifar10:3.0.2"
    data.tfds.data_dir = ""  # "" = TFDS's own default
    data.tfds.train = "train"  # TFDS split strings; "" = none
    data.tfds.val = ""
    data.tfds.test = "test"
    data.image_size = (128, 128)  # (height, width) of the model's input
    data.resize = "squash"  # squash | crop (centre) | pad: how an image gets that size in evaluation, and in training without crops
    data.crop_fraction = 1.0  # resize=crop: share of the shorter side that the centre crop keeps (0.875 = 224 of 256)
    data.mean = ()  # per RGB channel on [0, 1]; subtracted, then divided by std; () = the weights' own, ImageNet's without weights
    data.std = ()  # likewise
    data.max_pixels = 100_000_000  # larger images are quarantined as decompression bombs
    data.in_memory_mb = 512  # decoded images that fit in this much memory at their original size are kept there; 0 = never
    data.label_patch = ""  # CSV of corrected labels, columns id and label, put in place of the source's; rows without a label say nothing
    data.per_class = 0  # train on at most so many images of each class, a smaller number's among a larger one's; 0 = all
    data.audit = "fix"  # fix | error | off: what to do about duplicates, groups and labels that clash across splits
    data.near_duplicate_bits = 6  # perceptual hashes (64 bits) at most this far apart are near duplicates; -1 = exact ones only

    split = data.split = ConfigDict()
    split.method = "auto"  # auto (given where the data has splits, else stratified) | given | stratified | hash | kfold
    split.fractions = (0.7, 0.15, 0.15)  # train, val, test; with given splits, a missing val is taken from train in proportion
    split.seed = 0  # apart from config.seed, so that seeds can differ on the same split
    split.folds = 5  # kfold: fold k is the test split, a val split comes out of the rest
    split.fold = 0

    augment = config.augment = ConfigDict()  # of training images; one matrix, one resample
    # corrected | keras_legacy: as Keras's ImageDataGenerator did it until 2020, about a point off the centre, after a resize by nearest
    # neighbours, in evaluation too; only flip, vertical_flip, rotate, shift (below 1), shear, zoom, brightness and fill
    augment.mode = "corrected"
    augment.crop_scale = (1.0, 1.0)  # random resized crop: share of the area; (1, 1) = off
    augment.crop_ratio = (0.75, 1.3333333)  # its aspect ratio
    augment.flip = 0.0  # probability of a horizontal flip
    augment.vertical_flip = 0.0
    augment.rotate = 0.0  # degrees: uniform in ±rotate
    augment.shift = (0.0, 0.0)  # (height, width) as a share of the size: uniform in ±shift
    augment.shear = 0.0  # degrees
    augment.zoom = (1.0, 1.0)  # uniform factor per axis; above 1 zooms out, as in Keras
    augment.zoom_joint = False  # one such factor for both axes, which keeps proportions
    augment.perspective = 0.0  # corners move inwards by a share of half the size, uniform in 0 to this (torchvision's distortion_scale)
    augment.fill = "nearest"  # nearest | constant | reflect | wrap: what stands outside the image
    augment.fill_value = 0  # of constant, 0..255
    augment.pad_crop = 0  # pixels: pad with fill, crop back at a random place (the CIFAR recipe)
    augment.margin_crop = 0.0  # resize to 1 + this times the size, crop back at a random place (retrain.py's random_crop, in %)
    augment.margin_scale = 0.0  # times a further factor uniform in 1 to 1 + this (its random_scale)
    augment.policy = "none"  # none | rand_augment | trivial_augment | aug_mix: its turns are in the one matrix, its pixel operations follow
    # of the policy: "operations=2, magnitude=9, bins=31" | "bins=31" | "severity=3, width=3, depth=-1, alpha=1.0, all_operations=True"
    augment.policy_args = ""
    # Pixel operations of their own, on the view after the policy, in this order.
    augment.equalize = 0.0  # probability of flattening the histogram of each channel
    augment.autocontrast = 0.0  # probability of spreading each channel over 0..255
    augment.posterize = 0  # bits taken from each channel: a whole number uniform in 0 to this
    augment.solarize = 0.0  # probability of inverting what is 128 or brighter (BYOL)
    augment.sharpness = 0.0  # distance from the smoothed view times a factor uniform in 1 ± this
    augment.blur = 0.0  # pixels: Gaussian of a standard deviation uniform in 0 to this
    augment.noise = 0.0  # grey levels: Gaussian of a standard deviation uniform in 0 to this
    augment.jpeg = 0  # coded as JPEG at a quality of 100 minus a whole number uniform in 0 to this; at 100 not at all
    # Colour, one matrix per image, clipped to 0..255: in the training step, as what follows.
    augment.brightness = 0.0  # pixels times a factor uniform in 1 ± this (its random_brightness)
    augment.contrast = 0.0  # distance from the view's mean grey times a factor uniform in 1 ± this
    augment.saturation = 0.0  # distance from grey times a factor uniform in 1 ± this
    augment.hue = 0.0  # degrees: turned in YIQ, uniform in ±hue
    augment.grayscale = 0.0  # probability of no colour at all
    augment.erase = 0.0  # probability that a random rectangle is erased (Zhong 2020)
    augment.erase_area = (0.02, 0.33)  # its share of the area
    augment.erase_ratio = (0.3, 3.3)  # its height / width
    augment.erase_fill = "mean"  # mean (the mean colour, 0 after normalisation) | noise (normal after normalisation)
    augment.cutout = 0  # pixels: the side of a square erased around a random place (DeVries 2017); 0 = off
    augment.mixup = 0.0  # alpha: pairs of images and labels mixed by a share from Beta(alpha, alpha) (Zhang 2018); 0 = off
    augment.cutmix = 0.0  # alpha: likewise, a box of so large a share comes from the other image (Yun 2019); 0 = off
    augment.mix_switch = 0.5  # with both, the probability that a batch takes CutMix
    augment.mix_probability = 1.0  # that a batch is mixed at all

    loader = config.loader = ConfigDict()
    loader.batch_size = 32  # of a training step, over all devices and hosts
    loader.eval_batch_size = 64  # likewise
    loader.threads = 2  # that decode and augment; 0 = in the training thread; the batches are the same for any number
    loader.workers = 0  # processes instead of threads
    # natural | balanced (each class alike) | sqrt (by the square root of its size): who stands how often in the epoch's len(train) places.
    # With train.class_weights="balanced", the loss would correct a second time for what balanced sampling has corrected.
    loader.sampling = "natural"
    loader.prefetch = 2  # batches made ready ahead, on the host and on the device

    model = config.model = ConfigDict()
    model.name = "cnn"  # see imgclf.models.NAMES
    # f32 (exact everywhere: a GPU does not use TF32) | bf16 (bfloat16 activations; on the CPU the operands of convolutions, where float32
    # activations cost nothing: faster in evaluation, not in training) | auto (bf16 on GPU and TPU; f32 on the CPU, whose results are the
    # published weights' to 1e-5).
    # Parameters, BatchNorm statistics, sums and logits are float32 always.
    model.precision = "auto"
    model.output = "softmax"  # softmax | sigmoid (two classes, one output unit)
    model.weights = (
        "none"  # none (random) | a name that `imgclf models` lists, such as timm/resnet50.a1_in1k | path:FILE (safetensors, HDF5)
    )
    model.variant = "auto"  # arguments of the model's builder, such as "padding='same', epsilon=1e-3"; auto = what the weights need
    model.head = ConfigDict()
    # auto (the weights' own where its classes fit; else norm for ConvNeXt, and linear; cnn: see below) | linear (on averaged maps) |
    # norm (LayerNorm, then linear) | mlp | avgmax (linear on average and maximum) | family (as published)
    model.head.kind = "auto"
    model.head.dropout = 0.0  # mlp: after each hidden layer; else before the output layer
    model.head.flatten = False  # mlp: True: flatten the maps before the dense layers, False: average them
    model.head.dense = (256,)  # mlp: widths of hidden dense layers (He, ReLU)
    model.head.norm = "batch"  # mlp: after each hidden layer: batch | none
    model.cnn = ConfigDict()  # used by name=cnn; flatten and what follows it where head.kind=auto
    model.cnn.widths = (32, 64, 128)  # one block (conv, norm, ReLU, pool) each
    model.cnn.kernel = 3
    model.cnn.padding = "same"  # same | valid
    model.cnn.pool = 2
    model.cnn.norm = "batch"  # batch | none
    model.cnn.flatten = False  # True: flatten the maps before the dense layers, False: average them
    model.cnn.maps_dropout = 0.0  # before flattening or averaging
    model.cnn.dense = ()  # widths of hidden dense layers
    model.cnn.dropout = 0.0  # after each hidden dense layer

    train = config.train = ConfigDict()
    train.method = "auto"  # auto (lp_ft with model.weights, else fit) | fit | probe (a head on cached features) | lp_ft (probe, then fit)
    train.duration = "10 epochs"  # "auto": BiT-HyperRule's by the number of training images, 500 steps of 512 below 20,000
    train.label_smoothing = 0.0
    train.class_weights = "none"  # none | balanced (n / classes·n_c) | turicreate (1/n_c over their sum) | "cat=1,dog=2.5"
    train.clip_norm = 0.0  # global gradient norm; 0 = off
    train.accumulate = 1  # batches whose gradients are averaged into one update
    train.ema = 0.0  # decay of the average of the parameters that is evaluated and kept; 0 = off
    train.log_every = "50 steps"
    train.eval_every = "1 epochs"
    train.checkpoint_every = "1 epochs"
    train.checkpoint_seconds = 600.0  # also whenever this long has passed since the last one
    train.best_metric = "val_loss"  # val_loss (lowest) | val_top1 (highest) picks the kept parameters; "" = the last ones
    train.early_stopping = ConfigDict()
    train.early_stopping.patience = 0  # evaluations without improvement of best_metric after which training stops; 0 = off
    train.early_stopping.min_delta = 0.0
    train.soup = 0  # keep so many best models, and average at the end those that together are better on val; 0 = off

    freeze = config.freeze = ConfigDict()  # what does not train
    freeze.preset = "none"  # none | head (only it trains) | last_stage (it and the head train) | first_N_layers (Keras's count) | table
    freeze.table = ()  # preset=table: rows (regex over parameter paths, True = frozen), first match wins; end with (".*", False)
    # statistics of the backbone's: auto (frozen with the layer, if folded into the weights, and in trainings too short) | frozen | train
    freeze.batch_norm = "auto"
    freeze.stages = ()  # instead of one preset, rows (duration, preset) one after another; the last takes what is left

    probe = config.probe = ConfigDict()  # of train.method=probe and lp_ft: the backbone is frozen, its pooled features are cached
    probe.solver = "logistic"  # logistic | ridge | minibatch (model.head, by optimizer, for train.duration, in loader.batch_size)
    probe.l2 = ()  # strength of the penalty, scikit-learn's 1 / (n·C); several = chosen by cross-validation, () = among 1e-4 … 10
    probe.folds = 5  # of that cross-validation: stratified, groups stay whole
    probe.standardize = True  # features to mean 0 and variance 1; the head is made to fit plain ones afterwards
    probe.views = 0  # augmented views of each training image beside the plain one

    optimizer = config.optimizer = ConfigDict()
    optimizer.name = "adamw"  # any optimizer in optax
    optimizer.args = ""  # its keyword arguments, such as "momentum=0.9, nesterov=True"; learning rate and weight decay stand below
    optimizer.learning_rate = 1e-3
    optimizer.weight_decay = 0.0  # decoupled for adamw and its like; added to the gradient (L2) for sgd and rmsprop
    optimizer.weight_decay_table = ((".*/(scale|bias)", 0.0), (".*", 1.0))  # (regex over parameter paths, multiplier); first match wins
    optimizer.lr_table = ((".*", 1.0),)  # (regex over parameter paths, multiplier of the learning rate); first match wins
    optimizer.layer_decay = 1.0  # multiplies the learning rate once per block of the backbone on the way from the head to the parameter
    optimizer.schedule = ConfigDict()
    optimizer.schedule.name = (
        "constant"  # constant | cosine | step | exponential | time (Keras's: lr / (1 + rate·step)) | one_cycle (fastai's)
    )
    optimizer.schedule.warmup = "0 steps"  # linear, from 0; then the schedule named above
    optimizer.schedule.final = 0.0  # cosine: the share of the learning rate at the end
    optimizer.schedule.boundaries = ("50%", "75%")  # step: when the learning rate is multiplied by rate
    optimizer.schedule.rate = 0.1  # step, exponential, time
    optimizer.schedule.every = "1 epochs"  # exponential: the rate applies once per this

    config.eval = ConfigDict()
    config.eval.split = "test"  # the split of the headline; where it is absent, val, and the report says so
    config.eval.top_k = 5  # columns of predictions.csv
    config.eval.flip = False  # the mean of the logits of each image and its mirror image; at twice the time
    config.eval.temperature = True  # probabilities are softmax(logits / T), T fitted on val where there is one; False = T is 1
    config.eval.conformal = 0.1  # share of images whose conformal set of classes (calibrated on val) may miss the true one; 0 = no sets
    return config.lock()


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns `{"data.split.seed": 0, ...}` in the order of definition."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def check_field(name: str) -> None:
    """Raises a UserError with the nearest fields where `name` (`data.image_size`) is none of an experiment's."""
    fields = _fields()
    if name in fields:
        return
    if any(field.startswith(name + ".") for field in fields):
        raise UserError(f"config.{name} is a group of fields; set one of them, such as config.{name}.{_first_leaf(fields, name)}.")
    leaf = name.rsplit(".", 1)[-1]  # the right leaf in the wrong group is the commonest slip
    same_leaf = [field for field in fields if field.rsplit(".", 1)[-1] == leaf]
    hint = "did you mean " + " or ".join(repr(field) for field in same_leaf) + "?" if same_leaf else nearest(name, fields)
    raise UserError(f"There is no config field {name!r}; {hint} All fields stand in imgclf/config.py.")


@functools.cache  # a validation checks some hundred names, a study validates every run
def _fields() -> tuple[str, ...]:
    return tuple(flatten(default_config()))


def _first_leaf(fields: tuple[str, ...], group: str) -> str:
    return next(field for field in fields if field.startswith(group + "."))[len(group) + 1 :]


def override(config: ConfigDict, fields: Mapping[str, Any]) -> None:
    """Sets fields, in place, by their names: {"data.image_size": (64, 64), "data.columns": {"label": "species"}}.

    Raises:
      UserError: for a name that is no field, and a value of the wrong type.
    """
    for name, value in fields.items():
        if isinstance(value, Mapping):
            override(config, {f"{name}.{key}": inner for key, inner in value.items()})
            continue
        check_field(name)
        try:
            config.update_from_flattened_dict({name: _tuples(value)})
        except TypeError as error:
            raise UserError(f"config.{name}={value!r} has the wrong type: {error}.") from None


def parse_arguments(text: str, field: str) -> dict[str, Any]:
    """Parses `"momentum=0.9, nesterov=True"` into keyword arguments, literals only.

    Raises:
      UserError: if `text` is not of that form; `field` is named.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(text)
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError):
        raise UserError(f'config.{field}={text!r} is not a list of arguments: write "momentum=0.9, nesterov=True".') from None


def structure(argument: str, **defaults: str | bool) -> dict[str, Any]:
    """Parses what stands after a config file's colon: `PATH,model=resnet50,distortions=True`.

    Args:
      argument: the path first; it may hold commas and "=" but not ",name=".
      defaults: the names that may follow, with the values that they have where they don't.

    Returns:
      `path` and the named values; those whose default is a bool are one.

    Raises:
      UserError: for an unknown name, and for a bool that is neither True nor False.
    """
    path, *rest = re.split(r",(?=\w+=)", argument)
    found: dict[str, Any] = {"path": path, **defaults}
    for item in rest:
        name, _, value = item.partition("=")
        if name not in defaults:
            raise UserError(f"The config takes no {name!r} after its colon ({item!r}); {nearest(name, defaults)}")
        if isinstance(defaults[name], bool):
            if value not in ("True", "False"):
                raise UserError(f"{item!r}: write {name}=True or {name}=False.")
            value = value == "True"
        found[name] = value
    return found


def to_json(config: ConfigDict) -> str:
    """Returns the config as JSON text, all fields resolved; `from_json` reads it back."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Reads a saved config; fields that it lacks get their defaults.

    Raises:
      UserError: for text that is not JSON, unknown fields and wrong types.
    """
    try:
        saved = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"The saved config is not JSON ({error}); take another run's config.json.") from None
    config = default_config()

    def update(group: ConfigDict, values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = prefix + key
            if isinstance(value, dict):
                if not isinstance(group.get(key), ConfigDict):
                    check_field(name)
                update(group[key], value, name + ".")
                continue
            check_field(name)
            try:
                group[key] = _tuples(value)
            except TypeError:
                raise UserError(f"config.{name}={value!r} has the wrong type; expected {type(group[key]).__name__}.") from None

    update(config, saved, "")
    return config


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def get_config(path: str) -> ConfigDict:
    """Reads the `config.json` of a run: `--config=RUN/config.json` is `--config=imgclf/config.py:RUN/config.json`."""
    return from_json(Path(path).read_text())


# What may change when a run is resumed: none of it alters a single bit of the result. Paths may, as the data's hash is compared.
FREE_ON_RESUME = (
    "name",
    "data.path",
    "data.root",
    "data.label_patch",
    "data.tfds.data_dir",
    "data.in_memory_mb",
    "loader.threads",
    "loader.workers",
    "loader.prefetch",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_seconds",
    "eval.split",
    "eval.top_k",
    "eval.temperature",
    "eval.conformal",
)


def changes(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns the fields whose change would alter the run: `{name: (old, new)}`."""
    before, after = flatten(old), flatten(new)
    return {name: (before[name], after[name]) for name in after if name not in FREE_ON_RESUME and before[name] != after[name]}
