"""The weights of classes in the loss: by a rule, or one by one."""

from collections.abc import Sequence

import numpy as np

from imgclf.config import Config, named_values
from imgclf.data.table import Dataset
from imgclf.errors import UserError, nearest

_RULES = ("none", "balanced", "turicreate")


def class_counts(dataset: Dataset) -> np.ndarray:
    """Training images of each class, int64 [C]."""
    labels = dataset.table.loc[dataset.table["split"] == "train", "label"]
    return np.bincount(labels, minlength=len(dataset.class_names))


def class_weights(config: Config, class_names: Sequence[str], counts: np.ndarray) -> np.ndarray | None:
    """Returns the loss's weight of each class, float32 [C], or None for equal ones. The loss is the weighted mean: only ratios count.

    `balanced` is scikit-learn's n / (C · n_c); `turicreate` is TuriCreate's (1 / n_c) / Σ(1 / n_i). Explicit ones are written
    `cat=1, dog=2.5`, classes left out weigh 1; a name with a comma or with quotes at its beginning stands in quotes: `'cat, big'=1`.

    Args:
      config: `train.class_weights` counts.
      class_names: C names.
      counts: int [C], training images of each class.

    Raises:
      UserError: for an unknown rule or class, and a weight that is no number.
    """
    rule = config.train.class_weights
    counts = np.maximum(counts.astype(np.float64), 1)
    if rule == "none":
        return None
    if rule == "balanced":
        return (counts.sum() / (len(counts) * counts)).astype(np.float32)
    if rule == "turicreate":
        return (1 / counts / np.sum(1 / counts)).astype(np.float32)
    weights = np.ones(len(class_names), np.float32)
    for name, weight in parse(rule).items():
        if name not in class_names:
            raise UserError(f"config.train.class_weights={rule!r} names no class {name!r}; {nearest(name, class_names)}")
        weights[list(class_names).index(name)] = weight
    return weights


def parse(text: str) -> dict[str, float]:
    """Reads explicit weights: `"cat=1, dog=2.5"`, `"'a=b'=2, \\"cat, big\\"=1"`.

    Raises:
      UserError: for text of another form, a weight that is not a number of 0 or more, and a class that is named twice.
    """
    if "=" not in text:
        raise UserError(f"config.train.class_weights={text!r} is no rule; {nearest(text, _RULES)} Or give weights: 'cat=1, dog=2.5'.")
    try:
        items = named_values.assignments(text)
    except UserError as error:
        raise UserError(f"config.train.class_weights={error}") from None
    return {name: _weight(weight, name, text) for name, weight in items.items()}


def _weight(text: str, name: str, rule: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not (np.isfinite(weight) and weight >= 0):
        raise UserError(f"config.train.class_weights={rule!r}: the weight of {name!r} must be a number, 0 or more.")
    return weight
