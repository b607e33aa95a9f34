"""The network beside this file, by Keras 3.6 or later on any of its backends; it needs no imgclf.

from keras_network import build, load
load(".")(images)["logits"]  # images: uint8 [B,H,W,3], as preprocess.py makes them
build(".")  # the model of keras.applications itself, with these weights: for training, or anything else
"""

import importlib.util
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np


def build(folder: str | pathlib.Path) -> Any:
    """The model of keras.applications, whose answers are logits."""
    installed = (name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name))
    os.environ.setdefault("KERAS_BACKEND", next(installed, "tensorflow"))
    import keras

    folder = pathlib.Path(folder)
    about = json.loads((folder / "keras.json").read_text(encoding="utf-8"))
    model = getattr(keras.applications, about["builder"])(weights=None, classifier_activation=None, **about["arguments"])
    model.load_weights(folder / "model.weights.h5")
    return model


def load(folder: str | pathlib.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns a function from uint8 [B,H,W,3] to {"logits": float32 [B,C]}, before the export's offset and temperature."""
    model = build(folder)
    about = json.loads((pathlib.Path(folder) / "keras.json").read_text(encoding="utf-8"))
    mean, std = np.array(about["mean"], np.float32), np.array(about["std"], np.float32)

    def answer(images: np.ndarray) -> np.ndarray:
        pixels = np.asarray(images, np.float32)
        if about["pixels"] != "0 to 255":  # else the network normalises them itself
            pixels = np.asarray((pixels / 255 - mean) / std, np.float32)
        if about["pixels"] == "bgr":
            pixels = pixels[..., ::-1]
        return np.asarray(model.predict(pixels, batch_size=len(pixels), verbose=0))

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        # with "flips", the run's evaluation averages an image with its mirror image
        return {"logits": (answer(images) + answer(images[:, :, ::-1])) / 2 if about["flips"] else answer(images)}

    return run
