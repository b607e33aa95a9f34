"""Rematerialisation: activations that the backward pass computes again instead of keeping them, by table over the network's modules.

Chen et al., "Training deep nets with sublinear memory cost", 2016 (https://arxiv.org/abs/1604.06174).
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

from imgclf.errors import UserError
from imgclf.models.network import Network
from imgclf.training.parameter_tables import near_misses

Rows = tuple[tuple[str, str], ...]  # path of a module, policy
Policy = Callable[..., bool]

_FIELD = "config.train.remat"
_PRODUCTS = ("dot_general", "conv_general_dilated")


def _keeps_products(primitive: jax.extend.core.Primitive, *_: Any, **__: Any) -> bool:
    return primitive.name in _PRODUCTS


# What is kept within a module; its inputs always are.
_POLICIES: dict[str, Policy] = {"all": jax.checkpoint_policies.nothing_saveable, "cheap": _keeps_products}


def resolve(table: Rows, model: Network) -> Rows:
    """The modules that a table names, outermost first: those within one that is computed again are not told of.

    Args:
      table: rows (regex over the paths of modules, such as backbone/stage1/0, policy); the first that matches a whole path counts.
      model: the network.

    Raises:
      UserError: for a row that matches no module, with the nearest names.
    """
    paths = ["/".join(map(str, path)) for path, _ in nnx.iter_modules(model) if path]
    for pattern, _ in table:
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise UserError(f"{_FIELD} has a row {pattern!r} that matches no module; near misses: {near_misses(pattern, paths)}.")
    found: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        policy = next((policy for pattern, policy in table if re.fullmatch(pattern, path)), "none")
        if policy != "none" and not any(path.startswith(f"{outer}/") for outer in found):
            found[path] = policy
    return tuple(found.items())


@contextlib.contextmanager
def applied(rows: Rows, model: nnx.Module) -> Iterator[None]:
    """Has calls of these modules, within the block, keep what their policies say; `rows` are those of `resolve`."""
    places = [_place(model, path) for path, _ in rows]
    for (parent, name), (_, policy) in zip(places, rows, strict=True):
        vars(parent)[name] = _Rematerialized(vars(parent)[name], _POLICIES[policy])
    try:
        yield
    finally:
        for parent, name in places:
            vars(parent)[name] = vars(parent)[name].module


def _place(model: nnx.Module, path: str) -> tuple[nnx.Module, str]:
    """The module that holds the one of this path, and the name by which it does."""
    *outer, name = path.split("/")
    parent = model
    for part in outer:
        parent = vars(parent)[part]
    return parent, name


class _Rematerialized:
    """Takes a module's place: its calls are computed again in the backward pass; all else of it is the module's own."""

    def __init__(self, module: nnx.Module, policy: Policy):
        self.module, self._policy = module, policy

    def __getattr__(self, name: str) -> Any:  # such as the channels of a convolution
        return getattr(self.module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        graphdef, *states = nnx.split(self.module, nnx.Param, nnx.BatchStat)
        leaves, structure = jax.tree.flatten((args, kwargs))
        arrays = {place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}

        def call(params: nnx.State, batch_stats: nnx.State, arrays: dict[int, jax.Array]) -> tuple[Any, nnx.State]:
            module = nnx.merge(graphdef, params, batch_stats)
            args, kwargs = jax.tree.unflatten(structure, [arrays.get(place, leaf) for place, leaf in enumerate(leaves)])
            return module(*args, **kwargs), nnx.state(module, nnx.BatchStat)

        out, batch_stats = jax.checkpoint(call, policy=self._policy)(*states, arrays)
        nnx.update(self.module, batch_stats)
        return out
