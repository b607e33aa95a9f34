"""How the state of a training lies on the mesh: which parameters are split, over which of its axes, and what follows them.

The optimizer's state, averages and accumulated gradients lie as the parameters that they belong to (ZeRO, Rajbhandari et al., 2020,
https://arxiv.org/abs/1910.02054, stage 3). A step gathers a parameter over `fsdp` where it is used, and its gradient
belongs to the parts. What is split over `model` stays so. Whether a gathered parameter is kept for the backward pass is the compiler's
choice: those of XLA that were tried, for CPUs and TPU v5e, keep it.
"""

import dataclasses
import functools
import math
import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgclf.config.training_fields import MeshConfig
from imgclf.errors import UserError
from imgclf.models.weights.conversion import flatten, nest
from imgclf.training import sharding
from imgclf.training.parameter_tables import match_rows
from imgclf.training.state import Tree, path_name

_LOGITS = re.compile(r"head/logits/(kernel|bias)")
_FIELD = "config.mesh.rules"
_AXES = ("data", "fsdp", "model")


@dataclasses.dataclass(frozen=True)
class Split:
    """A parameter of this path and shape that is split over axes of the mesh."""

    path: str
    shape: tuple[int, ...]
    spec: PartitionSpec


@dataclasses.dataclass(frozen=True)
class Rules:
    """`config.mesh.rules` and `.split_from_mb`, hashable."""

    rules: tuple[tuple[str, str], ...]
    split_from_mb: float

    @classmethod
    def of(cls, options: MeshConfig) -> "Rules":
        return cls(options.rules, options.split_from_mb)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each part of a state lies; hashable, as it is part of the key of a compiled step.

    Attributes:
      mesh: of all devices.
      splits: the parameters that are split; everything else is whole on every device.
    """

    mesh: Mesh
    splits: tuple[Split, ...] = ()

    @classmethod
    def create(cls, options: "MeshConfig | Rules", params: Tree, mesh: Mesh) -> "Layout":
        """Lays out parameters by `config.mesh`; the sizes of its axes are those of the mesh.

        Args:
          options: `config.mesh`, or its rules alone.
          params: of which only paths, shapes and dtypes count.
          mesh: of all devices.

        Raises:
          UserError: for a row that matches no parameter, or can't be applied to one that it matches.
        """
        rows = match_rows(options.rules, params, _FIELD)
        splits = []
        for path, leaf in flatten(params).items():
            how = rows[path] or "auto"
            spec = _automatic(path, leaf, mesh, options.split_from_mb) if how == "auto" else _stated(path, leaf, mesh, how)
            if any(math.prod(mesh.shape[axis] for axis in _axes(entry)) > 1 for entry in spec):
                splits.append(Split(path, tuple(leaf.shape), spec))
        return cls(mesh, tuple(splits))

    def shardings(self, tree: Any) -> Any:
        """The sharding of each leaf of a tree, in which parts of the state stand under the paths of their parameters.

        A leaf like a parameter (its momentum, its average) has that one's path at the end of its own, and its shape.
        """
        return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(self.mesh, self._spec(path_name(path), leaf)), tree)

    def place(self, tree: Any) -> Any:
        """Puts a tree where it belongs, leaf by leaf; every process passes equal values. What lies there already isn't copied."""
        return sharding.put(tree, self.shardings(tree))

    def like(self, tree: Any) -> Any:
        """Shapes, dtypes and shardings of a tree."""
        return jax.tree.map(lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own), tree, self.shardings(tree))

    def gathered(self, params: Tree) -> Tree:
        """Within a step, the parameters as the network takes them: whole but for what is split over `model`.

        Their gradients are summed into the parts that `params` have.
        """
        if not self.splits:
            return params
        leaves = flatten(params)
        for split in self.splits:
            if split.path in leaves:
                stored, used = NamedSharding(self.mesh, split.spec), NamedSharding(self.mesh, self._used(split))
                leaves[split.path] = _gather(leaves[split.path], stored, used)
        return nest(leaves)

    @property
    def gathers(self) -> bool:
        """Whether a step gathers parameters."""
        return any(self._used(split) != split.spec for split in self.splits)

    def _spec(self, name: str, leaf: Any) -> PartitionSpec:
        parts = name.split("/")
        for start in range(len(parts)):
            split = self._by_path.get("/".join(parts[start:]))
            if split is not None:
                return split.spec if split.shape == tuple(leaf.shape) else PartitionSpec()
        return PartitionSpec()

    @functools.cached_property
    def _by_path(self) -> dict[str, Split]:
        return {split.path: split for split in self.splits}

    def _used(self, split: Split) -> PartitionSpec:
        """How a step takes a parameter: the head's last layer by classes, what a rule splits over `model` so, everything else whole."""
        if self.mesh.shape["model"] > 1 and _LOGITS.fullmatch(split.path):
            return PartitionSpec(*(None,) * (len(split.shape) - 1), "model")
        return PartitionSpec(*("model" if entry == "model" else None for entry in split.spec))


