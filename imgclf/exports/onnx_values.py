"""What stands in a graph of ONNX for each value of a program of JAX."""

import dataclasses
from typing import Any

from imgclf.exports.onnx_graph import Graph, Tensor
from imgclf.exports.straight import Constant, Operand, Operation, Straight, Value, uses


class Values:
    """The tensors of a graph by the values that they stand for; the rules, which extend this class, read and add them."""

    def __init__(self, program: Straight, batch: Any):
        """
        Args:
          program: with one input.
          batch: the symbolic number of images.
        """
        self.graph, self._uses, self._done = Graph(batch), uses(program), set[int]()
        (image,) = program.inputs
        self._tensors = {id(image): Tensor("image", image.shape, tuple(range(len(image.shape))))}

    def result(self, value: Operand) -> str:
        """The name of an output of the program, in JAX's order of axes."""
        tensor = self.graph.of_constant(value) if isinstance(value, Constant) else self._settled(value)
        return self.graph.ordered(self.graph.filled(tensor)).name

    def _set(self, operation: Operation, tensor: Tensor) -> None:
        self._tensors[id(operation.outputs[0])] = dataclasses.replace(tensor, shape=operation.outputs[0].shape)

    def _tensor(self, value: Operand) -> Tensor:
        """What stands for a value, perhaps with a factor and an offset to come."""
        if isinstance(value, Constant):
            return self.graph.of_constant(value)
        return self._tensors[id(value)]

    def _alone(self, value: Operand) -> bool:
        return len(self._uses.get(id(value), ())) == 1

    def _settled(self, value: Operand) -> Tensor:
        tensor = self._tensor(value)
        if not tensor.is_pending:
            return tensor
        done = self.graph.settled(tensor, alone=True)  # only what nothing else reads has a factor to come, see `_pending`
        self._tensors[id(value)] = done
        return done

    def _same(self, value: Operand) -> Tensor:
        """What stands for a value, with a factor and an offset to come only where nothing else reads the value."""
        return self._tensor(value) if self._alone(value) else self._settled(value)

    def _plain(self, value: Operand) -> Tensor:
        """What stands for a value, with all places, in JAX's order of axes."""
        return self.graph.ordered(self.graph.filled(self._settled(value)))

    def _next(self, value: Value) -> Operation | None:
        """The one operation that reads a value; None if there are more."""
        readers = self._uses.get(id(value), ())
        return readers[0] if len(readers) == 1 else None
