"""The from-scratch CNN of the “rugby or soccer” tutorial, on a folder of classes, split or not.

Its hyper-parameters: 224x224; three 3x3 convolutions (same) of 32, 32, 64; dropout 0.4; Dense 128; Adam 1e-6; 500 epochs.
Augmentation: rotation ±30°, zoom ±0.2, shifts ±0.1, flip, by the corrected geometry; --set augment.mode=keras_legacy is what ran in
the tutorial, to the pixel. Its slip is repaired: the loss gets logits, not a softmax.
Cost: 2,448 photos, 500 epochs: hours on 2 CPU cores; not yet run to its end by us.
Expected: the tutorial states accuracy 0.83 on its 610 test photos.
Command: imgclf train sports_cnn:PATH
"""

from pathlib import Path

from imgclf.config import Config, default_config
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config sports_cnn needs a folder of classes: sports_cnn:PATH.")
    config = default_config()
    config.name = f"sports_cnn-{Path(path).resolve().name}"
    config.data.source = "folder"
    config.data.path = path
    config.data.image_size = (224, 224)
    config.data.mean = (0.0, 0.0, 0.0)
    config.data.std = (1.0, 1.0, 1.0)

    config.augment.rotate = 30.0
    config.augment.shift = (0.1, 0.1)
    config.augment.zoom = (0.8, 1.2)
    config.augment.flip = 0.5

    config.model.cnn.widths = (32, 32, 64)
    config.model.cnn.norm = "none"
    config.model.cnn.maps_dropout = 0.4
    config.model.cnn.flatten = True
    config.model.cnn.dense = (128,)

    config.train.duration = "500 epochs"
    config.train.eval_every = "5 epochs"
    config.train.checkpoint_every = "5 epochs"
    config.optimizer.name = "adam"
    config.optimizer.args = "eps=1e-7"  # Keras's Adam
    config.optimizer.learning_rate = 1e-6
    return config
