"""The training state: plain nested dicts, split once from the nnx module, so that pure functions go under `jax.jit`."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from imgclf.models.weights.conversion import flatten, nest
from imgclf.training import sharding

Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a step maps to the next one. Every leaf is an array; `step` counts batches (int32 [])."""

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """Splits a model into its static definition and the nested dicts of its parameters and BatchNorm statistics."""
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = map(nnx.to_pure_dict, states)
    return graphdef, params, batch_stats


ApplyFn = Callable[..., tuple[jax.Array, Tree]]


def make_apply_fn(
    graphdef: nnx.GraphDef, around: Callable[[nnx.Module], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
) -> ApplyFn:
    """Returns `apply(params, batch_stats, image, train=False, key=None) -> (logits f32 [B,C], new batch_stats)`, a pure function.

    The network is called within `around(network)`.
    """

    def apply(
        params: Tree, batch_stats: Tree, image: jax.Array, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[jax.Array, Tree]:
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
        with around(model):
            logits = model(image, train=train, key=key)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return apply


def select(tree: Tree, names: Collection[str]) -> Tree:
    """The leaves whose paths (`backbone/stage1/0/conv1/kernel`) are among `names`, in a tree that has no others."""
    return nest({name: leaf for name, leaf in flatten(tree).items() if name in names})


def overlay(tree: Tree, other: Tree) -> Tree:
    """`tree` with the leaves of `other`, which has some of its paths, in place of its own."""
    return nest(flatten(tree) | flatten(other))


def path_name(path: tuple[Any, ...]) -> str:
    """Joins a JAX key path to `backbone/stage1/0/conv1/kernel`, the form that every regex table matches."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_sha256(tree: Any) -> str:
    """Hashes a tree of arrays: paths, shapes, dtypes and bytes of the leaves, in sorted order of the paths; all processes ask together."""
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    digest = hashlib.sha256()
    for name in sorted(leaves):
        leaf = sharding.on_host(leaves[name])
        digest.update(f"{name} {leaf.shape} {leaf.dtype}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def count_parameters(params: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