def _axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The axes of the mesh in an entry of a PartitionSpec."""
    return () if entry is None else (entry,) if isinstance(entry, str) else entry


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(leaf: jax.Array, stored: NamedSharding, used: NamedSharding) -> jax.Array:
    del stored
    return jax.lax.with_sharding_constraint(leaf, used)


def _gather_forward(leaf: jax.Array, stored: NamedSharding, used: NamedSharding) -> tuple[jax.Array, None]:
    return _gather(leaf, stored, used), None


def _gather_backward(stored: NamedSharding, used: NamedSharding, residuals: None, gradient: jax.Array) -> tuple[jax.Array]:
    del residuals
    # First as the layer makes it, a sum over the devices' images: else the layer's inputs would be exchanged to make its parts apart.
    whole = jax.lax.with_sharding_constraint(gradient, used)
    return (jax.lax.with_sharding_constraint(whole, stored),)


_gather.defvjp(_gather_forward, _gather_backward)


_CHEAP = ("sharding_constraint", "convert_element_type", "reshape", "transpose", "squeeze", "broadcast_in_dim")


def kept_for_gradient(primitive: jax.extend.core.Primitive, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: everything but whole parameters, and what is only another form of them."""
    return primitive.name not in _CHEAP


def _automatic(path: str, leaf: Any, mesh: Mesh, split_from_mb: float) -> PartitionSpec:
    """The head's last layer by classes over `model`; from `split_from_mb` on, the largest dimension that `fsdp` divides over it."""
    fsdp, model = mesh.shape["fsdp"], mesh.shape["model"]
    entries: list[str | None] = [None] * len(leaf.shape)
    large = leaf.size * leaf.dtype.itemsize >= split_from_mb * 2**20
    if model > 1 and leaf.shape and _LOGITS.fullmatch(path):
        if leaf.shape[-1] % model == 0:
            entries[-1] = "model"
        elif large and leaf.shape[0] % model == 0:  # classes that don't divide: kept by features, and split by classes in each step
            entries[0] = "model"
    if fsdp > 1 and large:
        fitting = [i for i, size in enumerate(leaf.shape) if entries[i] is None and size % fsdp == 0]
        if fitting:
            entries[max(fitting, key=lambda i: (leaf.shape[i], i))] = "fsdp"
    return PartitionSpec(*entries)


def _stated(path: str, leaf: Any, mesh: Mesh, how: str) -> PartitionSpec:
    """Reads a rule, such as `whole` or `-, model`.

    Raises:
      UserError: where it has other words, not an entry for each dimension, an axis twice, or an axis that doesn't divide its dimension.
    """
    if how == "whole":
        return PartitionSpec()
    words = [word.strip() for word in how.split(",")]
    about, shape = f"{_FIELD} has {how!r} for {path!r} of shape {tuple(leaf.shape)}", leaf.shape
    axes = [word for word in words if word != "-"]
    if unknown := [axis for axis in axes if axis not in _AXES]:
        raise UserError(f"{about}, where {unknown[0]!r} is none of: 'auto', 'whole', or one of fsdp, model, data and - for each dimension.")
    if len(words) != len(shape) or len(set(axes)) < len(axes):
        raise UserError(f"{about}; it must say fsdp, model, data or - for each of its {len(shape)} dimensions, each axis once at most.")
    for word, size in zip(words, shape, strict=True):
        if word != "-" and size % mesh.shape[word]:
            raise UserError(f"{about}; {size} does not divide among the {mesh.shape[word]} of {word!r}. Use '-' there.")
    return PartitionSpec(*(None if word == "-" else word for word in words))
