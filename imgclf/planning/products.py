"""The work of convolutions and matrix products in a compiled program: what matrix units do, which is nearly all of a network's."""

import dataclasses
import math
import re

from imgclf.planning.hlo import Array, Computation, Instruction, Module

_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or a matrix product.

    Attributes:
      kind: "convolution" or "dot".
      dtype: of its operands, "bf16" or "f32".
      passes: how many passes of bfloat16 a TPU takes for it: 1, or 6 where float32 operands are multiplied in float32 (3 for "high").
      flops: two for each multiplication with addition; zeros of padding and dilation aren't counted.
      name: where it comes from, as JAX names it.
    """

    kind: str
    dtype: str
    passes: int
    flops: int
    name: str


def products(module: Module, times: dict[str, int]) -> list[tuple[Product, int]]:
    """The products of a program, each with how often it runs.

    Args:
      module: the program.
      times: of each computation that runs, how often it does.
    """
    found = []
    for name, count in times.items():
        computation = module.computations[name]
        for instruction in computation.instructions:
            if (product := product_of(computation, instruction)) is not None:
                found.append((product, count))
    return found


def product_of(computation: Computation, instruction: Instruction) -> Product | None:
    """What an instruction multiplies; None where it is no product."""
    operands = [results[0] for results in computation.arrays(instruction) if results]
    if instruction.opcode == "convolution":
        flops = _convolution_flops(instruction.attributes, operands[0], operands[1], instruction.results[0])
        # XLA writes matrix products on TPUs as convolutions without a window
        kind = "convolution" if _is_windowed(instruction.attributes) or "conv_general" in instruction.attributes else "dot"
    elif instruction.opcode == "dot":
        kind, flops = "dot", _dot_flops(instruction.attributes, operands[0], instruction.results[0])
    elif instruction.opcode == "custom-call" and (flops := _library_flops(instruction, operands)):
        kind = "convolution" if "cudnn" in instruction.attributes else "dot"
    else:
        return None
    dtype = "bf16" if any(array.dtype in ("bf16", "f16") for array in operands[:2]) else operands[0].dtype
    return Product(kind, dtype, _passes(instruction.attributes, dtype), flops, instruction.op_name or instruction.name)


def _passes(attributes: str, dtype: str) -> int:
    if dtype == "bf16" or "operand_precision" not in attributes:
        return 1
    return 6 if "highest" in attributes.partition("operand_precision=")[2][:40] else 3


def _is_windowed(attributes: str) -> bool:
    window = _WINDOW.search(attributes)
    return window is not None and any(side != "1" for side in _field(window[1], "size", ()))


def _field(window: str, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    match = re.search(rf"(?:^| ){name}=(\S+)", window)
    return tuple(match[1].split("x")) if match else default


def _convolution_flops(attributes: str, image: Array, kernel: Array, result: Array) -> int:
    """As XLA's own analysis counts: for each output, the products with places inside of the image."""
    labels = _LABELS.search(attributes)
    if labels is None:
        return 0
    of_image, of_kernel, of_result = labels.groups()
    window = _WINDOW.search(attributes)
    text = window[1] if window else ""
    spatial = sorted(character for character in of_kernel if character.isdigit())
    ones, zeros = ("1",) * len(spatial), ("0_0",) * len(spatial)
    fields = [_field(text, name, ones) for name in ("size", "stride", "lhs_dilate", "rhs_dilate")]
    padding = _field(text, "pad", zeros)
    pairs = 1
    for axis, digit in enumerate(spatial):
        size, stride, image_step, kernel_step = (int(field[axis]) for field in fields)
        pairs *= _pairs(
            image.sides[of_image.index(digit)],
            result.sides[of_result.index(digit)],
            (size, stride, image_step, kernel_step, int(padding[axis].split("_")[0])),
        )
    batch_groups = re.search(r"batch_group_count=(\d+)", attributes)
    batch = image.sides[of_image.index("b")] // int(batch_groups[1] if batch_groups else 1)
    return 2 * batch * kernel.sides[of_kernel.index("i")] * result.sides[of_result.index("f")] * pairs


def _pairs(image: int, result: int, window: tuple[int, int, int, int, int]) -> int:
    """How many pairs of an output and a place of the kernel meet a place of the image, along one axis."""
    size, stride, image_step, kernel_step, before = window
    reach = (image - 1) * image_step + 1
    return sum(
        0 <= (place := out * stride + tap * kernel_step - before) < reach and place % image_step == 0
        for out in range(result)
        for tap in range(size)
    )


def _dot_flops(attributes: str, left: Array, result: Array) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", attributes)
    sides = [left.sides[int(place)] for place in contracted[1].split(",") if place] if contracted else []
    return 2 * result.elements * math.prod(sides)


def _library_flops(instruction: Instruction, operands: list[Array]) -> int:
    """Of a call of cuDNN or cuBLAS; 0 for any other."""
    target = _TARGET.search(instruction.attributes)
    if target is None or not operands:
        return 0
    if target[1].startswith("__cudnn$conv"):
        image, kernel, result = operands[0], operands[1], instruction.results[0]
        if target[1].endswith("BackwardInput"):  # given the gradient of the result and the kernel; the labels are those forwards
            image, result = result, image
        elif target[1].endswith("BackwardFilter"):
            kernel, result = result, kernel
        return _convolution_flops(instruction.attributes, image, kernel, result)
    if target[1].startswith("__cublas"):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        places = [int(place.strip('"')) for place in contracted[1].split(",") if place] if contracted else []
        return 2 * instruction.results[0].elements * math.prod(operands[0].sides[place] for place in places)
    return 0
