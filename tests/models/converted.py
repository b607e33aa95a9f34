"""Our networks with converted weights, for the tests that compare them with their origin."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import registry
from imgclf.models.heads import DenseHead
from imgclf.models.network import Network
from imgclf.models.weights import conversion
from imgclf.models.weights.conversion import Tree, Weights

Options = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A network for images of one shape; `apply(params, batch_stats, image)` returns logits and the new batch_stats."""

    abstract: Network
    params_like: Tree
    batch_stats_like: Tree
    apply: Callable[..., tuple[jax.Array, Tree]]


def compile_quickly(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Compiles without LLVM's optimisation, which takes longer than the few multiplications it would speed up."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function).lower(*arguments).compile(options)


def network(entry: Weights, images: tuple[int, ...], classes: int, *, train: bool = False, **head: Any) -> Compiled:
    """The network that published weights need, with the head they were published with; `head` are its options."""
    return _network(entry.model, tuple(entry.variant.items()), images, classes, train, tuple(head.items()))


@functools.cache  # weights of several origins may need the same one
def _network(model: str, variant: Options, images: tuple[int, ...], classes: int, train: bool, head: Options) -> Compiled:
    def build() -> Network:
        rngs = nnx.Rngs(0)
        backbone = registry.builder(model)(**dict(variant), rngs=rngs)
        build_head = registry.family(model).head or DenseHead
        return Network(backbone, build_head(backbone.map_size(*images[1:3]), backbone.features, classes, **dict(head), rngs=rngs))

    abstract = nnx.eval_shape(build)
    graphdef, *states = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    params, batch_stats = map(nnx.to_pure_dict, states)

    def apply(params: Tree, batch_stats: Tree, image: jax.Array) -> tuple[jax.Array, Tree]:
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
        return model(image, train=train), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return Compiled(abstract, params, batch_stats, compile_quickly(apply, params, batch_stats, jax.ShapeDtypeStruct(images, jnp.float32)))


def convert(entry: Weights, tensors: dict[str, np.ndarray], network: Compiled) -> tuple[Tree, Tree]:
    """Params and batch_stats from all tensors of a file, by the rules of the weights' layout."""
    rules = registry.family(entry.model).conversion[entry.layout]
    return conversion.convert(tensors, rules, network.params_like, network.batch_stats_like)


def difference(ours: jax.Array, theirs: np.ndarray) -> float:
    """The largest difference, relative to the standard deviation of theirs."""
    return float(np.abs(np.asarray(ours) - theirs).max() / theirs.std())


def normal(state: nnx.State | Tree, numbers: np.random.Generator) -> Tree:
    """Numbers drawn from a normal distribution in the shapes of a state, such as an abstract network's parameters."""
    tree = nnx.to_pure_dict(state) if isinstance(state, nnx.State) else state
    return jax.tree.map(lambda leaf: numbers.normal(size=leaf.shape).astype(np.float32), tree)
