"""Which operations of ONNX stand for JAX's reductions, products, convolutions and pooling."""

import dataclasses
from typing import Any

import numpy as np

from imgclf.exports.onnx_graph import Tensor
from imgclf.exports.onnx_values import Values
from imgclf.exports.straight import Constant, Operand, Operation, unsupported

_CHANNELS_FIRST = (0, 3, 1, 2)


class Layers(Values):
    """The rules of operations that sum over places or channels. A method `_NAME` is the rule of JAX's operation NAME."""

    def _reduce(self, operation: Operation) -> None:
        kinds = [equation.primitive.name for equation in operation.params["jaxpr"].jaxpr.eqns]
        if kinds not in (["add"], ["max"]) or len(operation.inputs) != 2:
            raise unsupported(operation, " ".join(kinds))
        axes = operation.params["dimensions"]
        (self._reduce_sum if kinds == ["add"] else self._reduce_max)(dataclasses.replace(operation, params={"axes": axes}))

    def _reduce_sum(self, operation: Operation) -> None:
        self._reduced(operation, "ReduceSum", "GlobalAveragePool")

    def _reduce_max(self, operation: Operation) -> None:
        self._reduced(operation, "ReduceMax", "GlobalMaxPool")

    def _reduced(self, operation: Operation, kind: str, pool: str) -> None:
        tensor, axes = self.graph.filled(self._settled(operation.inputs[0])), operation.params["axes"]
        shape, kept = operation.outputs[0].shape, [axis for axis in range(len(tensor.shape)) if axis not in operation.params["axes"]]
        if tensor.order == _CHANNELS_FIRST and sorted(axes) == [1, 2]:
            pooled = self.graph.node("Flatten", [self.graph.node(pool, [tensor.name])], axis=1)
            scale = np.array([float(tensor.shape[1] * tensor.shape[2])]) if kind == "ReduceSum" else None
            self._tensors[id(operation.outputs[0])] = self._noted(operation, Tensor(pooled, shape, (0, 1), scale=scale))
            return
        places = sorted(tensor.order.index(axis) for axis in axes)
        if kind == "ReduceSum":
            name = self.graph.node(kind, [tensor.name, self.graph.integers(*places)], keepdims=0)
        else:
            name = self.graph.node(kind, [tensor.name], axes=places, keepdims=0)
        order = tuple(kept.index(axis) for axis in tensor.order if axis in kept)
        self._set(operation, Tensor(name, shape, order))

    def _noted(self, operation: Operation, tensor: Tensor) -> Tensor:
        """The tensor with its factor to come, or applied, where several read it."""
        return tensor if self._alone(operation.outputs[0]) else self.graph.settled(tensor)

    def _dot_general(self, operation: Operation) -> None:
        left, right = operation.inputs
        ((left_sum,), (right_sum,)), (left_batch, right_batch) = _one_axis(operation), operation.params["dimension_numbers"][1]
        if isinstance(right, Constant) and not left_batch and len(right.shape) == 2:
            self._linear(operation, left, right.whole().T if right_sum == 1 else right.whole(), left_sum)
            return
        orders = []
        for value, axis, batch in ((left, left_sum, left_batch), (right, right_sum, right_batch)):
            free = [other for other in range(len(value.shape)) if other != axis and other not in batch]
            if len(free) != 1:
                raise unsupported(operation, "a product over several axes")
            orders.append((*batch, *free, axis) if value is left else (*batch, axis, *free))
        names = [
            self.graph.ordered(self.graph.filled(self._settled(value)), order).name
            for value, order in zip((left, right), orders, strict=True)
        ]
        self._set(operation, self._straight_tensor(self.graph.node("MatMul", names), operation))

    def _linear(self, operation: Operation, value: Operand, kernel: np.ndarray, axis: int) -> None:
        """A product with a matrix [in,out]."""
        tensor = self.graph.filled(self._settled(value))
        if tensor.order == _CHANNELS_FIRST and axis == 3:
            name = self.graph.node("Conv", [tensor.name, self.graph.constant(kernel.T[:, :, None, None])], kernel_shape=[1, 1])
            self._set(operation, Tensor(name, operation.outputs[0].shape, _CHANNELS_FIRST))
            return
        others = tuple(other for other in range(len(tensor.shape)) if other != axis)
        tensor = self.graph.ordered(tensor, (*others, axis))
        self._set(operation, self._straight_tensor(self.graph.node("MatMul", [tensor.name, self.graph.constant(kernel)]), operation))

    @staticmethod
    def _straight_tensor(name: str, operation: Operation) -> Tensor:
        shape = operation.outputs[0].shape
        return Tensor(name, shape, tuple(range(len(shape))))

    def _conv_general_dilated(self, operation: Operation) -> None:
        value, kernel = operation.inputs
        params, numbers = operation.params, operation.params["dimension_numbers"]
        if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1 or min(map(min, params["padding"])) < 0:
            raise unsupported(operation, "spread out, or padded by less than nothing")
        tensor = self.graph.ordered(self.graph.filled(self._settled(value)), tuple(numbers.lhs_spec))
        if isinstance(kernel, Constant):
            weight, shape = self.graph.constant(kernel.whole().transpose(numbers.rhs_spec)), kernel.shape
        else:
            weight, shape = self.graph.ordered(self._settled(kernel), tuple(numbers.rhs_spec)).name, kernel.shape
        edges = [edge[side] for side in (0, 1) for edge in params["padding"]]
        name = self.graph.node(
            "Conv",
            [tensor.name, weight],
            kernel_shape=[shape[axis] for axis in numbers.rhs_spec[2:]],
            strides=list(params["window_strides"]),
            dilations=list(params["rhs_dilation"]),
            group=params["feature_group_count"],
            pads=edges,
        )
        self._set(operation, Tensor(name, operation.outputs[0].shape, tuple(numbers.out_spec)))

    def _reduce_window_max(self, operation: Operation) -> None:
        self._pooled(operation, "MaxPool")

    def _reduce_window_sum(self, operation: Operation) -> None:
        self._pooled(operation, "AveragePool", count_include_pad=1)
        window = operation.params["window_dimensions"]
        tensor = self._tensors[id(operation.outputs[0])]
        noted = dataclasses.replace(tensor, scale=np.array([float(window[1] * window[2])]))
        self._tensors[id(operation.outputs[0])] = self._noted(operation, noted)

    def _pooled(self, operation: Operation, kind: str, **attributes: Any) -> None:
        params = operation.params
        window, strides, edges = params["window_dimensions"], params["window_strides"], params["padding"]
        dilated = any(step != 1 for name in ("base_dilation", "window_dilation") for step in params.get(name) or ())
        if len(window) != 4 or (window[0], window[3]) != (1, 1) or (strides[0], strides[3]) != (1, 1) or dilated:
            raise unsupported(operation, "a window that is not of height and width")
        tensor = self.graph.ordered(self.graph.filled(self._settled(operation.inputs[0])), _CHANNELS_FIRST)
        pads = [edges[axis][side] for side in (0, 1) for axis in (1, 2)]
        name = self.graph.node(kind, [tensor.name], kernel_shape=list(window[1:3]), strides=list(strides[1:3]), pads=pads, **attributes)
        self._set(operation, Tensor(name, operation.outputs[0].shape, _CHANNELS_FIRST))


def _one_axis(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    left, right = operation.params["dimension_numbers"][0]
    if len(left) != 1:
        raise unsupported(operation, "a product over several axes")
    return left, right
