"""A small finished run on pictures of three colours."""

import numpy as np
import pytest
from PIL import Image

from imgclf import config as config_lib
from imgclf.workflows import train


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, channel in (("red", 0), ("green", 1), ("blue", 2)):
        (folder / name).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 200, (30 + i, 50, 3), dtype=np.uint8)
            pixels[..., channel] += 40
            if i < 6:
                Image.fromarray(pixels).save(folder / name / f"{i}.png")
            else:
                Image.fromarray(pixels).save(folder / name / f"{i}.jpg", quality=90)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, photo_folder):
    config = config_lib.default_config()
    config.data.path = str(photo_folder)
    config.data.image_size, config.data.resize = (24, 32), "pad"
    config.data.split.fractions = (0.5, 0.25, 0.25)
    config.loader.batch_size = config.loader.eval_batch_size = 8
    config.model.cnn.widths = (8,)
    config.train.duration, config.augment.flip, config.eval.explain = "8 steps", 0.5, 0
    run = tmp_path_factory.mktemp("run") / "run"
    return run, train.train(config, run)
