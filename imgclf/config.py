"""Every field of an experiment, its default and its meaning; and the checks made before any data is touched.

A config file states only what differs:

    from imgclf.config import default_config

    def get_config():
        config = default_config()
        config.data.source = "digits"
        return config

This module is itself a config file for saved runs: `--config=RUN/config.json` is read by `get_config` below.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

from imgclf import durations
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
    data.mean = (0.485, 0.456, 0.406)  # per RGB channel on [0, 1]; subtracted, then divided by std
    data.std = (0.229, 0.224, 0.225)
    data.max_pixels = 100_000_000  # larger images are quarantined as decompression bombs
    data.in_memory_mb = 512  # decoded images that fit in this much memory at their original size are kept there; 0 = never
    data.audit = "fix"  # fix | error | off: what to do about duplicates, groups and labels that clash across splits
    data.near_duplicate_bits = 2  # perceptual hashes (64 bits) at most this far apart are near duplicates; -1 = exact ones only

    split = data.split = ConfigDict()
    split.method = "auto"  # auto (given where the data has splits, else stratified) | given | stratified | hash | kfold
    split.fractions = (0.7, 0.15, 0.15)  # train, val, test; with given splits, a missing val is taken from train in proportion
    split.seed = 0  # apart from config.seed, so that seeds can differ on the same split
    split.folds = 5  # kfold: fold k is the test split, a val split comes out of the rest
    split.fold = 0

    augment = config.augment = ConfigDict()  # of training images; one matrix, one resample
    augment.crop_scale = (1.0, 1.0)  # random resized crop: share of the area; (1, 1) = off
    augment.crop_ratio = (0.75, 1.3333333)  # its aspect ratio
    augment.flip = 0.0  # probability of a horizontal flip
    augment.vertical_flip = 0.0
    augment.rotate = 0.0  # degrees: uniform in ±rotate
    augment.shift = (0.0, 0.0)  # (height, width) as a share of the size: uniform in ±shift
    augment.shear = 0.0  # degrees
    augment.zoom = (1.0, 1.0)  # uniform factor per axis; above 1 zooms out, as in Keras
    augment.fill = "nearest"  # nearest | constant | reflect: what stands outside the image
    augment.fill_value = 0  # of constant, 0..255
    augment.pad_crop = 0  # pixels: pad with fill, crop back at a random place (the CIFAR recipe)

    loader = config.loader = ConfigDict()
    loader.batch_size = 32  # of a training step, over all devices and hosts
    loader.eval_batch_size = 64  # likewise
    loader.threads = 2  # that decode and augment; 0 = in the training thread; the batches are the same for any number
    loader.workers = 0  # processes instead of threads
    loader.prefetch = 2  # batches made ready ahead, on the host and on the device

    model = config.model = ConfigDict()
    model.name = "cnn"  # see imgclf.models.NAMES
    model.dtype = "float32"  # of activations: float32 | bfloat16; parameters and statistics stay float32
    model.output = "softmax"  # softmax | sigmoid (two classes, one output unit)
    model.cnn = ConfigDict()  # used by name=cnn
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
    train.duration = "10 epochs"
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

    optimizer = config.optimizer = ConfigDict()
    optimizer.name = "adamw"  # any optimizer in optax
    optimizer.args = ""  # its keyword arguments, such as "momentum=0.9, nesterov=True"; learning rate and weight decay stand below
    optimizer.learning_rate = 1e-3
    optimizer.weight_decay = 0.0  # decoupled for adamw and its like; added to the gradient (L2) for sgd and rmsprop
    optimizer.weight_decay_table = ((".*/(scale|bias)", 0.0), (".*", 1.0))  # (regex over parameter paths, multiplier); first match wins
    optimizer.schedule = ConfigDict()
    optimizer.schedule.name = "constant"  # constant | cosine | step | exponential | time (Keras's decay: lr / (1 + rate·step))
    optimizer.schedule.warmup = "0 steps"  # linear, from 0; then the schedule named above
    optimizer.schedule.final = 0.0  # cosine: the share of the learning rate at the end
    optimizer.schedule.boundaries = ("50%", "75%")  # step: when the learning rate is multiplied by rate
    optimizer.schedule.rate = 0.1  # step, exponential, time
    optimizer.schedule.every = "1 epochs"  # exponential: the rate applies once per this

    config.eval = ConfigDict()
    config.eval.split = "test"  # the split of the headline; where it is absent, val, and the report says so
    config.eval.top_k = 5  # columns of predictions.csv
    return config
