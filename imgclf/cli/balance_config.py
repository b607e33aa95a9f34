"""The config of `imgclf data balance`: the augmentation by which the grocery tutorial balanced its classes, with Keras's ranges.

The geometry is the corrected one; --config.augment.mode=keras_legacy makes the copies as Keras did.
"""

import os

from imgclf.config import Config, default_config


def get_config(path: str) -> Config:
    config = default_config()
    config.data.source = "folder" if os.path.isdir(path) else "csv"
    config.data.path = path
    config.augment.rotate = 40.0
    config.augment.shift = (0.2, 0.2)
    config.augment.shear = 11.459  # 0.2 radians: Keras's shear_range=0.2 are degrees, and do nothing
    config.augment.zoom = (0.8, 1.2)
    config.augment.flip = 0.5
    return config
