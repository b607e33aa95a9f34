"""Finds by timing which form each part of a network's convolutions should have on this machine; see `chosen`.

What is found is kept in the cache folder, for this kind of CPU, number of cores, jaxlib and oneDNN.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from imgclf import files, progress
from imgclf.models.cpu import chosen, onednn
from imgclf.models.cpu.chosen import Forms, Layer, Table
from imgclf.runtime import processor

_ROUNDS = 5  # in which the forms take turns, so that a slow moment hits all of them
_GAIN = 1.05  # a form must be so many times as fast as the usual one in the middle of the rounds, and faster in most of them


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was found of one part of a layer.

    Attributes:
      part: "forward", "input_gradient" or "kernel_gradient".
      milliseconds: of each form, the median of the rounds; the usual form comes first.
      winner: the form that the part should have.
    """

    part: str
    milliseconds: dict[str, float]
    winner: str


def tune(layers: Sequence[Layer], console: Console) -> dict[Layer, list[Measured]]:
    """Times the forms of each layer's parts, where that was not done before on such a machine.

    Args:
      layers: convolutions of a program, see `chosen.noting`; they take some 0.2 s a form, most of it to compile.
      console: for the progress bar.
    """
    found, distinct = {}, list(dict.fromkeys(layers))
    machine = [processor.describe(), processor.cores(), importlib.metadata.version("jaxlib"), onednn.missing() is None, _ROUNDS]
    with progress.bar(console) as bar:
        task = bar.add_task("Timing forms of convolutions", total=len(distinct))
        for layer in distinct:
            found[layer] = _kept(layer, machine)
            bar.advance(task)
    return found


def table_of(found: dict[Layer, list[Measured]]) -> Table:
    """The forms that have won, of layers where they are not all the usual ones."""
    rows = [(layer, Forms(**{part.part: part.winner for part in parts})) for layer, parts in found.items()]
    return Table(tuple((layer, forms) for layer, forms in rows if forms != chosen.usual(layer)))


def _kept(layer: Layer, machine: list[Any]) -> list[Measured]:
    key = json.dumps([layer, *machine])
    place = files.cached("forms", key, ".json")
    with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or damaged: measured anew
        return [Measured(**part) for part in json.loads(place.read_text(encoding="utf-8"))]
    found = _measure(layer)
    place.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(place, shared=True) as aside:
        aside.write_text(json.dumps([dataclasses.asdict(part) for part in found]), encoding="utf-8")
    return found


def _measure(layer: Layer) -> list[Measured]:
    rng = np.random.default_rng(0)
    x, kernel, grad = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in (layer.maps, layer.kernel, layer.outputs))
    possible, usual, found = chosen.candidates(layer), chosen.usual(layer), []
    for part, names in possible.items():
        times: dict[str, list[float]] = {name: [] for name in names}
        if len(names) > 1:
            runs = {name: _compiled(part, layer, usual._replace(**{part: name})) for name in names}
            for run in runs.values():
                jax.block_until_ready(run(x, kernel, grad))
            for _ in range(_ROUNDS):
                for name, run in runs.items():
                    start = time.perf_counter()
                    jax.block_until_ready(run(x, kernel, grad))
                    times[name].append(1e3 * (time.perf_counter() - start))
        medians = {name: round(statistics.median(rounds), 3) for name, rounds in times.items() if rounds}
        found.append(Measured(part, medians, _winner(times)))
    return found


def _winner(times: dict[str, list[float]]) -> str:
    """The form of the least median, where that is beyond noise; else the first one, which is the usual one."""
    usual, *others = times
    best = usual
    for name in others:
        faster = sum(other < first for other, first in zip(times[name], times[usual], strict=True))
        gains = statistics.median(times[usual]) > _GAIN * statistics.median(times[name]) and faster > 0.75 * len(times[name])
        if gains and statistics.median(times[name]) < statistics.median(times[best]):
            best = name
    return best


def _compiled(part: str, layer: Layer, forms: Forms) -> Callable[..., jax.Array]:
    """The part alone, of the maps, the kernel and the gradient of the outputs."""

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return chosen.conv2d(x, kernel, layer.stride, layer.padding, layer.rounded, forms)

    if part == "forward":
        return jax.jit(lambda x, kernel, grad: conv(x, kernel))
    place = 0 if part == "input_gradient" else 1
    return jax.jit(lambda x, kernel, grad: jax.vjp(conv, x, kernel)[1](grad)[place])
