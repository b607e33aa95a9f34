"""Small networks with random parameters, as explanations take them."""

import numpy as np
from networks import created

from imgclf.config import default_config
from imgclf.explanation.explained import Explained
from imgclf.training.state import split_model


def explained(name: str = "cnn", size: int = 16, classes: int = 3, **fields) -> Explained:
    """An untrained network of this name whose head, where it has a bias, has one that is not 0."""
    config = default_config()
    config.model.name = name
    config.data.image_size = (size, size)
    config.data.mean, config.data.std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    config.model.cnn.widths, config.model.cnn.dense = (4, 8), ()
    config.update_from_flattened_dict(fields)
    graphdef, params, batch_stats = split_model(created(config, classes))
    if "bias" in params["head"]["logits"]:
        params["head"]["logits"]["bias"] += np.linspace(-1, 1, params["head"]["logits"]["bias"].size)
    return Explained(config, graphdef, params, batch_stats)
