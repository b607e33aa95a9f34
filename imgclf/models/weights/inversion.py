"""Conversion tables read backwards: from parameters to the tensors of a file, by the names that other libraries give them.

A table says by patterns where each tensor of a file goes (see conversion.py). Backwards, a pattern and the path that it leads to give the
name: the path holds what the pattern's groups matched, and of what a pattern leaves open the first spelling is taken, which is why tables
name the spelling of the exported file first.
"""

import functools
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.models.weights import conversion
from imgclf.models.weights.conversion import Reordering, Rule, Tree

# Python's own parser of patterns, which the standard library gives no public name; it has had this form since Python 2.
_parser: Any = importlib.import_module("re._parser")
_BLOCKS = [str(number) for number in range(64)] + [chr(letter) for letter in range(ord("a"), ord("z") + 1)]


def invert(params: Tree, batch_stats: Tree, rules: Sequence[Rule], *, prefix: str = "") -> dict[str, np.ndarray]:
    """Names and reorders parameters and statistics as the files of a layout have them; `conversion.convert` gives them back bit by bit.

    Args:
      params, batch_stats: nested dicts of arrays.
      rules: of the family and the layout.
      prefix: what stands for `.+` in a pattern, such as the name of the model, which Keras's ConvNeXt has in its layers' names.

    Returns:
      The tensors by name; those that the file has and the network doesn't need, such as num_batches_tracked, are not among them.

    Raises:
      LookupError: for parameters that the table has no name for; it names the first of them.
    """
    values = {path: np.asarray(leaf) for tree in (params, batch_stats) for path, leaf in conversion.flatten(tree).items()}
    found: dict[str, tuple[str, Reordering]] = {}
    for rule in rules:
        transform = rule[2]
        if isinstance(transform, Reordering):
            for path, name in _names(rule, [path for path in values if path not in found], prefix):
                if conversion.match(name, rules) == (path, transform):  # and not caught by an earlier rule
                    found[path] = name, transform
    missing = sorted(values.keys() - found.keys())
    if missing:
        raise LookupError(f"{len(missing)} parameters have no name there, such as {missing[0]}")
    return {name: np.ascontiguousarray(transform.back(values[path])) for path, (name, transform) in found.items()}


def _names(rule: Rule, paths: Sequence[str], prefix: str) -> Iterator[tuple[str, str]]:
    """For each of the paths that the rule can lead to, the name that leads there."""
    pattern, target, _ = rule
    if callable(target):  # the path is computed from the number, or letter, of a block
        wanted = set(paths)
        for block in _BLOCKS:
            name = _spelled(pattern, prefix, (("1", block),))
            matched = re.fullmatch(pattern, name)
            if matched and (path := target(matched)) in wanted:
                yield path, name
    elif target is not None:
        for path in paths:
            if matched := _shape(target).fullmatch(path):
                yield path, _spelled(pattern, prefix, tuple((group[1:], text) for group, text in matched.groupdict().items()))


@functools.cache
def _shape(target: str) -> re.Pattern[str]:
    """A path in which groups are referred to, such as `backbone/blocks/\\1/conv`, as a pattern with the groups g1, g2, …"""
    parts = re.split(r"\\(\d)", target)
    return re.compile("".join(f"(?P<g{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


@functools.lru_cache(maxsize=1 << 16)
def _spelled(pattern: str, prefix: str, groups: tuple[tuple[str, str], ...]) -> str:
    """A text that the pattern matches: groups are what is given, or else, as all that the pattern leaves open, the first spelling."""
    return _text(_parser.parse(pattern), prefix, {int(number): text for number, text in groups})


def _text(tokens: Any, prefix: str, groups: Mapping[int, str]) -> str:
    return "".join(_token(str(kind), detail, prefix, groups) for kind, detail in tokens)


def _token(kind: str, detail: Any, prefix: str, groups: Mapping[int, str]) -> str:
    if kind == "LITERAL":
        return chr(detail)
    if kind == "ANY":
        return prefix
    if kind == "SUBPATTERN":
        number, _, _, inner = detail
        return groups[number] if number in groups else _text(inner, prefix, groups)
    if kind == "BRANCH":
        return _text(detail[1][0], prefix, groups)
    if kind == "MAX_REPEAT":
        least, _, inner = detail
        return least * _text(inner, prefix, groups)
    if kind == "IN":
        first, value = detail[0]
        return {"LITERAL": lambda: chr(value), "RANGE": lambda: chr(value[0])}.get(str(first), lambda: "0")()
    raise ValueError(f"conversion tables have no {kind} in their patterns")
