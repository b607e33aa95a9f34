"""How often each part of a compiled program runs, and the bytes that pass between the chip and its high-bandwidth memory.

XLA's own `cost_analysis()["bytes accessed"]` counts what lies on the chip as well: for ResNet-50's step on a TPU v5e that is nearly twice
what passes to memory. Here an array counts where its layout says that it lies in high-bandwidth memory, at its size there, which padding to
whole tiles is part of.
"""

import re
from collections.abc import Callable

from imgclf.planning.hlo import Array, Computation, Instruction, Module

_FREE = {  # they name what is there already, or wait for what was started
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "opt-barrier"),
    *("while", "conditional", "call", "add-dependency", "domain"),
}
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer", "Sharding", "AssumeGatherIndicesInBound")
_PARTS = ("slice", "dynamic-slice", "gather")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


def scheduled(module: Module) -> dict[str, int]:
    """The computations whose instructions run one after another, and how often; a loop of unknown length counts once, a branch always."""
    return _times(module, lambda instruction: instruction.opcode in ("while", "conditional", "call"))


def all_parts(module: Module) -> dict[str, int]:
    """All computations that are reached, those inside of fusions too, and how often each runs."""
    return _times(module, lambda instruction: True)


def _times(module: Module, follows: Callable[[Instruction], bool]) -> dict[str, int]:
    times = {module.entry.name: 1}
    waiting = [(module.entry.name, 1)]
    while waiting:
        name, count = waiting.pop()
        for instruction in module.computations[name].instructions:
            if not instruction.called or not follows(instruction):
                continue
            trips = _TRIPS.search(instruction.attributes) if instruction.opcode == "while" else None
            for called in instruction.called:
                if called in module.computations:
                    each = count * int(trips[1] if trips else 1)
                    times[called] = times.get(called, 0) + each
                    waiting.append((called, each))
    return times


def memory_bytes(module: Module, times: dict[str, int]) -> int:
    """The bytes that a run reads from and writes to high-bandwidth memory.

    Args:
      module: the program.
      times: `scheduled(module)`.
    """
    return sum(
        count * _bytes(module, module.computations[name], instruction)
        for name, count in times.items()
        for instruction in module.computations[name].instructions
    )


def estimated_cycles(module: Module, times: dict[str, int]) -> int:
    """The compiler's own estimates, added up; instructions without one, as collectives and transfers that run beside others, count 0."""
    return sum(
        count * int(found[1])
        for name, count in times.items()
        for instruction in module.computations[name].instructions
        if (found := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes))
    )


def _bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    target = _TARGET.search(instruction.attributes) if opcode == "custom-call" else None
    if target and target[1] in _FREE_CALLS:
        return 0
    operands = computation.arrays(instruction)
    if opcode in _PARTS:
        return 2 * _in_memory(instruction.results) if operands and not operands[0][0].on_chip else _in_memory(instruction.results)
    if opcode == "dynamic-update-slice":
        return 2 * _in_memory(operands[1])
    if opcode.endswith("-start"):
        return _started(instruction, operands)
    if opcode == "fusion" and instruction.called and instruction.called[0] in module.computations:
        return _fusion_bytes(module.computations[instruction.called[0]], instruction, operands)
    return sum(map(_in_memory, operands)) + _in_memory(instruction.results)


def _in_memory(arrays: tuple[Array, ...]) -> int:
    return sum(array.padded_bytes for array in arrays if not array.on_chip)


def _started(instruction: Instruction, operands: list[tuple[Array, ...]]) -> int:
    """Of a transfer or a collective that runs beside other work; its results tell of what it takes as well."""
    if instruction.opcode in ("copy-start", "slice-start"):
        place = 0 if instruction.opcode == "copy-start" else len(operands)  # (to, from, …) of a copy, (from, to, …) of a part
        target = instruction.results[place]
        source = operands[0][0]
        return (0 if target.on_chip else target.padded_bytes) + (0 if source.on_chip else target.padded_bytes)
    return 2 * sum(map(_in_memory, operands))


def _fusion_bytes(fused: Computation, instruction: Instruction, operands: list[tuple[Array, ...]]) -> int:
    total = 0
    for place, arrays in enumerate(operands):
        parameter = fused.parameters.get(place)
        parts = None if parameter is None else _parts_read(fused, parameter)
        if parts is None:
            total += _in_memory(arrays)
        elif not arrays[0].on_chip:
            total += parts
    root = fused.root
    if root.opcode == "dynamic-update-slice":  # in place: only the part is written, which as much was read for
        return total + sum(array.padded_bytes for array in fused.by_name[root.operands[1]].results)
    return total + _in_memory(instruction.results)


def _parts_read(fused: Computation, parameter: Instruction) -> int | None:
    """The bytes of those parts of a parameter that a fusion reads; None where it reads all of it."""
    total, waiting = 0, [parameter]
    while waiting:
        taken = waiting.pop()
        for user in fused.users[taken.name]:
            if user.opcode in _PARTS:
                total += sum(array.padded_bytes for array in user.results)
            elif user.opcode == "bitcast":
                waiting.append(user)
            elif user is fused.root and user.opcode == "dynamic-update-slice" and user.operands[0] == taken.name:
                continue  # the part that is replaced isn't read
            else:
                return None
    return total
