"""A trained network as the explanations take it, and the number that they explain: the score of a class."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf import models
from imgclf.config import Config
from imgclf.models import forms
from imgclf.models.airbench import ScaledHead
from imgclf.models.heads import DenseHead
from imgclf.models.network import Network
from imgclf.training import sharding, step
from imgclf.training.state import Tree, split_model

_PIXELS_ON_CPU, _PIXELS = 4 * 224 * 224, 64 * 224 * 224  # of the images that are computed together


@dataclasses.dataclass(frozen=True)
class Explained:
    """A trained network.

    Attributes:
      config: of the run, resolved.
      graphdef: the network's static definition.
      params, batch_stats: nested dicts of arrays.
    """

    config: Config
    graphdef: nnx.GraphDef
    params: Tree
    batch_stats: Tree

    @classmethod
    def of(cls, config: Config, classes: int, params: Tree, batch_stats: Tree) -> "Explained":
        """That of a run's config and kept model."""
        graphdef, _, _ = split_model(models.abstract(config, classes))
        return cls(config, graphdef, params, batch_stats)

    @functools.cached_property
    def network(self) -> Network:
        """The network with its parameters."""
        return nnx.merge(self.graphdef, nnx.State(self.params), nnx.State(self.batch_stats))

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the input, by channel."""
        return tuple(self.config.data.mean), tuple(self.config.data.std)

    @property
    def batch_size(self) -> int:
        """How many images are computed together: on the CPU few, whose maps stay in the processor's cache."""
        height, width = self.config.data.image_size
        return max(1, (_PIXELS_ON_CPU if forms.target_of(_mesh()).platform == "cpu" else _PIXELS) // (height * width))

    @functools.cached_property
    def place_count(self) -> tuple[int, int]:
        """Height and width of what `Network.places` returns; nothing is computed."""
        image = jax.ShapeDtypeStruct((1, *self.config.data.image_size, 3), jnp.float32)
        shape = jax.eval_shape(lambda image: self.network.places(image)[0], image).shape
        return shape[1], shape[2]

    @property
    def adds_up(self) -> bool:
        """Whether HiResCAM's contributions are the logit without its bias: where a linear head gets the last maps, pooled or flattened."""
        height, width = self.config.data.image_size
        head, backbone = self.network.head, self.network.backbone
        linear = isinstance(head, ScaledHead) or (isinstance(head, DenseHead) and head.depth == 0 and not head.normalize)
        return linear and backbone.map_size(height, width) == self.place_count

    def features_and_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pooled features, float32 [n, D], and logits, float32 [n, C], of images as evaluation shows them: uint8 [n, H, W, 3], or
        [n, V, H, W, 3] where `config.eval.views` asks for several views.
        """
        run = step.make_eval_step(self.config, self.graphdef, _mesh(), features=True)
        found = []
        for rows in batches(len(images), self.batch_size):
            image = padded(images[rows], self.batch_size)
            index = np.arange(len(image), dtype=np.int32)
            batch = {"image": image, "label": np.zeros(len(image), np.int32), "index": index, "mask": np.ones(len(image), bool)}
            out = run(self.params, self.batch_stats, jax.tree.map(jnp.asarray, batch))
            found.append([np.asarray(out[name])[: len(images[rows])] for name in ("features", "logits")])
        features, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return features, logits


def scores(logits: jax.Array, labels: jax.Array, *, single: bool) -> jax.Array:
    """The number that an explanation is of: each image's logit of a class, float32 [B], of logits [B, C] and labels int [B].

    A network with a single output z has the logits [0, z], of which the first depends on nothing: its classes' scores are −z and z, the
    logarithms of their odds.
    """
    if single:
        return logits[:, 1] * (2 * labels - 1)
    return jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]


def is_single(model: Explained) -> bool:
    """Whether the network has one output, for two classes."""
    return model.config.model.output == "sigmoid"


def classes_of(labels: np.ndarray) -> np.ndarray:
    """The classes to explain of each image, int32 [n, k], of labels int [n] or [n, k]."""
    labels = np.asarray(labels, np.int32)
    return labels[:, None] if labels.ndim == 1 else labels


def batches(count: int, size: int) -> list[slice]:
    """The slices of so many rows, `size` at a time."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def padded(values: np.ndarray, size: int) -> np.ndarray:
    """The rows with the last one again and again, `size` in all, so that one compilation serves every batch."""
    return values if len(values) == size else np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


@functools.cache
def _mesh() -> jax.sharding.Mesh:
    """One device: what is explained are a few images."""
    return sharding.create_mesh(jax.local_devices()[:1])
