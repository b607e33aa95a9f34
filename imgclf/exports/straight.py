"""A function of JAX as a list of operations: calls are inlined, and what depends on no input is computed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from imgclf.errors import UserError

Shape = tuple[Any, ...]  # of ints, and of symbolic sizes

# Calls that stay whole, as engines have them as one operation, or recognise them in another form: the primitive, and the function's name.
_WHOLE = {("custom_vjp_call", "gelu"), ("custom_vjp_call", "layer_norm"), ("jit", "last_softmax")}


@dataclasses.dataclass(eq=False)
class Value:
    """What an operation gives, or an input of the program."""

    shape: Shape
    dtype: np.dtype


@dataclasses.dataclass(eq=False)
class Constant:
    """An array that is known; axes of size 1 in it stand for axes of any size in `shape`."""

    array: np.ndarray
    shape: Shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def whole(self) -> np.ndarray:
        """The array in its full shape, which must have no symbolic size."""
        return np.broadcast_to(self.array, self.shape)


Operand = Value | Constant


@dataclasses.dataclass(eq=False)
class Operation:
    """A primitive of JAX, or a call of `_WHOLE`, applied to its inputs; `jaxpr` is that of a call or of a reduction."""

    name: str
    inputs: list[Operand]
    outputs: list[Value]
    params: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Straight:
    """A program without calls and branches; `operations` stand in an order in which they can be computed, each of them is needed."""

    inputs: list[Value]
    operations: list[Operation]
    outputs: list[Operand]


def straight(function: Callable[..., Any], *inputs: jax.ShapeDtypeStruct) -> Straight:
    """Traces a function of arrays, whose sizes may be symbolic.

    Args:
      function: returns arrays in a list, tuple or dict; the outputs are in the order of JAX's leaves.
      inputs: shapes and dtypes.
    """
    closed = jax.make_jaxpr(function)(*inputs)
    arguments: list[Operand] = [Value(tuple(var.aval.shape), np.dtype(var.aval.dtype)) for var in closed.jaxpr.invars]
    operations: list[Operation] = []
    outputs = _inline(closed.jaxpr, [_constant(value) for value in closed.consts], arguments, operations)
    return Straight([value for value in arguments if isinstance(value, Value)], _needed(operations, outputs), outputs)


def _constant(value: Any) -> Constant:
    array = np.asarray(value)
    return Constant(array, array.shape)


def _inline(jaxpr: Any, consts: Sequence[Operand], arguments: Sequence[Operand], operations: list[Operation]) -> list[Operand]:
    known: dict[Any, Operand] = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Operand:
        return _constant(np.asarray(atom.val)) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        shapes = [tuple(var.aval.shape) for var in equation.outvars]
        dtypes = [np.dtype(var.aval.dtype) for var in equation.outvars]
        outputs = _applied(equation, inputs, shapes, dtypes, operations)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _applied(
    equation: Any, inputs: list[Operand], shapes: list[Shape], dtypes: list[np.dtype], operations: list[Operation]
) -> Sequence[Operand]:
    """The results of an equation: computed, inlined, or those of a new operation."""
    name, params = equation.primitive.name, dict(equation.params)
    constants = [value for value in inputs if isinstance(value, Constant)]
    inner = next((params[key] for key in ("call_jaxpr", "jaxpr") if key in params), None)
    if name not in ("reduce", "reduce_window") and inner is not None:
        function = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
        called = getattr(function, "func_name", "")
        if (name, called) not in _WHOLE or len(constants) == len(inputs):
            closed = inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ())
            return _inline(closed.jaxpr, [_constant(value) for value in closed.consts], inputs, operations)
        name, params = called, {"jaxpr": getattr(inner, "jaxpr", inner)}
    elif len(constants) == len(inputs) and (found := _folded(equation, constants, shapes, dtypes)) is not None:
        return found
    outputs = [Value(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    operations.append(Operation(name, inputs, outputs, params))
    return outputs


_BY_NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "exp": np.exp,
    "select_n": lambda which, *cases: np.where(which, cases[1], cases[0]),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.logical_and,
    "copy": np.asarray,
    "stop_gradient": np.asarray,
    "convert_element_type": np.asarray,
}


def _folded(equation: Any, inputs: list[Constant], shapes: list[Shape], dtypes: list[np.dtype]) -> list[Constant] | None:
    """The results of an equation of constants; None where they would depend on a symbolic size."""
    name, params = equation.primitive.name, equation.params
    if name in _BY_NUMPY and (name not in ("div", "select_n", "and") or dtypes[0].kind == "f"):
        found = _BY_NUMPY[name](*(value.array for value in inputs))
        return [Constant(np.asarray(found, dtypes[0]), shapes[0])]
    if name == "broadcast_in_dim":
        axes = params["broadcast_dimensions"]
        loose = [1] * len(shapes[0])
        for axis, size in zip(axes, inputs[0].array.shape, strict=True):
            loose[axis] = size
        return [Constant(inputs[0].array.reshape(loose), shapes[0])]
    if not all(isinstance(size, int) for value in inputs for size in value.shape) or not _is_fixed(shapes):
        return None
    outputs = equation.primitive.bind(*(value.whole() for value in inputs), **params)
    outputs = outputs if equation.primitive.multiple_results else [outputs]
    return [_constant(np.asarray(output)) for output in outputs]


def _is_fixed(shapes: list[Shape]) -> bool:
    return all(isinstance(size, int) for shape in shapes for size in shape)


def _needed(operations: list[Operation], outputs: Sequence[Operand]) -> list[Operation]:
    """The operations that the outputs depend on."""
    wanted, kept = {id(value) for value in outputs}, []
    for operation in reversed(operations):
        if any(id(value) in wanted for value in operation.outputs):
            wanted |= {id(value) for value in operation.inputs}
            kept.append(operation)
    return kept[::-1]


def uses(program: Straight) -> dict[int, list[Operation | None]]:
    """Who reads each value, by the value's id; None is the program's own outputs."""
    found: dict[int, list[Operation | None]] = {}
    for operation in program.operations:
        for value in operation.inputs:
            found.setdefault(id(value), []).append(operation)
    for value in program.outputs:
        found.setdefault(id(value), []).append(None)
    return found


def uniform(operand: Operand) -> float | None:
    """The one number that a constant consists of; None for anything else."""
    if isinstance(operand, Constant) and operand.array.size and (operand.array == operand.array.flat[0]).all():
        return float(operand.array.flat[0])
    return None


def unsupported(operation: Operation, why: str = "") -> UserError:
    """The error for an operation that has no counterpart in ONNX here."""
    return UserError(
        f"The network has an operation that the export to ONNX does not know: {operation.name}{f' ({why})' if why else ''}, from "
        f"{[str(value.shape) for value in operation.inputs]} to {[str(value.shape) for value in operation.outputs]}: export to stablehlo."
    )
