"""Every field of an experiment, its default, its type and its meaning. Their checks stand in validation.py.

Those that say how a network trains stand in training_fields.py.

A config file states only what differs:

    from imgclf.config import Config, default_config

    def get_config() -> Config:
        config = default_config()
        config.data.source = "digits"
        return config

At run time a config is an `ml_collections.ConfigDict`, which knows no other fields and keeps to their types. The classes below are what an
editor and a type checker see of it, so that `config.optimizer.` completes and a misspelt field is an error before anything runs.
Durations are strings: `"500 steps"`, `"10 epochs"`, `"20%"`; a bare number is one of epochs. A size is (height, width); a single number is
a square. Both hold however a field is set: in a config file, by a flag, from Python, in a saved config.
"""

from collections.abc import Callable
from typing import Any, cast, get_type_hints

from ml_collections import ConfigDict

from imgclf.config.group import Group
from imgclf.config.training_fields import FreezeConfig, MeshConfig, OptimizerConfig, ProbeConfig, TrainConfig
from imgclf.config.written_values import OptionalSize, Renames, Size


class ColumnsConfig(Group):
    """The names of a table's columns, for source=csv."""

    path: str = "path"  # a path with extension, or a file stem (as in S2)
    label: str = "label"  # the name of a class
    split: str = "split"  # optional in the file: train | val | test
    group: str = "group"  # optional in the file: rows that must stay on one side of a split
    # optional in the file: shots of one scene ("" = a scene of its own); taken as they are, no others are looked for; see data.scenes
    scene: str = "scene"


class TfdsConfig(Group):
    """A TensorFlow Datasets data set, read by tfds.data_source, which needs ArrayRecord files; for source=tfds."""

    name: str = ""  # builder name, such as "beans" or "cifar10:3.0.2"
    data_dir: str = ""  # "" = TFDS's own default
    train: str = "train"  # TFDS split strings; "" = none
    val: str = ""  # likewise
    test: str = "test"  # likewise


class SplitConfig(Group):
    """How the images are divided into train, val and test."""

    method: str = "auto"  # auto (given where the data has splits, else stratified) | given | stratified | hash | kfold
    # train, val, test; with given splits, a missing val is taken from train in proportion
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0  # apart from config.seed, so that seeds can differ on the same split
    folds: int = 5  # kfold: fold k is the test split, a val split comes out of the rest
    fold: int = 0  # kfold: which fold is the test split, from 0


class DataConfig(Group):
    """Which images, and how they become the model's input."""

    # folder | csv | packed | webdataset | hf | tfds | digits | the name of an installed source | "my_module:Class"
    source: str = "folder"
    source_args: str = ""  # keyword arguments of a source of your own, such as "rows=100, kind='raw'"
    path: str = ""  # the folder of class folders, the CSV/parquet file, the pack, the tar files ("train-{000..009}.tar"), the hf data set
    # folder: what its top folders are: auto (told from the structure; an error asks where that is not certain) | classes | splits
    layout: str = "auto"
    root: str = ""  # csv: the folder that its paths are relative to; "" = the file's own
    columns: ColumnsConfig
    tfds: TfdsConfig
    image_size: Size = (128, 128)  # (height, width) of the model's input
    # squash | crop (centre) | pad: how an image gets that size in evaluation, and in training without crops; or weights: crop, with the
    # crop_fraction and the interpolation that the weights were published with
    resize: str = "squash"
    crop_fraction: float = 1.0  # resize=crop: share of the shorter side that the centre crop keeps (0.875 = 224 of 256)
    # bilinear | bicubic (Pillow's; a crop lies where timm has it): of views without random crop and warp, both antialiased
    interpolation: str = "bilinear"
    # per RGB channel on [0, 1]; subtracted, then divided by std; () = the weights' own, ImageNet's without weights
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()  # likewise
    color_profile: bool = True  # apply colour profiles (ICC), so that all pixels are sRGB; False = take them as they are stored
    # of images of more than 8 bits: (black, white) for all; or rows (kind, black, white), such as (("uint16", 0, 4095),), which is what a
    # run's config.json states of what was found; () = what a file itself says, else told from the values in the whole data set
    value_range: tuple[float, float] | tuple[tuple[str, float, float], ...] = ()
    # first: every image is decoded once before training | background: from the listing alone, while training goes on all are decoded too;
    # a damaged one is replaced, wherever training meets it, by the next image of the table that can be read, evaluation leaves it out, and
    # the audit only reports | auto: background from 200,000 image files on, where the network is trained on images (train.method fit)
    verify: str = "auto"
    max_pixels: int = 100_000_000  # larger images are quarantined as decompression bombs
    # decoded images are kept in so much memory, if all fit at the scale that a whole one is decoded at for image_size (a JPEG at 1/2,
    # 1/4 or 1/8 of its size); 0 = never
    in_memory_mb: int = 512
    # rows (old name, new name) that rename classes, or merge those that get one name: (("Cat", "cat"), ("kitten", "cat"))
    class_map: Renames = ()
    label_patch: str = ""  # CSV of corrected labels, columns id and label, put in place of the source's; rows without a label say nothing
    per_class: int = 0  # train on at most so many images of each class, a smaller number's among a larger one's; 0 = all
    audit: str = "fix"  # fix | error | off: what to do about duplicates, groups and labels that clash across splits
    near_duplicate_bits: int = 6  # perceptual hashes (64 bits) at most this far apart are near duplicates; -1 = exact ones only
    # off | auto: shots of one scene (a burst, several photos of one object in one setting) are looked for by the features of model.weights,
    # capture times and file numbers; they stay on one side of drawn splits and of folds, so that scores tell of new scenes. Splits that the
    # data come with stay as they are. A CSV's own column scene is taken instead where this is auto.
    scenes: str = "off"
    split: SplitConfig


