"""The fields that say how a network trains: `train`, `freeze`, `probe`, `optimizer` and `mesh` of fields.py."""

from imgclf.config.group import Group
from imgclf.config.written_values import Duration, Durations, Stages, Weights


class EarlyStoppingConfig(Group):
    """When training stops before its duration is over."""

    patience: int = 0  # evaluations without improvement of best_metric after which training stops; 0 = off
    min_delta: float = 0.0  # what counts as an improvement is more than this


class TrainConfig(Group):
    """How long, and by what method, the network is trained."""

    method: str = "auto"  # auto (lp_ft with model.weights, else fit) | fit | probe (a head on cached features) | lp_ft (probe, then fit)
    duration: Duration = "10 epochs"  # "auto": BiT-HyperRule's by the number of training images, 500 steps of 512 below 20,000
    # ends the training here, with the schedule of its whole duration cut off; what a time limit has decided stands here. "" = never
    stop_after: str = ""
    label_smoothing: float = 0.0  # share of each label that is spread evenly over all classes
    # none | balanced (n / classes·n_c) | turicreate (1/n_c over their sum) | weights of classes, those left out weigh 1: "cat=1, dog=2.5".
    # A name with a comma, or with quotes at its beginning, stands in quotes, in which \ takes the next character as it is: "'cat, big'=1".
    class_weights: Weights = "none"
    clip_norm: float = 0.0  # global gradient norm; 0 = off
    accumulate: int = 1  # batches whose gradients are averaged into one update
    # rows (regex over the paths of modules, what of their activations the backward pass computes again instead of keeping it), such as
    # ("backbone/stage.*/.*", "all"); first match wins: "all" (all but the module's input) | "cheap" (all but the results of convolutions
    # and products of matrices, which cost most) | "none". Less memory for more work; the outermost module that is named counts
    remat: tuple[tuple[str, str], ...] = ()
    # which of several implementations the convolutions have, on one CPU: off (the usual ones) | on (the fastest on this machine: they are
    # timed before a run begins, once, some seconds a layer, and noted in its environment.json) | auto (on from half an hour of training on)
    forms: str = "off"
    ema: float = 0.0  # decay of the average of the parameters that is evaluated and kept; 0 = off
    log_every: Duration = "50 steps"  # how often loss and accuracy of training go into metrics.jsonl
    eval_every: Duration = "1 epochs"  # how often val is evaluated
    checkpoint_every: Duration = "1 epochs"  # how often what a training needs to go on is written
    checkpoint_seconds: float = 600.0  # also whenever this long has passed since the last one; with several processes, at the next log step
    best_metric: str = "val_loss"  # val_loss (lowest) | val_top1 (highest) picks the kept parameters; "" = the last ones
    # distillation: the folder of a finished run of the same classes, with a head on averaged features; "" = none. Its probabilities of the
    # plain image are teacher_share of each image's label, which itself is the rest
    teacher: str = ""
    teacher_share: float = 0.5  # of the label that is the teacher's
    early_stopping: EarlyStoppingConfig
    # when the best length is found on val, train again for that long on train and val together, and keep that model; calibration stays that
    # of the first one's val logits
    refit: bool = False
    soup: int = 0  # keep so many best models, and average at the end those that together are better on val; 0 = off


class FreezeConfig(Group):
    """What does not train."""

    preset: str = "none"  # none | head (only it trains) | last_stage (it and the head train) | first_N_layers (Keras's count) | table
    # preset=table: rows (regex over parameter paths, True = frozen), first match wins; end with (".*", False)
    table: tuple[tuple[str, bool], ...] = ()
    # statistics of the backbone's: auto (frozen with the layer, if folded into the weights, and in trainings too short) | frozen | train
    batch_norm: str = "auto"
    # instead of one preset, rows (duration, preset) one after another; the last takes what is left
    stages: Stages = ()


