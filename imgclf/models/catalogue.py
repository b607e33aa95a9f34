"""What there is: every model with its size and its published weights."""

import math
from typing import Any

from flax import nnx

from imgclf.config import default_config
from imgclf.models import conversion, create, families

# Counting takes up to seconds a model, so that the large ones stand here; tests/models/test_catalogue.py counts them again.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v2_035": 1_677_128,
    "mobilenet_v2_050": 1_968_680,
    "mobilenet_v2_075": 2_636_424,
    "mobilenet_v2_130": 5_386_792,
    "mobilenet_v2_140": 6_108_776,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "efficientnet_b0": 5_288_548,
}


def entries() -> list[dict[str, Any]]:
    """Returns, for every model: `name`, `parameters` (with the published head, else a linear one of 1,000 classes), and `weights`.

    Each of `weights` has `name`, `input_size`, `mean`, `std`, `num_classes`, `top1` (published, percent, or None), `licence`, `hub`
    (repository on the Hugging Face hub, or "") and `source`.
    """
    known = families.weights().values()
    return [
        {
            "name": name,
            "parameters": PARAMETERS.get(name) or count(name),
            "weights": [
                {
                    "name": entry.name,
                    "input_size": list(entry.input_size),
                    "mean": list(entry.mean),
                    "std": list(entry.std),
                    "num_classes": entry.num_classes,
                    "top1": entry.top1,
                    "licence": entry.licence,
                    "hub": entry.repo,
                    "source": entry.source,
                }
                for entry in known
                if entry.model == name
            ],
        }
        for name in families.NAMES
    ]


def count(name: str) -> int:
    """Parameters of a model with its published head, else with a linear one of 1,000 classes."""
    entry = next((entry for entry in families.weights().values() if entry.model == name), None)
    config = default_config()
    config.model.name = name
    config.model.head.kind = "family"
    if entry is not None:
        config.data.image_size = entry.input_size
        config.model.variant = ", ".join(f"{key}={value!r}" for key, value in entry.variant.items())
    model = nnx.eval_shape(lambda: create(config, entry.num_classes if entry else 1000))
    return sum(math.prod(leaf.shape) for leaf in conversion.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).values())
