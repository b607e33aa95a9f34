"""Regex tables over parameter paths: the first row that matches a parameter's whole path gives its value."""

import difflib
import re
from collections.abc import Mapping
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
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    matched = {pattern: False for pattern, _ in table}

    def value_of(path: tuple[Any, ...], _: Any) -> Any:
        name = path_name(path)
        value = None
        for pattern, row_value in table:
            if re.fullmatch(pattern, name):
                matched[pattern] = True  # also where an earlier row took it: the pattern is no slip
                value = row_value if value is None else value
        if value is None:
            raise UserError(f"{field} has no row for parameter {name!r}; add one, such as {example} at the end.")
        return value

    values = jax.tree_util.tree_map_with_path(value_of, params)
    for pattern, found in matched.items():
        if not found:
            plain = re.sub(r"[^\w/]+", "", pattern)
            near = difflib.get_close_matches(plain, names, n=3, cutoff=0.3) or names[:3]
            raise UserError(f"{field} has a row {pattern!r} that matches no parameter; near misses: {', '.join(near)}.")
    return values


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
