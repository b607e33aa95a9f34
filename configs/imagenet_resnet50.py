"""ResNet-50 on ImageNet, 224 px, bfloat16, 90 epochs: the recipe of Goyal et al., 2017, at batch 1,024.

SGD with Nesterov momentum 0.9, L2 5e-5, learning rate 0.4 after 5 epochs of warm-up, cosine, label smoothing 0.1. BatchNorm normalises 32
images together, as each of the paper's GPUs did ("the per-worker sample size" of its section 2.3, which it keeps for all sizes of a batch):
its rates are for the noise of 32 images, and on up to 32 chips no layer waits for other chips.
Cost: 112,590 steps of 1,024; made for a GPU or TPU slice, and not yet run to its end by us. Expected: top-1 about 0.763, as published
for this recipe.
Command: imgclf train imagenet_resnet50:FOLDER (FOLDER/{train,val}/SYNSET/*.JPEG)
"""

from imgclf.config import Config, default_config
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config imagenet_resnet50 needs the folder of ImageNet: imagenet_resnet50:FOLDER.")
    config = default_config()
    config.name = "imagenet_resnet50"
    config.data.source = "folder"
    config.data.path = path
    config.data.image_size = (224, 224)
    config.data.resize = "crop"
    config.data.crop_fraction = 0.875
    config.data.in_memory_mb = 0

    config.augment.crop_scale = (0.08, 1.0)
    config.augment.flip = 0.5

    config.loader.batch_size = 1024
    config.loader.eval_batch_size = 1024
    config.loader.threads = 16
    config.model.name = "resnet50"
    config.model.precision = "bf16"
    config.model.batch_norm_group = 32

    config.train.duration = "90 epochs"
    config.train.label_smoothing = 0.1
    config.train.best_metric = ""
    config.train.checkpoint_seconds = 1800.0
    config.optimizer.name = "sgd"
    config.optimizer.args = "momentum=0.9, nesterov=True"
    config.optimizer.learning_rate = 0.4
    config.optimizer.weight_decay = 5e-5
    config.optimizer.schedule.name = "cosine"
    config.optimizer.schedule.warmup = "5 epochs"
    config.eval.split = "val"
    return config