class AugmentConfig(Group):
    """Augmentation of training images: one matrix and one resample for all geometry."""

    # corrected | keras_legacy: as Keras's ImageDataGenerator did it until 2020, about a point off the centre, after a resize by nearest
    # neighbours, in evaluation too; only flip, vertical_flip, rotate, shift (below 1), shear, zoom, brightness and fill
    mode: str = "corrected"
    # (height, width) of training images, () = data.image_size, which evaluation always has: crops look larger in training than in testing,
    # so that smaller ones are nearer to what is tested, and cheaper (Touvron 2019, https://arxiv.org/abs/1906.06423)
    image_size: OptionalSize = ()
    crop_scale: tuple[float, float] = (1.0, 1.0)  # random resized crop: share of the area; (1, 1) = off
    crop_ratio: tuple[float, float] = (0.75, 1.3333333)  # its aspect ratio
    flip: float = 0.0  # probability of a horizontal flip
    # flip is drawn in an image's first epoch only, and turned in each one after it: two epochs show both sides (Jordan 2024, airbench)
    flip_alternating: bool = False
    vertical_flip: float = 0.0  # probability of a flip from top to bottom
    rotate: float = 0.0  # degrees: uniform in ±rotate
    shift: tuple[float, float] = (0.0, 0.0)  # (height, width) as a share of the size: uniform in ±shift
    shear: float = 0.0  # degrees
    zoom: tuple[float, float] = (1.0, 1.0)  # uniform factor per axis; above 1 zooms out, as in Keras
    zoom_joint: bool = False  # one such factor for both axes, which keeps proportions
    perspective: float = 0.0  # corners move inwards by a share of half the size, uniform in 0 to this (torchvision's distortion_scale)
    fill: str = "nearest"  # nearest | constant | reflect | wrap: what stands outside the image
    fill_value: int = 0  # of constant, 0..255
    pad_crop: int = 0  # pixels: pad with fill, crop back at a random place (the CIFAR recipe)
    margin_crop: float = 0.0  # resize to 1 + this times the size, crop back at a random place (retrain.py's random_crop, in %)
    margin_scale: float = 0.0  # times a further factor uniform in 1 to 1 + this (its random_scale)
    policy: str = "none"  # none | rand_augment | trivial_augment | aug_mix: its turns are in the one matrix, its pixel operations follow
    # of the policy: "operations=2, magnitude=9, bins=31" | "bins=31" | "severity=3, width=3, depth=-1, alpha=1.0, all_operations=True"
    policy_args: str = ""
    # Pixel operations of their own, on the view after the policy, in this order.
    equalize: float = 0.0  # probability of flattening the histogram of each channel
    autocontrast: float = 0.0  # probability of spreading each channel over 0..255
    clahe: float = 0.0  # local contrast is raised by a limit uniform in 1 to this (CLAHE), such as 4.0
    posterize: int = 0  # bits taken from each channel: a whole number uniform in 0 to this
    solarize: float = 0.0  # probability of inverting what is 128 or brighter (BYOL)
    sharpness: float = 0.0  # distance from the smoothed view times a factor uniform in 1 ± this
    blur: float = 0.0  # pixels: Gaussian of a standard deviation uniform in 0 to this
    noise: float = 0.0  # grey levels: Gaussian of a standard deviation uniform in 0 to this
    jpeg: int = 0  # coded as JPEG at a quality of 100 minus a whole number uniform in 0 to this; at 100 not at all
    # Colour, one matrix per image, clipped to 0..255: in the training step, as what follows.
    brightness: float = 0.0  # pixels times a factor uniform in 1 ± this (its random_brightness)
    contrast: float = 0.0  # distance from the view's mean grey times a factor uniform in 1 ± this
    saturation: float = 0.0  # distance from grey times a factor uniform in 1 ± this
    hue: float = 0.0  # degrees: turned in YIQ, uniform in ±hue
    grayscale: float = 0.0  # probability of no colour at all
    erase: float = 0.0  # probability that a random rectangle is erased (Zhong 2020)
    erase_area: tuple[float, float] = (0.02, 0.33)  # its share of the area
    erase_ratio: tuple[float, float] = (0.3, 3.3)  # its height / width
    erase_fill: str = "mean"  # mean (the mean colour, 0 after normalisation) | noise (normal after normalisation)
    cutout: int = 0  # pixels: the side of a square erased around a random place (DeVries 2017); 0 = off
    mixup: float = 0.0  # alpha: pairs of images and labels mixed by a share from Beta(alpha, alpha) (Zhang 2018); 0 = off
    cutmix: float = 0.0  # alpha: likewise, a box of so large a share comes from the other image (Yun 2019); 0 = off
    mix_switch: float = 0.5  # with both, the probability that a batch takes CutMix
    mix_probability: float = 1.0  # that a batch is mixed at all


