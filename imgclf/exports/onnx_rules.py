"""Turns a program of JAX into a graph of ONNX, operation by operation."""

from collections.abc import Callable
from typing import Any

import jax

from imgclf.exports.onnx_elementwise import BINARY, COMPARISONS, UNARY, Elementwise
from imgclf.exports.onnx_graph import Graph
from imgclf.exports.onnx_layers import Layers
from imgclf.exports.onnx_shapes import Shapes
from imgclf.exports.straight import Operation, straight, unsupported


def graph_of(function: Callable[..., Any], image: jax.ShapeDtypeStruct) -> tuple[Graph, list[str]]:
    """Turns a function of images into a graph of ONNX, whose input is called "image".

    Args:
      function: from uint8 [B,H,W,3] to float32 arrays in a list; trace it within `models.forms.portable("plain")`.
      image: the input; B is symbolic.

    Returns:
      The graph and the names of the outputs.

    Raises:
      UserError: for an operation that is not known here.
    """
    program = straight(function, image)
    rules = Rules(program, image.shape[0])
    for operation in program.operations:
        rules.add(operation)
    return rules.graph, [rules.result(value) for value in program.outputs]


class Rules(Elementwise, Shapes, Layers):
    """Adds one operation after another to a graph."""

    def add(self, operation: Operation) -> None:
        """Adds an operation, unless it has become part of one before it.

        Raises:
          UserError: if it is not known here.
        """
        if id(operation) in self._done:
            return
        name = operation.name
        if name in ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision"):
            self._set(operation, self._same(operation.inputs[0]))
        elif name in UNARY:
            self._unary(operation, UNARY[name])
        elif name in BINARY:
            self._binary(operation)
        elif name in COMPARISONS or name == "ne":
            self._comparison(operation)
        elif (rule := getattr(self, f"_{name}", None)) is not None:
            rule(operation)
        else:
            raise unsupported(operation)