class ProbeConfig(Group):
    """The probe of train.method=probe and lp_ft: the backbone is frozen, and its pooled features are cached."""

    # logistic | ridge | nearest_mean (of features of length 1, for classes of one to five images; no penalty, no class weights) |
    # minibatch (model.head, by optimizer, for train.duration, in loader.batch_size)
    solver: str = "logistic"
    # strength of the penalty, scikit-learn's 1 / (n·C); several = chosen by cross-validation, () = along a path from strong to weak
    l2: tuple[float, ...] = ()
    # of the cross-validation that chooses, and that scores and calibrates the probe where there is no val: stratified, groups stay whole
    folds: int = 5
    # what the penalty sees: standardize (each feature of variance 1) | none (the features as they are) | shrunk (halfway: each
    # divided by the root of its own variance and the mean one together; best for few photos); the head then is made to fit plain features
    scaling: str = "shrunk"
    views: int = 0  # augmented views of each training image beside the plain one


class ScheduleConfig(Group):
    """The learning rate over the steps of a training."""

    name: str = "constant"  # constant | cosine | linear | step | exponential | time (Keras's: lr / (1 + rate·step)) | one_cycle (fastai's)
    warmup: Duration = "0 steps"  # linear, from 0; then the schedule named above
    final: float = 0.0  # cosine, linear: the share of the learning rate at the end
    boundaries: Durations = ("50%", "75%")  # step: when the learning rate is multiplied by rate
    rate: float = 0.1  # step, exponential, time
    every: Duration = "1 epochs"  # exponential: the rate applies once per this


class OptimizerConfig(Group):
    """The optimizer, and what applies to each parameter."""

    # an optimizer of optax (adamw), also of its modules (optax.contrib.muon), or a function of one's own, "my_module:make", that takes
    # learning_rate (a float32 scalar, another one in each step) and args, and returns an optax.GradientTransformation
    name: str = "adamw"
    args: str = ""  # its keyword arguments, such as "momentum=0.9, nesterov=True"; learning rate and weight decay stand below
    learning_rate: float = 1e-3  # the schedule's largest
    weight_decay: float = 0.0  # decoupled for adamw and its like; added to the gradient (L2) for sgd and rmsprop
    # (regex over parameter paths, multiplier); first match wins; by default, only kernels decay
    weight_decay_table: tuple[tuple[str, float], ...] = ((".*/(scale|bias|position|class_token|registers)", 0.0), (".*", 1.0))
    # (regex over parameter paths, multiplier of the learning rate); first match wins
    lr_table: tuple[tuple[str, float], ...] = ((".*", 1.0),)
    # a frozen BatchNorm multiplies the kernel before it, in MobileNetV2 up to tenfold, and so the step that Adam takes in it: divide the
    # learning rate of such a kernel by the layer's median multiplier, where that is above 1
    undo_norm_gain: bool = False
    layer_decay: float = 1.0  # multiplies the learning rate once per block of the backbone on the way from the head to the parameter
    schedule: ScheduleConfig


class MeshConfig(Group):
    """How the devices share a training: data × fsdp × model of them, `data` as many as are left."""

    # parameters, their optimizer state, averages and accumulated gradients are split among so many devices (ZeRO stage 3, FSDP), each batch
    # among all; 1 = every device has all of them
    fsdp: int = 1
    # the head's classes, and what rules split so, are divided among so many devices; its loss never gathers the logits. 1 = off
    model: int = 1
    # rows (regex over parameter paths, how), first match wins: "auto" (what is said of split_from_mb below) | "whole" (on every device) |
    # an axis of the mesh or - for each dimension, such as "-, model" for a dense layer's outputs. Parameters without a row are "auto"
    rules: tuple[tuple[str, str], ...] = ()
    # auto: the head's last layer is split by classes over model; of another parameter of at least so many MiB, the largest dimension that
    # fsdp divides is split over it; all others are whole
    split_from_mb: float = 4.0
