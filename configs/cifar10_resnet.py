"""ResNet-20 on CIFAR-10 by the recipe of He et al., 2016, section 4.2.

SGD with momentum 0.9, L2 1e-4, batch 128, learning rate 0.1 divided by 10 after 32,000 and 48,000 of 64,000 steps; pad 4, crop, flip.
Cost: 64,000 steps of 128; made for a GPU, and not yet run to its end by us. Expected: test top-1 0.9125 (table 6 of the paper).
Command: imgclf train cifar10_resnet --set data.tfds.data_dir=DIR (with CIFAR-10 prepared as ArrayRecord)
     or: imgclf train cifar10_resnet:FOLDER (FOLDER/{train,test}/CLASS/*.png)
"""

from imgclf.config import Config, default_config


def get_config(path: str = "") -> Config:
    config = default_config()
    config.name = "cifar10_resnet"
    if path:
        config.data.source = "folder"
        config.data.path = path
    else:
        config.data.source = "tfds"
        config.data.tfds.name = "cifar10"
    config.data.image_size = (32, 32)
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.data.split.fractions = (0.9, 0.1, 0.0)  # the paper's 45,000 / 5,000; the test split is the data set's

    config.augment.pad_crop = 4
    config.augment.fill = "constant"
    config.augment.flip = 0.5

    config.loader.batch_size = 128
    config.loader.eval_batch_size = 512
    config.model.name = "resnet20"

    config.train.duration = "64000 steps"
    config.train.best_metric = ""  # the last parameters, as in the paper
    config.optimizer.name = "sgd"
    config.optimizer.args = "momentum=0.9"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 1e-4
    config.optimizer.weight_decay_table = ((".*", 1.0),)
    config.optimizer.schedule.name = "step"
    config.optimizer.schedule.boundaries = ("32000 steps", "48000 steps")
    config.optimizer.schedule.rate = 0.1
    return config
