"""Asks timm itself: for a network of each family, and for each way in which one is told to compute as ours does, the greatest difference of
the logits as a share of their spread, at 1, 3 and 16 images at a time.

    python tests/exports/ask_timm.py --python ENVIRONMENT/bin/python [CASE …]

ENVIRONMENT has torch and timm, and need not have imgclf. Parameters are random, images of 64 x 96 pixels and the like; without names, all
cases, which takes an hour on two cores: XLA compiles each network.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path += [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "models")]
import untrained

from imgclf.exports import timm
from imgclf.exports.choices import Options

KERAS = untrained.KERAS
PLAIN = (
    *("resnet18", "resnet18d", "resnet50", "resnext50_32x4d", "regnet_y_4gf", "mobilenet_v2", "mobilenet_v2_035", "mobilenet_v3_large"),
    *("mobilenet_v4_conv_small", "mobilenet_v4_conv_medium", "convnext_nano", "convnext_tiny", "convnextv2_nano", "efficientnet_b0"),
    *("efficientnet_b1", "efficientnet_v2_s", "inception_v3", "xception", "densenet121", "vit_small_patch16_224"),
    *("vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3", "vit_base_patch16_siglip_224"),
)
SIZES = {"vit_small_patch14_reg4_dinov2": (84, 56), "inception_v3": (80, 96), "xception": (80, 96)}
# name: our model, config.model.variant, fields of config.model, (height, width)
CASES: dict[str, tuple[str, str, dict[str, Any], tuple[int, int]]] = {name: (name, "", {}, SIZES.get(name, (64, 96))) for name in PLAIN}
CASES |= {
    "mobilenet_v2 as Keras": ("mobilenet_v2", KERAS, {}, (64, 96)),
    "efficientnet_b0 as TensorFlow": ("efficientnet_b0", KERAS, {}, (63, 96)),
    "efficientnet_v2_s as torchvision": ("efficientnet_v2_s", "epsilon=0.001", {}, (63, 96)),
    "densenet121 as Keras": ("densenet121", "epsilon=1.001e-5", {}, (64, 96)),
    "mobilenet_v3_large, its own head": ("mobilenet_v3_large", "", {"head.kind": "family"}, (64, 96)),
    "mobilenet_v4_conv_small, its own head": ("mobilenet_v4_conv_small", "", {"head.kind": "family"}, (64, 96)),
    "vgg16, its own head": ("vgg16", "", {"head.kind": "family"}, (64, 96)),
    "vit_small_patch16_224, average": ("vit_small_patch16_224", "pool='average'", {}, (64, 96)),
    "vit_small_patch16_dinov3, token": ("vit_small_patch16_dinov3", "pool='token'", {}, (64, 96)),
    "vit_base_patch16_siglip_224, average": ("vit_base_patch16_siglip_224", "pool='average'", {}, (64, 96)),
    "resnet18, one output": ("resnet18", "", {"output": "sigmoid"}, (64, 96)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="", help="the interpreter with torch and timm; default: this one")
    parser.add_argument("cases", nargs="*", help="some of the cases' names; default: all")
    asked = parser.parse_args()
    programs = Path(timm.__file__).parent / "programs"
    for name in asked.cases or CASES:
        model, variant, fields, size = CASES[name]
        classifier = untrained.exportable(model, variant, size=size, classes=2 if "output" in fields else 5, **fields)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            timm.FORMAT.check(classifier, Options())
            about = timm.FORMAT.write(classifier, place, Options())["timm"]
            (place / timm.NETWORK).write_bytes((programs / timm.NETWORK).read_bytes())
            shown = untrained.images(size, 3)
            answers = timm.FORMAT.answers(place, shown, Options(python=asked.python))
        wanted = untrained.logits(classifier, shown)
        worst = max(float(np.abs(outputs["logits"] - wanted).max()) for outputs in answers.outputs.values()) / np.ptp(wanted)
        differ = np.abs(wanted[0] - wanted[1]).max() / np.ptp(wanted)
        print(f"{name:40} {worst:.0e}  (images differ by {differ:.2f})  {about['architecture']} {about['model_args']}", flush=True)
        assert answers.outputs, "torch and timm are not here: --python names an interpreter that has them"
        assert worst < 1e-4


if __name__ == "__main__":
    main()
