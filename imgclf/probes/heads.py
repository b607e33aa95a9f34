"""A classifier's head over pooled features: its parameters from a linear solution, its outputs, and its logits of a split."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.models.heads import Head
from imgclf.models.network import Network
from imgclf.probes.cross_validation import Linear
from imgclf.probes.features import extract
from imgclf.training.state import Tree, split_model

_ROWS = 8192  # of features through the head at once


@dataclasses.dataclass(frozen=True)
class FeatureLogits:
    """`TrainedModel.logits_of` of a head on cached features.

    Attributes:
      config: the whole config, resolved.
      model: its backbone makes the features that the cache lacks.
      dataset: with its splits.
      params, batch_stats: those of the head stand under "head".
    """

    config: Config
    model: Network
    dataset: Dataset
    params: Tree
    batch_stats: Tree

    def __call__(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero((self.dataset.table["split"] == split).to_numpy())
        features = extract(self.config, self.model, self.dataset, rows=rows)
        return rows, head_logits(self.model.head, self.params["head"], self.batch_stats.get("head", {}), features)


def linear_head(solved: Linear, output: str) -> Tree:
    """The parameters of `Head.logits` that give these logits: a column per class, or the difference of two for a sigmoid unit."""
    if output == "sigmoid":
        return {"kernel": solved.kernel[:, 1:] - solved.kernel[:, :1], "bias": solved.bias[1:] - solved.bias[:1]}
    return {"kernel": solved.kernel, "bias": solved.bias}


def rescaled(head: Head, features: np.ndarray) -> np.ndarray:
    """What the output layer of a linear head sees of pooled features, float32 [..., D]."""
    if not head.rescales:
        return features
    return np.concatenate(
        [np.asarray(head.rescaled(jnp.asarray(features[start : start + _ROWS]))) for start in range(0, len(features), _ROWS)]
    )


def head_logits(head: nnx.Module, params: Tree, batch_stats: Tree, features: np.ndarray) -> np.ndarray:
    """Runs a head in evaluation mode over pooled features, float32 [N, D]; returns logits, float32 [N, C]."""
    graphdef, _, _ = split_model(head)
    parts = (features[start : start + _ROWS] for start in range(0, len(features), _ROWS))
    return np.concatenate([np.asarray(_head_forward(graphdef, params, batch_stats, part)) for part in parts])


@functools.partial(jax.jit, static_argnums=0)  # one program for all heads of a kind
def _head_forward(graphdef: nnx.GraphDef, params: Tree, batch_stats: Tree, features: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):  # hidden layers' products too: cached features are float32
        return nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))(features[:, None, None])
