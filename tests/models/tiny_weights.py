"""Files of random weights for the small models, in the names that their large relatives are published with."""

import json
from pathlib import Path

import numpy as np
from flax import nnx
from random_weights import torch_weights
from safetensors.numpy import save_file

from imgclf.models import registry
from imgclf.models.weights import conversion

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RELATIVES = {
    "resnet_tiny": ("timm", "timm_resnet50.a1_in1k"),
    "mobilenet_v2_tiny": ("torchvision", "torchvision_mobilenet_v2.v1"),
    "inception_v3_tiny": ("torchvision", "torchvision_inception_v3.v1"),
    "vgg_tiny": ("torch16", "timm_vgg16.tv_in1k"),
}
# the small one's second and third block are of the kinds of these
MOVED = {"Mixed_5c": "", "Mixed_5d": "", "Mixed_6a": "Mixed_5c", "Mixed_7b": "Mixed_5d"}


def save(model: str, path: Path) -> str:
    """Writes a backbone's weights, the same in every run; returns what `config.model.weights` is then."""
    layout, golden = RELATIVES[model]
    module = nnx.eval_shape(lambda: registry.builder(model)(rngs=nnx.Rngs(0)))
    wanted = {f"backbone/{name}": leaf.shape for name, leaf in conversion.flatten(nnx.to_pure_dict(nnx.state(module))).items()}
    rules, shapes = registry.family(model).conversion[layout], {}
    for name, full in json.loads((GOLDEN / f"{golden}.json").read_text())["tensors"].items():
        block = name.split(".")[0]
        name = name.replace(block, MOVED.get(block, block), 1)
        target, transform = conversion.match(name, rules) or (None, None)
        if target in wanted:
            order = transform(np.zeros(range(2, 2 + len(full)))).shape  # which axis goes where
            shapes[name] = tuple(wanted[target][order.index(axis)] for axis in range(2, 2 + len(full)))
    save_file(torch_weights(shapes, model), path)
    return f"path:{path}"
