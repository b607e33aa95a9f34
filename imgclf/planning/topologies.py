"""The names of sets of accelerators: `v5e:4x4` are sixteen TPUs, `2*v5e:16x16` two slices, `h100:16` two hosts of GPUs."""

import dataclasses
import difflib
import math
import re

from imgclf.errors import UserError
from imgclf.planning.chips import CHIPS, Chip

_NAME = re.compile(r"(?:(\d+)\*)?([A-Za-z]\w*):(\d+(?:x\d+)*)")


@dataclasses.dataclass(frozen=True)
class Topology:
    """So many accelerators of one kind.

    Attributes:
      name: as it was written, `v5e:4x4`.
      chip: of which they all are.
      shape: of a slice of TPUs, (4, 4); of GPUs, (their number,).
      slices: how many slices there are, between which the network of the data centre lies; 1 for GPUs.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def hosts(self) -> int:
        """How many hosts have them; a part of a host is one."""
        return self.slices * math.ceil(math.prod(self.shape) / self.chip.chips_per_host)

    @property
    def chips_per_host(self) -> int:
        return self.chips // self.hosts


def parse(name: str) -> Topology:
    """Reads the name of a topology.

    Raises:
      UserError: for a name that can't be read, an accelerator without a description, and a shape that there is not; with the nearest.
    """
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise UserError(f"--topology {name!r} can't be read: write CHIP:SHAPE, such as v5e:4x4, h100:8 or, for two slices, 2*v5e:16x16.")
    slices, kind, shape = int(match[1] or 1), match[2].lower(), tuple(int(side) for side in match[3].split("x"))
    if kind not in CHIPS:
        raise UserError(f"--topology {name!r} names no accelerator that is described here; {_nearest(kind)}")
    chip = CHIPS[kind]
    if slices < 1 or math.prod(shape) < 1:
        raise UserError(f"--topology {name!r} has no accelerator at all: write a number above 0.")
    if chip.kind == "gpu":
        _check_gpus(name, chip, shape, slices)
        return Topology(name, chip, (math.prod(shape),))
    if shape not in chip.shapes:
        sizes = sorted(chip.shapes, key=lambda known: (len(known) != len(shape), abs(math.log(math.prod(known) / math.prod(shape)))))
        known = ", ".join(_written(kind, each) for each in chip.shapes)
        raise UserError(f"--topology {name!r} is no slice of {chip.title}; the nearest is {_written(kind, sizes[0])} (there are {known}).")
    return Topology(name, chip, shape, slices)


def _check_gpus(name: str, chip: Chip, shape: tuple[int, ...], slices: int) -> None:
    of_host, count = chip.chips_per_host, math.prod(shape) * slices
    if len(shape) > 1 or slices > 1:
        raise UserError(f"--topology {name!r}: GPUs are named by their number, {chip.name}:{count}.")
    if count > of_host and count % of_host:
        down, up = count // of_host * of_host, -(-count // of_host) * of_host
        raise UserError(f"--topology {name!r} is no whole number of hosts of {of_host}; use {chip.name}:{down} or {chip.name}:{up}.")


def _nearest(kind: str) -> str:
    close = difflib.get_close_matches(kind, CHIPS, n=1, cutoff=0.4)
    return f"{f'did you mean {close[0]}? There' if close else 'there'} are {', '.join(CHIPS)}."


def _written(kind: str, shape: tuple[int, ...]) -> str:
    return f"{kind}:{'x'.join(map(str, shape))}"
