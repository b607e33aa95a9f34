"""Which operations of ONNX stand for those of JAX that move values, or cut and join arrays."""

import dataclasses

import numpy as np

from imgclf.exports.onnx_graph import Tensor
from imgclf.exports.onnx_values import Values
from imgclf.exports.straight import Operation, uniform, unsupported


class Shapes(Values):
    """The rules of operations that change shapes. A method `_NAME` is the rule of JAX's operation NAME."""

    def _broadcast_in_dim(self, operation: Operation) -> None:
        tensor, axes, shape = self._settled(operation.inputs[0]), operation.params["broadcast_dimensions"], operation.outputs[0].shape
        sizes = self.graph.sizes(tensor)
        grown = {axes[axis] for axis, size in enumerate(sizes) if size == 1 and shape[axes[axis]] != 1}
        added = [axis for axis in range(len(shape)) if axis not in axes]
        name, order = tensor.name, tuple(axes[axis] for axis in tensor.order)
        if added:
            name = self.graph.node("Unsqueeze", [name, self.graph.integers(*range(len(order), len(shape)))])
            order = (*order, *added)
        loose = frozenset(grown | {axis for axis in added if shape[axis] != 1})
        self._set(operation, Tensor(name, shape, order, loose))

    def _reshape(self, operation: Operation) -> None:
        tensor, shape = self._settled(operation.inputs[0]), operation.outputs[0].shape
        self._tensors[id(operation.outputs[0])] = self.graph.reshaped(tensor, shape)

    def _squeeze(self, operation: Operation) -> None:
        tensor, gone = self._settled(operation.inputs[0]), operation.params["dimensions"]
        places = [tensor.order.index(axis) for axis in gone]
        name = self.graph.node("Squeeze", [tensor.name, self.graph.integers(*places)])
        kept = [axis for axis in range(len(tensor.shape)) if axis not in gone]
        order = tuple(kept.index(axis) for axis in tensor.order if axis not in gone)
        loose = frozenset(kept.index(axis) for axis in tensor.loose - set(gone))
        self._set(operation, Tensor(name, operation.outputs[0].shape, order, loose))

    def _expand_dims(self, operation: Operation) -> None:
        self._reshape(operation)

    def _transpose(self, operation: Operation) -> None:
        tensor, permutation = self._settled(operation.inputs[0]), list(operation.params["permutation"])
        order = tuple(permutation.index(axis) for axis in tensor.order)
        self._set(operation, dataclasses.replace(tensor, order=order, loose=frozenset(permutation.index(axis) for axis in tensor.loose)))

    def _slice(self, operation: Operation) -> None:
        tensor, params = self._settled(operation.inputs[0]), operation.params
        starts, stops = params["start_indices"], params["limit_indices"]
        strides = params["strides"] or (1,) * len(starts)
        parts = list(zip(starts, stops, strides, strict=True))
        there = [axis for axis, size in enumerate(tensor.shape) if isinstance(size, int) and axis not in tensor.loose]
        cut = [axis for axis in there if parts[axis] != (0, tensor.shape[axis], 1)]
        if not cut:
            self._set(operation, tensor)
            return
        numbers = [[values[axis] for axis in cut] for values in (starts, stops)] + [[tensor.order.index(axis) for axis in cut]]
        numbers += [[strides[axis] for axis in cut]]
        name = self.graph.node("Slice", [tensor.name, *(self.graph.integers(*row) for row in numbers)])
        self._set(operation, dataclasses.replace(tensor, name=name))

    def _rev(self, operation: Operation) -> None:
        tensor, axes = self.graph.filled(self._settled(operation.inputs[0])), operation.params["dimensions"]
        places = [tensor.order.index(axis) for axis in axes]
        count = len(places)
        rows = [[-1] * count, [-(2**31)] * count, places, [-1] * count]
        name = self.graph.node("Slice", [tensor.name, *(self.graph.integers(*row) for row in rows)])
        self._set(operation, dataclasses.replace(tensor, name=name))

    def _pad(self, operation: Operation) -> None:
        value, filling = operation.inputs
        edges, number = operation.params["padding_config"], uniform(filling)
        if number is None or any(between for _, _, between in edges) or any(low < 0 or high < 0 for low, high, _ in edges):
            raise unsupported(operation, "between pixels, or by less than nothing")
        tensor = self.graph.filled(self._settled(value))
        widths = [edges[axis][side] for side in (0, 1) for axis in tensor.order]
        fill = self.graph.constant(np.array(number, value.dtype))
        name = self.graph.node("Pad", [tensor.name, self.graph.integers(*widths), fill])
        self._set(operation, dataclasses.replace(tensor, name=name))

    def _concatenate(self, operation: Operation) -> None:
        axis, tensors = operation.params["dimension"], [self.graph.filled(self._settled(value)) for value in operation.inputs]
        order = next((tensor.order for tensor in tensors if tensor.order != tensor.plain), tensors[0].plain)
        names = [self.graph.ordered(tensor, order).name for tensor in tensors]
        name = self.graph.node("Concat", names, axis=order.index(axis))
        self._set(operation, Tensor(name, operation.outputs[0].shape, order))

    def _split(self, operation: Operation) -> None:
        tensor, axis = self.graph.filled(self._settled(operation.inputs[0])), operation.params["axis"]
        sizes = self.graph.integers(*operation.params["sizes"])
        names = self.graph.node("Split", [tensor.name, sizes], outputs=len(operation.outputs), axis=tensor.order.index(axis))
        for name, value in zip([names] if isinstance(names, str) else names, operation.outputs, strict=True):
            self._tensors[id(value)] = dataclasses.replace(tensor, name=name, shape=value.shape)
