"""A folder of photos, one folder per class: PATH/CLASS/*.jpg, or PATH/{train,val,test}/CLASS/*.jpg.

Trains a small CNN from scratch; a start for any photos, and a baseline for everything better.
Cost: 278 photos at 96 px, 30 epochs: about 2 minutes on 2 CPU cores. Expected: on the 318 Doraemon and WALL·E photos 0.953
(95 % interval 0.924–0.971, 5 folds); experiments/README.md has the commands.
Command: imgclf train folder:PATH
"""

from pathlib import Path

from imgclf.config import Config, default_config
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config folder needs the folder of your photos: folder:PATH.")
    config = default_config()
    config.name = Path(path).resolve().name
    config.data.source = "folder"
    config.data.path = path
    config.data.image_size = (96, 96)
    config.data.scenes = "auto"

    config.augment.crop_scale = (0.4, 1.0)
    config.augment.flip = 0.5
    config.augment.rotate = 15.0

    config.model.cnn.widths = (32, 64, 128, 128)
    config.model.cnn.maps_dropout = 0.3

    config.train.duration = "30 epochs"
    config.train.log_every = "1 epochs"
    config.train.label_smoothing = 0.1
    config.train.best_metric = "val_loss"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.schedule.name = "cosine"
    config.optimizer.schedule.warmup = "5%"
    return config