class LoaderConfig(Group):
    """How batches are made."""

    batch_size: int = 32  # of a training step, over all devices and hosts
    eval_batch_size: int = 64  # likewise
    threads: int = 2  # that decode and augment; 0 = in the training thread; the batches are the same for any number
    workers: int = 0  # processes instead of threads
    # natural | balanced (each class alike) | sqrt (by the square root of its size): who stands how often in the epoch's len(train) places.
    # With train.class_weights="balanced", the loss would correct a second time for what balanced sampling has corrected.
    sampling: str = "natural"
    prefetch: int = 2  # batches made ready ahead, on the host and on the device


class HeadConfig(Group):
    """The part of the model that follows the backbone."""

    # auto (the weights' own where its classes fit; else norm for ConvNeXt, and linear; cnn: see below) | linear (on averaged maps) |
    # norm (LayerNorm, then linear) | mlp | avgmax (linear on average and maximum) | family (as published)
    kind: str = "auto"
    dropout: float = 0.0  # mlp: after each hidden layer; else before the output layer
    flatten: bool = False  # mlp: True: flatten the maps before the dense layers, False: average them
    normalize: bool = False  # linear, mlp without flatten: averaged maps are divided by their Euclidean length; auto is linear with it
    dense: tuple[int, ...] = (256,)  # mlp: widths of hidden dense layers (He, ReLU)
    norm: str = "batch"  # mlp: after each hidden layer: batch | none


class CnnConfig(Group):
    """The plain CNN of model.name=cnn; `flatten` and what follows it count where head.kind=auto."""

    widths: tuple[int, ...] = (32, 64, 128)  # one block (conv, norm, ReLU, pool) each
    kernel: int = 3  # pixels: the side of each convolution's kernel
    padding: str = "same"  # same | valid
    pool: int = 2  # pixels: side and stride of the maximum after each block
    norm: str = "batch"  # batch | none
    flatten: bool = False  # True: flatten the maps before the dense layers, False: average them
    maps_dropout: float = 0.0  # before flattening or averaging
    dense: tuple[int, ...] = ()  # widths of hidden dense layers
    dropout: float = 0.0  # after each hidden dense layer


