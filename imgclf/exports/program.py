"""The program that is exported: from uint8 images to logits, probabilities and features, as one function of JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf import models
from imgclf.exports.exportable import Exportable
from imgclf.models.network import Network
from imgclf.training.state import split_model
from imgclf.training.step import normalize

OUTPUTS = ("logits", "probabilities", "features")


def network(exportable: Exportable) -> Network:
    """The trained network, which computes in float32."""
    config = exportable.config.copy_and_resolve_references()
    config.model.precision = "f32"
    abstract = models.abstract(config, len(exportable.class_names))
    graphdef, _, _ = split_model(abstract)
    return nnx.merge(graphdef, nnx.State(exportable.params), nnx.State(exportable.batch_stats))


def program(exportable: Exportable) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Returns the function from images, uint8 [B,H,W,3], to "logits" and "probabilities", float32 [B,C], and "features", float32 [B,D].

    Trace it within `models.forms.portable`.
    """
    model, data = network(exportable), exportable.config.data
    offset = np.asarray(exportable.logit_offset or 0, np.float32)

    def both(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model.features_and_logits(normalize(image, tuple(data.mean), tuple(data.std)))

    def outputs(image: jax.Array) -> dict[str, jax.Array]:
        if exportable.flips:  # in one pass, so that the parameters stand in the graph once
            views = jnp.concatenate([image, jax.lax.rev(image, (2,))])
            features, logits = (value.reshape(2, image.shape[0], -1).sum(0) * np.float32(0.5) for value in both(views))
            logits = model.logits_of_features(features) if model.head.takes_features else logits
        else:
            features, logits = both(image)
        scaled = (logits + offset if exportable.logit_offset else logits) * np.float32(1 / exportable.temperature)
        return {"logits": logits, "probabilities": jax.nn.softmax(scaled, axis=-1), "features": features}

    return lambda image: {name: value.astype(jnp.float32) for name, value in outputs(image).items()}
