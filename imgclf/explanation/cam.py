"""HiResCAM: which places of an image speak for a class, and which against it.

R. L. Draelos and L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", 2020
(https://arxiv.org/abs/2011.08891): the last maps times the gradient of the class's score with respect to them, summed over channels. Where
the head is linear on pooled or flattened maps, the sum over a map is the score without its bias, exactly; the gradient of such a head
is its own weights, so that nothing is computed for it beside the forward pass. Grad-CAM, which averages the gradient over the places first,
is the same where a linear head averages the maps; elsewhere it may show places that the network did not use.

What "the last maps" are of a Vision Transformer, see `models.vit.VisionTransformer.places`: tokens of patches, without the class token and
the registers. Where these are not pooled by a linear head, as with a class token or attention pooling, the sum is not the score.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.errors import UserError
from imgclf.explanation.explained import Explained, batches, classes_of, is_single, padded, scores
from imgclf.training.state import Tree
from imgclf.training.step import normalize


def maps(model: Explained, images: np.ndarray, labels: np.ndarray, *, on_batch: Callable[[int], None] = lambda images: None) -> np.ndarray:
    """Explains images by HiResCAM, at about the cost of a forward pass.

    Args:
      model: the trained network.
      images: uint8 [n, H, W, 3], the plain views that evaluation shows of them (`augment.Preprocessing.plain`).
      labels: int [n], the class that is explained; or several, [n, k].
      on_batch: told of the number of images that are done after each batch.

    Returns:
      float32 [n, h, w], or [n, k, h, w]: contributions to the logit of the class, of the places of the network's last maps. They add up to
      the logit less its bias where the head is linear.

    Raises:
      UserError: if the last maps have one place only, so that they can't tell places apart.
    """
    need_places(model)
    explain = compiled(model)
    classes = classes_of(labels)
    size = min(model.batch_size, 1 << max(0, len(images) - 1).bit_length())
    found = []
    for rows in batches(len(images), size):
        made = explain(model.params, model.batch_stats, padded(images[rows], size), padded(classes[rows], size))
        found.append(np.asarray(made)[: len(images[rows])])
        on_batch(len(images[rows]))
    joined = np.concatenate(found) if found else np.zeros((0, classes.shape[1], *model.place_count), np.float32)
    return joined if np.ndim(labels) > 1 else joined[:, 0]


def need_places(model: Explained) -> None:
    """Raises a UserError where the network's last maps have one place only."""
    if model.place_count == (1, 1):
        height, width = model.config.data.image_size
        raise UserError(
            f"The last maps of {model.config.model.name} have a single place at {height} x {width} pixels, so that HiResCAM can't tell "
            "places apart: give method='occlusion'."
        )


def compiled(model: Explained) -> jax.stages.Wrapped:
    """The function under `jax.jit` that `maps` calls: (params, batch_stats, images, labels int32 [n, k]) to float32 [n, k, h, w]."""
    return _compiled(model.graphdef, *model.normalization, is_single(model))


@functools.lru_cache(maxsize=8)
def _compiled(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...], single: bool) -> jax.stages.Wrapped:
    @jax.jit
    def explain(params: Tree, batch_stats: Tree, image: jax.Array, labels: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
        places, logits_of = model.places(normalize(image, mean, std))

        def contributions(label: jax.Array) -> jax.Array:
            gradient = jax.grad(lambda places: scores(logits_of(places), label, single=single).sum())(places)
            return (gradient.astype(jnp.float32) * places.astype(jnp.float32)).sum(-1)

        return jax.vmap(contributions, in_axes=1, out_axes=1)(labels)

    return explain
