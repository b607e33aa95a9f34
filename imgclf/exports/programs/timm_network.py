"""The network beside this file, by timm: it needs torch and timm, no imgclf.

    from timm_network import load
    load(".")(images)["logits"]  # images: uint8 [B,H,W,3], as preprocess.py makes them

For training or anything else, timm itself opens this folder: timm.create_model("local-dir:FOLDER", pretrained=True).
"""

import json
import pathlib
from collections.abc import Callable

import numpy as np


def load(folder: str | pathlib.Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns a function from uint8 [B,H,W,3] to {"logits": float32 [B,C]}, before the export's offset and temperature."""
    import timm

    folder = pathlib.Path(folder)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(about["architecture"], checkpoint_path=str(folder / "model.safetensors"), **about["model_args"]).eval()
    model.requires_grad_(False)
    tensor = next(model.parameters()).new_tensor  # float32, as the weights are
    mean, std = (tensor(about["pretrained_cfg"][name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    flips, averages = about["imgclf"]["flips"], about["imgclf"]["averages"]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        pixels = tensor(images).permute(0, 3, 1, 2) / 255
        image = (pixels - mean) / std
        if not flips:
            return {"logits": model(image).numpy()}
        # the run's evaluation averages an image with its mirror image
        mirrored = image.flip(3)
        if averages == "maps":
            return {"logits": model.forward_head((model.forward_features(image) + model.forward_features(mirrored)) / 2).numpy()}
        return {"logits": ((model(image) + model(mirrored)) / 2).numpy()}

    return run
