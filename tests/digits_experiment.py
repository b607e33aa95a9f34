"""A small real experiment: the built-in digits, a small CNN with BatchNorm, dropout and an average of the parameters."""

from imgclf.config import Config, default_config

# All that the training step does to images, and an order in which examples come again.
ELEMENTWISE = {
    "augment.hue": 20.0,
    "augment.contrast": 0.2,
    "augment.erase": 0.5,
    "augment.erase_fill": "noise",
    "augment.mixup": 0.2,
    "augment.cutmix": 1.0,
    "train.label_smoothing": 0.1,
    "train.class_weights": "balanced",
    "loader.sampling": "sqrt",
}


def digits_config(**changes) -> Config:
    config = default_config()
    config.name = "digits"
    config.data.source = "digits"
    config.data.image_size = (8, 8)
    config.augment.rotate = 10.0
    config.augment.shift = (0.1, 0.1)
    config.loader.batch_size = 64
    config.loader.eval_batch_size = 128
    config.model.cnn.widths = (8,)
    config.model.cnn.dense = (16,)
    config.model.cnn.dropout = 0.2
    config.train.duration = "30 steps"
    config.train.ema = 0.9
    config.train.log_every = "5 steps"
    config.train.eval_every = "10 steps"
    config.train.checkpoint_every = "4 steps"
    config.optimizer.learning_rate = 0.01
    config.eval.explain = 0  # tests of what trains need no compilation of that
    config.update_from_flattened_dict(changes)
    return config
