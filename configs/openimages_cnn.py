"""The CNN of “classify photos in 600 classes using nine million Open Images” (Quilt), on a folder of two classes.

Its hyper-parameters: 128x128 in [0, 1]; three 3x3 convolutions of 32, 32, 64; Dense 64; dropout 0.5; one sigmoid unit; RMSprop
5e-4; batch 16; at most 50 epochs, early stopping on validation loss with patience 4. Augmentation: rotation ±40°, shifts ±0.2,
shear, zoom ±0.2, flip, nearest. Two slips are repaired: validation is on images that were not trained on, and a shear of 0.2
means 0.2 radians (11.5°), as its author thought, rather than the 0.2 degrees that Keras read. The geometry is the corrected one;
--set augment.mode=keras_legacy --set augment.shear=0.2 is what ran in the tutorial, to the pixel: about a point off the centre,
after a resize by nearest neighbours, in evaluation too.
Cost: 278 photos, about 3 s an epoch on 2 CPU cores. Expected: the tutorial states accuracy 0.73 on its 2,508 crops; on the 318
Doraemon and WALL·E photos 0.925 (95 % interval 0.890–0.949, 5 folds).
Command: imgclf train openimages_cnn:PATH, where PATH is a folder of two class folders, or one made by
`imgclf openimages get`, whose crops.csv keeps the crops of a photo on one side of the split.
"""

from pathlib import Path

from imgclf.config import Config, default_config
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config openimages_cnn needs a folder of two classes: openimages_cnn:PATH.")
    config = default_config()
    config.name = f"openimages_cnn-{Path(path).resolve().name}"
    crops = Path(path).expanduser() / "crops.csv"
    config.data.source = "csv" if crops.is_file() else "folder"
    config.data.path = str(Path(path) / "crops.csv") if crops.is_file() else path
    config.data.image_size = (128, 128)
    config.data.mean = (0.0, 0.0, 0.0)
    config.data.std = (1.0, 1.0, 1.0)

    config.augment.rotate = 40.0
    config.augment.shift = (0.2, 0.2)
    config.augment.shear = 11.459
    config.augment.zoom = (0.8, 1.2)
    config.augment.flip = 0.5
    config.augment.fill = "nearest"

    config.loader.batch_size = 16
    config.model.output = "sigmoid"
    config.model.cnn.widths = (32, 32, 64)
    config.model.cnn.padding = "valid"
    config.model.cnn.norm = "none"
    config.model.cnn.flatten = True
    config.model.cnn.dense = (64,)
    config.model.cnn.dropout = 0.5

    config.train.duration = "50 epochs"
    config.train.early_stopping.patience = 4
    config.optimizer.name = "rmsprop"
    config.optimizer.args = "decay=0.9, eps=1e-7, eps_in_sqrt=False"  # Keras's RMSprop
    config.optimizer.learning_rate = 5e-4
    return config
