"""What there is: every model with its size and its published weights."""

import math
from typing import Any

from flax import nnx

from imgclf.config import default_config
from imgclf.models import create, registry
from imgclf.models.weights import conversion


def entries() -> list[dict[str, Any]]:
    """Returns, for every model but those for tests: `name`, `parameters` (with the published head), and `weights`.

    Each of `weights` has `name`, `input_size`, `mean`, `std`, `num_classes`, `top1` (published, percent, or None), `licence`, `hub`
    (repository on the Hugging Face hub, or "") and `source`.
    """
    known = registry.weights().values()
    return [
        {
            "name": name,
            "parameters": parameters,
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
        for name, parameters in registry.PARAMETERS.items()
    ]


def count(name: str) -> int:
    """Parameters of a model with its published head, else with a linear one of 1,000 classes."""
    entry = next((entry for entry in registry.weights().values() if entry.model == name), None)
    config = default_config()
    config.model.name = name
    config.model.head.kind = "family"
    if entry is not None:
        config.data.image_size = entry.input_size
        config.model.variant = ", ".join(f"{key}={value!r}" for key, value in entry.variant.items())
    model = nnx.eval_shape(lambda: create(config, entry.num_classes if entry else 1000))
    return sum(math.prod(leaf.shape) for leaf in conversion.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).values())
