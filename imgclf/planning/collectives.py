"""What the chips of a program tell each other: all-reduces and their like, their bytes, and which of them leave a host or a slice."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from imgclf.planning.chips import Chip
from imgclf.planning.hlo import Instruction, Module

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all", "collective-broadcast")
SMALL = 64 * 1024  # bytes below which a collective takes as long as its messages travel, whatever they hold
_CHANNEL = re.compile(r"channel_id=(\d+)")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_BY_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One of them.

    Attributes:
      kind: one of `KINDS`.
      bytes: of one chip's whole result (of a reduce-scatter: of what it begins with), without padding.
      dtypes: of its arrays, without repetition.
      groups: the places of the chips in the mesh that take part together; () = all.
      times: how often it runs.
      name: where it comes from, as JAX names it; "" = the compiler has joined several.
    """

    kind: str
    bytes: int
    dtypes: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    times: int
    name: str


def collectives(module: Module, times: dict[str, int]) -> list[Collective]:
    """The collectives of a program, each once: the compiler may start and end one in two lines, or repeat it in a fusion.

    Args:
      module: the program.
      times: of each computation that runs, how often it does; those inside of fusions too.
    """
    found: dict[str, Collective] = {}
    for name, count in times.items():
        for instruction in module.computations[name].instructions:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            channel = _CHANNEL.search(instruction.attributes)
            key = channel[1] if channel else f"{name}/{instruction.name}"
            found.setdefault(key, _collective(kind, instruction, module, name, count))
    return list(found.values())


def _collective(kind: str, instruction: Instruction, module: Module, computation: str, times: int) -> Collective:
    taken = [array for arrays in module.computations[computation].arrays(instruction) for array in arrays]
    given = list(instruction.results)
    if kind != "all-reduce" and instruction.opcode.endswith("-start") and len(given) > len(taken):
        given = given[len(taken) : 2 * len(taken)]  # (what it takes, what it gives, …)
    moved = taken if kind == "reduce-scatter" else given
    return Collective(
        kind=kind,
        bytes=sum(array.bytes for array in moved),
        dtypes=tuple(sorted({array.dtype for array in moved})),
        groups=_groups(instruction.attributes),
        times=times,
        name=instruction.op_name,
    )


def _groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    if listed := _LISTED.search(attributes):
        return tuple(tuple(int(place) for place in group.split(",") if place.strip()) for group in re.findall(r"\{([\d, ]*)\}", listed[1]))
    if counted := _COUNTED.search(attributes):
        places = np.arange(math.prod(map(int, counted[3].split(",")))).reshape([int(side) for side in counted[3].split(",")])
        if counted[4]:
            places = places.transpose([int(axis) for axis in counted[4].split(",")])
        return tuple(map(tuple, places.reshape(int(counted[1]), int(counted[2])).tolist()))
    if by_axes := _BY_AXES.search(attributes):
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", by_axes[1])}
        own = [list(axes).index(name) for name in re.findall(r"'([^']+)'", by_axes[2])]
        places = np.arange(math.prod(axes.values())).reshape(list(axes.values()))
        rest = [axis for axis in range(len(axes)) if axis not in own]
        joined = places.transpose([*rest, *own]).reshape(-1, math.prod(places.shape[axis] for axis in own))
        return tuple(map(tuple, joined.tolist()))
    return ()


def crossing(groups: tuple[tuple[int, ...], ...], domain: Sequence[int]) -> bool:
    """Whether some chips that take part together lie in different domains.

    Args:
      groups: of a collective; () = all chips.
      domain: of each place of the mesh, the number of the host or slice that has the chip.
    """
    return any(len({domain[place] for place in group}) > 1 for group in groups or (tuple(range(len(domain))),))


def least_seconds(collective: Collective, chip: Chip, domain: Sequence[int]) -> float:
    """A lower bound of its time: what each chip must send at least, at the full rate of all its links in one direction.

    Of an all-reduce of n chips that is 2 (n − 1) / n of its bytes (Patarasuk & Yuan, 2009, https://doi.org/10.1016/j.jpdc.2008.09.002),
    of an all-gather and a reduce-scatter half as much. Where a group lies in several fast domains (slices, or hosts of GPUs), each domain
    must send as much to the others as if it were one chip, at the joint rate of its chips in the network.
    """
    rounds = 2 if collective.kind == "all-reduce" else 1
    longest = 0.0
    for group in collective.groups or (tuple(range(len(domain))),):
        domains = {domain[place] for place in group}
        inside = len(group) // len(domains)
        seconds = rounds * (inside - 1) / inside * collective.bytes / chip.link_rate
        if len(domains) > 1:
            sent = rounds * (len(domains) - 1) / len(domains) * collective.bytes
            seconds = max(seconds, sent / (inside * chip.network_rate))
        longest = max(longest, seconds)
    return collective.times * longest
