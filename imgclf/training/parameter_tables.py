"""Regex tables over parameter paths: the first row that matches a parameter's whole path gives its value."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from imgclf.config import Config
from imgclf.errors import UserError
from imgclf.models.layer_groups import group_of
from imgclf.training.state import Tree, path_name


def match_table(table: tuple[tuple[str, Any], ...], params: Tree, field: str, example: str = "('.*', 1.0)") -> Tree:
    """Maps each parameter to the value of the first row whose regex matches its whole path.

    Args:
      table: rows (regex, value).
      params: nested dicts.
      field: the config field, for the error message.
      example: a row that covers everything, likewise.

    Raises:
      UserError: for a parameter that no row covers, or a row that matches no parameter, with the nearest names.
    """
    found = _first_rows(table, params)
    for name, value in found.values.items():
        if value is None:
            raise UserError(f"{field} has no row for parameter {name!r}; add one, such as {example} at the end.")
    found.check(field)
    return jax.tree_util.tree_map_with_path(lambda path, _: found.values[path_name(path)], params)


def match_rows(table: tuple[tuple[str, Any], ...], params: Tree, field: str) -> dict[str, Any]:
    """The value of the first row that matches each parameter, by path; None where there is none.

    Args:
      table, params, field: see `match_table`.

    Raises:
      UserError: for a row that matches no parameter, with the nearest names.
    """
    found = _first_rows(table, params)
    found.check(field)
    return found.values


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What a table says of each parameter, by path (None = nothing), and its patterns that match none of them."""

    values: dict[str, Any]
    idle: tuple[str, ...]

    def check(self, field: str) -> None:
        for pattern in self.idle:
            raise UserError(f"{field} has a row {pattern!r} that matches no parameter; near misses: {near_misses(pattern, self.values)}.")


def _first_rows(table: tuple[tuple[str, Any], ...], params: Tree) -> _Rows:
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    values: dict[str, Any] = dict.fromkeys(names)
    idle = []
    for pattern, value in table:
        matched = [name for name in names if re.fullmatch(pattern, name)]
        if not matched:  # one whose parameters an earlier row took is no slip
            idle.append(pattern)
        values |= {name: value for name in matched if values[name] is None}
    return _Rows(values, tuple(idle))


def near_misses(pattern: str, names: Iterable[str]) -> str:
    """The names that a pattern may have meant, for an error message."""
    plain, known = re.sub(r"[^\w/]+", "", pattern), list(names)
    return ", ".join(difflib.get_close_matches(plain, known, n=3, cutoff=0.3) or known[:3])


def lr_multipliers(config: Config, params: Tree, depths: Mapping[str, int] | None, norm_gains: Mapping[str, float] | None = None) -> Tree:
    """The factor of each parameter's learning rate: its row of `lr_table`, times layer_decay^depth, over its gain in `norm_gains`.

    `depths` gives that of each layer group of the backbone, 1 at its end (`models.layer_groups.depths`); the head's is 0. So BEiT has it
    (Bao et al., 2022, https://arxiv.org/abs/2106.08254; `get_parameter_groups`), and ELECTRA with the depths counted from 0 at the last
    layer. `norm_gains`: see `freeze.norm_gains`.
    """
    table = match_table(config.optimizer.lr_table, params, "config.optimizer.lr_table")
    units, gains = depths or {}, norm_gains or {}

    def multiplier(path: tuple[Any, ...], value: float) -> float:
        name = path_name(path)
        unit = group_of(name, units)
        return value * config.optimizer.layer_decay ** (units[unit] if unit else 0) / gains.get(name, 1.0)

    return jax.tree_util.tree_map_with_path(multiplier, table)
