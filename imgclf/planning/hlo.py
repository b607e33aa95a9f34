"""Reads the text of a compiled program: XLA's HLO, as `compiled.as_text()` has it.

Only what the counting needs is read: computations, their instructions with result shapes, layouts and operands, and the attributes of a
line as text. A shape's layout says where it lies: `S(1)` is on the chip itself, no mark is high-bandwidth memory.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """A part of a result: its element type, its sides, and where and how it lies."""

    dtype: str
    sides: tuple[int, ...]
    layout: str = ""

    @cached_property
    def elements(self) -> int:
        return math.prod(self.sides)

    @property
    def on_chip(self) -> bool:
        """Whether it lies in the chip's own memory rather than in high-bandwidth memory."""
        match = _SPACE.search(self.layout)
        return match is not None and match[1] != "0"

    @cached_property
    def bytes(self) -> int:
        """Its size without padding."""
        return self.elements * _bits(self.dtype) // 8

    @cached_property
    def padded_bytes(self) -> int:
        """Its size in memory: the last sides, in the layout's order, are filled up to whole tiles."""
        tile = _TILE.search(self.layout)
        order = self.layout.partition(":")[0]
        if tile is None or not order:
            return self.bytes
        sides = [self.sides[int(place)] for place in order.split(",")]  # the one that varies fastest comes first
        for place, edge in enumerate(reversed(tile[1].split(","))):
            if place < len(sides):
                sides[place] = -(-sides[place] // int(edge)) * int(edge)
        return math.prod(sides) * _bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
      name: without "%".
      opcode: such as "fusion".
      results: its arrays; several where it gives a tuple, in the order in which they stand.
      operands: names of instructions of the same computation.
      attributes: what follows the operands, as text.
      literal: what stands in the parentheses, as text: the number of a parameter.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    literal: str
    is_root: bool

    @property
    def op_name(self) -> str:
        """Where it comes from, as JAX names it; "" where the compiler says nothing of that."""
        match = _OP_NAME.search(self.attributes)
        return match[1] if match else ""

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        branches = _BRANCHES.search(self.attributes)
        names = [*_CALLED.findall(self.attributes), *(_NAME.findall(branches[1]) if branches else ())]
        return tuple(dict.fromkeys(names))


@dataclasses.dataclass(frozen=True)
class Computation:
    """A function of the program; instructions stand in the order in which they run."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {instruction.name: instruction for instruction in self.instructions}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Instruction → those that take its result."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.by_name}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                found.get(operand, []).append(instruction)
        return found

    @property
    def root(self) -> Instruction:
        return next((one for one in self.instructions if one.is_root), self.instructions[-1])

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(one.literal): one for one in self.instructions if one.opcode == "parameter"}

    def arrays(self, instruction: Instruction) -> list[tuple[Array, ...]]:
        """The arrays of each operand."""
        return [self.by_name[name].results for name in instruction.operands if name in self.by_name]


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
      header: its first line: donation and layouts.
      computations: by name.
      entry: the one that runs.
      files: names of the source files that its instructions come from.
    """

    header: str
    computations: dict[str, Computation]
    entry: Computation
    files: tuple[str, ...]

    @property
    def donated(self) -> int:
        """How many of the arguments give their memory to a result."""
        return len(re.findall(r"\{[\d, ]*\}: \(\d+", self.header.partition("input_output_alias=")[2].partition("entry_computation")[0]))


def parse(text: str) -> Module:
    """Reads a program.

    Raises:
      ValueError: where the text holds no computation that runs.
    """
    header, computations, entry, files = "", {}, "", []
    name, lines, in_files = "", list[Instruction](), False
    for line in text.splitlines():
        if line.startswith("HloModule"):
            header = line
        elif line and not line[0].isspace() and line.rstrip().endswith("{") and "(" in line:
            name, lines = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0], []
            entry = name if line.startswith("ENTRY") else entry
        elif name and line.startswith("}"):
            computations[name], name = Computation(name, tuple(lines)), ""
        elif name:
            if (instruction := _instruction(line)) is not None:
                lines.append(instruction)
        elif line.strip() in ("FileNames", "FunctionNames"):
            in_files = line.strip() == "FileNames"
        elif in_files and (found := re.match(r'\d+ "(.*)"', line)):
            files.append(found[1])
    if entry not in computations:
        raise ValueError("the text holds no computation that runs")
    return Module(header, computations, computations[entry], tuple(files))


def _instruction(line: str) -> Instruction | None:
    match = _LINE.match(line)
    if match is None:
        return None
    name, rest = match[1], match[2]
    shape, rest = _cut_shape(rest)
    opcode = _OPCODE.match(rest)
    if opcode is None:
        return None
    inside, attributes = _cut_parentheses(rest[opcode.end() - 1 :])
    results = tuple(arrays(shape))
    return Instruction(name, opcode[1], results, tuple(_NAME.findall(inside)), attributes, inside, line.lstrip().startswith("ROOT "))


def arrays(text: str) -> Iterator[Array]:
    """The arrays that a shape is made of, nested tuples one after another."""
    for dtype, sides, layout in _ARRAY.findall(text):
        yield Array(dtype, tuple(int(side.strip("<=")) for side in sides.split(",") if side), layout)


def _cut_shape(text: str) -> tuple[str, str]:
    """The shape at the beginning of a line, and what follows."""
    if text.startswith("("):
        return _cut_parentheses(text)
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "{[(") - (character in ")]}")
        if character == " " and not depth:
            return text[:place], text[place:]
    return text, ""


def _cut_parentheses(text: str) -> tuple[str, str]:
    """What stands in the parentheses at the beginning of a text, and what follows them."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[1:place], text[place + 1 :]
    return text, ""


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    size = re.match(r"[a-z]+(\d+)", dtype)
    return int(size[1]) if size else 32