class ModelConfig(Group):
    """The network, and the weights that it starts from."""

    name: str = "cnn"  # one that `imgclf models` lists, or a builder of your own, my_module:build (docs/extending.md)
    # f32 (exact everywhere: a GPU does not use TF32) | bf16 (bfloat16 activations; on the CPU the operands of convolutions, where float32
    # activations cost nothing: faster in evaluation, not in training) | auto (bf16 on GPU and TPU; f32 on the CPU, whose results are the
    # published weights' to 1e-5).
    # Parameters, BatchNorm statistics, sums and logits are float32 always.
    precision: str = "auto"
    # bf16 | f32: where precision is bf16, parameters' gradients leave the products rounded to bfloat16, and devices add them up so (8 bits,
    # half the traffic between them); or in float32, of the same products (models/float32_gradients.py)
    gradient_precision: str = "bf16"
    # images that share BatchNorm's statistics in training: 0 = all of a step's batch, wherever they are; else so many that stand beside
    # each other in it, a number that divides it. Where it divides a device's share of the batch too, no layer waits for other devices, and
    # the result depends on their number as little as with 0. The running statistics are averages over the groups
    batch_norm_group: int = 0
    output: str = "softmax"  # softmax | sigmoid (two classes, one output unit)
    # none (random) | a name that `imgclf models` lists, such as timm/resnet50.a1_in1k | path:FILE (safetensors, HDF5)
    weights: str = "none"
    variant: str = "auto"  # arguments of the model's builder, such as "padding='same', epsilon=1e-3"; auto = what the weights need
    head: HeadConfig
    cnn: CnnConfig


class EvalConfig(Group):
    """How the trained model is evaluated."""

    split: str = "test"  # the split of the headline; where it is absent, val, and the report says so
    top_k: int = 5  # columns of predictions.csv
    # plain | flip (also the mirror image, at twice the time) | framings (the plain view and all of the image, squashed, and both mirrored,
    # at four times the time) | crops (three framings, each with its mirror image, at six times the time: centre crops and all of the
    # image): the mean of each image's features, or of its logits where the head needs the maps, in prediction as well; a probe is trained
    # on such means too
    views: str = "plain"
    temperature: bool = True  # probabilities are softmax(logits / T), T fitted on val where there is one; False = T is 1
    # logit adjustment (Menon et al. 2021): this times the logarithm of each class's share of the training images is taken from its logit,
    # in evaluation and in prediction. 1 = as if the classes were equally frequent, for a better balanced accuracy; 0 = off
    logit_adjustment: float = 0.0
    # keep features of at most so many training images, by which predictions tell images of none of the classes (evaluation/open_set.py);
    # 0 = none
    open_set: int = 0
    # so many of the most confident mistakes are explained in the report: which places speak for the predicted class and for the true one,
    # and which training images are nearest (`explanation/`). With it the report has a map of a sample of the evaluated images, and a
    # comparison with the last run in the same folder of runs that was tested on the same images; 0 = none of these
    explain: int = 24
    conformal: float = 0.1  # share of images whose conformal set of classes (calibrated on val) may miss the true one; 0 = no sets


class Config(Group):
    """All fields of an experiment."""

    name: str = "run"  # names the run and its default folder, runs/NAME
    seed: int = 0  # of initialisation, data order, augmentation and dropout
    data: DataConfig
    augment: AugmentConfig
    loader: LoaderConfig
    model: ModelConfig
    train: TrainConfig
    freeze: FreezeConfig
    probe: ProbeConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    eval: EvalConfig


def default_config() -> Config:
    """Returns all fields with their defaults; locked, so that no other field can be added."""
    return cast(Config, _defaults(Config).lock())


class Fields(ConfigDict):
    """A group of fields at run time: a ConfigDict that also takes what `Size`, `Duration` and their like allow."""

    def __setitem__(self, key: str, value: Any) -> None:
        convert = _CONVERSIONS.get(key)
        super().__setitem__(key, convert(value) if convert else value)


def _conversions(group: type[Group]) -> dict[str, Callable[[Any], Any]]:
    """Field → its conversion. Fields are told by their own name, without their group: no two groups mean different things by one name."""
    found: dict[str, Callable[[Any], Any]] = {}
    for name, kind in get_type_hints(group, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, Group):
            found |= _conversions(kind)
        elif hasattr(kind, "__metadata__"):
            found[name] = kind.__metadata__[0]
    return found


_CONVERSIONS = _conversions(Config)


def _defaults(group: type[Group]) -> Fields:
    fields = Fields()
    for name, kind in get_type_hints(group).items():
        fields[name] = _defaults(kind) if isinstance(kind, type) and issubclass(kind, Group) else getattr(group, name)
    return fields
