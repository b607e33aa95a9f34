"""The greedy soup: an average of good models of one run, taken in one by one while val gets no worse.

Wortsman et al., "Model soups", ICML 2022 (https://arxiv.org/abs/2203.05482), recipe 1.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from imgclf.training.state import Tree

Model = tuple[Tree, Tree]  # params, batch_stats


@dataclasses.dataclass(frozen=True)
class Soup:
    """An average of models: params and statistics (numpy trees, float32), the names of what is in it, its value on val."""

    params: Tree
    batch_stats: Tree
    ingredients: tuple[str, ...]
    value: float


def greedy(names: Sequence[str], load: Callable[[str], Model], value_of: Callable[[Tree, Tree], float], *, lower_is_better: bool) -> Soup:
    """Begins with the first model, and takes in each further one with which the average is no worse.

    BatchNorm's statistics are averaged as the parameters are; the paper's networks have none. That is near enough for models of one
    run, and val is the judge.

    Args:
      names: of the models, the best first.
      load: reads one.
      value_of: a model's value on val.
      lower_is_better: of that value.
    """
    total: Model | None = None
    chosen: list[str] = []
    best: tuple[Model, float] | None = None
    for name in names:
        added = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), load(name))
        tried = added if total is None else jax.tree.map(np.add, total, added)
        average = jax.tree.map(lambda leaf: (leaf / (len(chosen) + 1)).astype(np.float32), tried)
        value = value_of(*average)
        if best is None or (value <= best[1] if lower_is_better else value >= best[1]):
            total, best = tried, (average, value)
            chosen.append(name)
    if best is None:
        raise ValueError("a soup needs a model to begin with")
    return Soup(*best[0], tuple(chosen), best[1])
