"""Which operations of ONNX stand for each operation of JAX."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from imgclf.exports.onnx_graph import Graph, Tensor
from imgclf.exports.straight import Constant, Operand, Operation, Straight, Value, straight, uniform, unsupported, uses

_CHANNELS_FIRST = (0, 3, 1, 2)
_UNARY = {
    "neg": "Neg",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "erf": "Erf",
    "tanh": "Tanh",
    "sqrt": "Sqrt",
    "logistic": "Sigmoid",
    "floor": "Floor",
    "sign": "Sign",
    "sin": "Sin",
    "cos": "Cos",
}
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow"}
_COMPARISONS = {"eq": "Equal", "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual"}


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


class Rules:
    """Adds one operation after another to a graph."""

    def __init__(self, program: Straight, batch: Any):
        """
        Args:
          program: with one input.
          batch: the symbolic number of images.
        """
        self.graph, self._uses, self._done = Graph(batch), uses(program), set[int]()
        (image,) = program.inputs
        self._tensors = {id(image): Tensor("image", image.shape, tuple(range(len(image.shape))))}

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
        elif name in _UNARY:
            self._unary(operation, _UNARY[name])
        elif name in _BINARY:
            self._binary(operation)
        elif name in _COMPARISONS or name == "ne":
            self._comparison(operation)
        elif (rule := getattr(self, f"_{name}", None)) is not None:
            rule(operation)
        else:
            raise unsupported(operation)

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

    # Elementwise.

    def _unary(self, operation: Operation, kind: str) -> None:
        tensor = self._settled(operation.inputs[0])
        self._set(operation, dataclasses.replace(tensor, name=self.graph.node(kind, [tensor.name])))

    def _erfc(self, operation: Operation) -> None:
        tensor = self._settled(operation.inputs[0])
        name = self.graph.node("Erf", [tensor.name])
        self._set(operation, dataclasses.replace(tensor, name=name, scale=np.array([-1.0]), shift=np.array([1.0])))

    def _rsqrt(self, operation: Operation) -> None:
        tensor = self._settled(operation.inputs[0])
        name = self.graph.node("Reciprocal", [self.graph.node("Sqrt", [tensor.name])])
        self._set(operation, dataclasses.replace(tensor, name=name))

    def _square(self, operation: Operation) -> None:
        tensor = self._settled(operation.inputs[0])
        self._set(operation, dataclasses.replace(tensor, name=self.graph.node("Mul", [tensor.name, tensor.name])))

    def _integer_pow(self, operation: Operation) -> None:
        tensor = self._settled(operation.inputs[0])
        exponent = self.graph.constant(np.array(operation.params["y"], np.float32))
        self._set(operation, dataclasses.replace(tensor, name=self.graph.node("Pow", [tensor.name, exponent])))

    def _not(self, operation: Operation) -> None:
        self._unary(operation, "Not")

    def _and(self, operation: Operation) -> None:
        self._elementwise(operation, "And", operation.inputs)

    def _or(self, operation: Operation) -> None:
        self._elementwise(operation, "Or", operation.inputs)

    def _convert_element_type(self, operation: Operation) -> None:
        (value,) = operation.inputs
        if value.dtype == operation.outputs[0].dtype:
            self._set(operation, self._same(value))
            return
        tensor = self._settled(value)
        self._set(operation, dataclasses.replace(tensor, name=self.graph.cast(tensor.name, operation.outputs[0].dtype)))

    def _binary(self, operation: Operation) -> None:
        if self._pending(operation) or self._clipped(operation):
            return
        self._elementwise(operation, _BINARY[operation.name], operation.inputs)

    def _comparison(self, operation: Operation) -> None:
        self._elementwise(operation, _COMPARISONS.get(operation.name, "Equal"), operation.inputs)
        if operation.name == "ne":
            tensor = self._tensors[id(operation.outputs[0])]
            self._set(operation, dataclasses.replace(tensor, name=self.graph.node("Not", [tensor.name])))

    def _select_n(self, operation: Operation) -> None:
        which, otherwise, then = operation.inputs
        self._elementwise(operation, "Where", [which, then, otherwise])

    def _elementwise(self, operation: Operation, kind: str, inputs: Sequence[Operand]) -> None:
        """Adds a node that reads inputs place by place, in the order of axes of the largest of them."""
        tensors = [None if isinstance(value, Constant) else self._settled(value) for value in inputs]
        shape = operation.outputs[0].shape
        known = [tensor for tensor in tensors if tensor is not None and tensor.shape]
        leader = min(known, key=lambda tensor: (len(tensor.loose), tensor.order == tensor.plain), default=None)
        order = tuple(range(len(shape))) if leader is None else leader.order
        names, loose = [], frozenset(range(len(shape)))
        for value, tensor in zip(inputs, tensors, strict=True):
            if tensor is None:
                assert isinstance(value, Constant)
                tensor = self.graph.of_constant(value, order if value.shape else ())
            elif tensor.shape:
                tensor = self.graph.ordered(tensor, order)
            names.append(tensor.name)
            loose &= tensor.loose | frozenset(axis for axis, size in enumerate(tensor.shape) if size == 1) if tensor.shape else loose
        loose &= frozenset(axis for axis, size in enumerate(shape) if size != 1)
        self._set(operation, Tensor(self.graph.node(kind, names), shape, order, loose))

    def _pending(self, operation: Operation) -> bool:
        """Notes a factor or an offset per channel, if the operation is one; what reads a noted tensor applies it."""
        left, right = operation.inputs
        if operation.name not in ("add", "sub", "mul", "div") or operation.outputs[0].dtype != np.float32:
            return False
        if isinstance(left, Constant) and operation.name != "div" and (vector := self._vector(left)) is not None:
            value: Operand = right
        elif isinstance(right, Constant) and (vector := self._vector(right)) is not None:
            value = left
        else:
            return False
        tensor = self._same(value)
        scale, shift = tensor.scale, tensor.shift
        if operation.name in ("mul", "div"):
            factor = 1 / vector if operation.name == "div" else vector
            scale = factor if scale is None else scale * factor
            shift = None if shift is None else shift * factor
        else:
            negative = operation.name == "sub" and value is right  # constant - value
            if negative:
                scale, shift = (np.array([-1.0]) if scale is None else -scale), None if shift is None else -shift
            offset = -vector if operation.name == "sub" and not negative else vector
            shift = offset if shift is None else shift + offset
        noted = dataclasses.replace(tensor, scale=_unless(scale, 1), shift=_unless(shift, 0), shape=operation.outputs[0].shape)
        self._tensors[id(operation.outputs[0])] = noted
        if not self._alone(operation.outputs[0]):  # it is applied now, once for all who read it
            alone = self._alone(value)
            self._tensors[id(operation.outputs[0])] = self.graph.settled(noted, alone=alone)
        elif self.graph.kernel(noted) is not None and not self._alone(value):
            self._tensors[id(operation.outputs[0])] = self.graph.settled(noted)
        return True

    @staticmethod
    def _vector(constant: Constant) -> np.ndarray | None:
        """A constant that differs along the last axis only, as float64 [C] or [1]."""
        array = constant.array
        if array.size not in (1, array.shape[-1] if array.ndim else 1):
            return None
        return array.astype(np.float64).reshape(-1)

    def _clipped(self, operation: Operation) -> bool:
        """Adds one node for limits: ReLU, or Clip for two of them, of which the second operation is done with the first."""
        limits = [uniform(value) for value in operation.inputs]
        if operation.name not in ("max", "min") or (limits[0] is None) == (limits[1] is None):
            return False
        value, limit = (operation.inputs[0], limits[1]) if limits[0] is None else (operation.inputs[1], limits[0])
        assert limit is not None
        if operation.outputs[0].dtype != np.float32:
            return False
        last, other = operation, self._next(operation.outputs[0])
        low, high = (limit, None) if operation.name == "max" else (None, limit)
        if other is not None and other.name in ("max", "min") and other.name != operation.name:
            second = next((found for found in map(uniform, other.inputs) if found is not None), None)
            if second is not None:
                low, high, last = (low, second, other) if operation.name == "max" else (second, high, other)
                self._done.add(id(other))
        self._set(last, self._limited(value, low, high))
        return True

    def _limited(self, value: Operand, low: float | None, high: float | None) -> Tensor:
        tensor = self._tensor(value)
        if (low, high) == (0, 6) and tensor.scale is None and tensor.shift is not None and (tensor.shift == 3).all():
            # relu6(x + 3), which is 6 · HardSigmoid(x)
            name = self.graph.node("HardSigmoid", [tensor.name], alpha=1 / 6, beta=0.5)
            return dataclasses.replace(tensor, name=name, scale=np.array([6.0]), shift=None)
        tensor = self._settled(value)
        if (low, high) == (0, None):
            return dataclasses.replace(tensor, name=self.graph.node("Relu", [tensor.name]))
        limits = ["" if limit is None else self.graph.constant(np.array(limit, np.float32)) for limit in (low, high)]
        return dataclasses.replace(tensor, name=self.graph.node("Clip", [tensor.name, *(limits if high is not None else limits[:1])]))

    def _clamp(self, operation: Operation) -> None:
        low, value, high = operation.inputs
        limits = uniform(low), uniform(high)
        if None in limits:
            raise unsupported(operation, "limits that differ")
        self._set(operation, self._limited(value, *limits))

    def _gelu(self, operation: Operation) -> None:
        # in the form in which onnxruntime recognises it
        tensor = self._settled(operation.inputs[0])
        root, one, half = (self.graph.constant(np.array(value, np.float32)) for value in (np.sqrt(2), 1, 0.5))
        wide = self.graph.node("Add", [self.graph.node("Erf", [self.graph.node("Div", [tensor.name, root])]), one])
        name = self.graph.node("Mul", [self.graph.node("Mul", [tensor.name, wide]), half])
        self._set(operation, dataclasses.replace(tensor, name=name))

    def _last_softmax(self, operation: Operation) -> None:
        tensor = self._plain(operation.inputs[0])
        self._set(operation, dataclasses.replace(tensor, name=self.graph.node("Softmax", [tensor.name], axis=-1)))

    def _layer_norm(self, operation: Operation) -> None:
        value, scale, bias = operation.inputs
        epsilon = _epsilon(operation.params["jaxpr"])
        if epsilon is None or not isinstance(scale, Constant) or not isinstance(bias, Constant):
            raise unsupported(operation)
        tensor = self._plain(value)
        names = [self.graph.constant(np.broadcast_to(part.array, part.shape)) for part in (scale, bias)]
        name = self.graph.node("LayerNormalization", [tensor.name, *names], axis=-1, epsilon=epsilon)
        self._set(operation, dataclasses.replace(tensor, name=name))

    # Shapes.

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

    # Reductions, products and convolutions.

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


def _unless(values: Any, neutral: float) -> np.ndarray | None:
    """A factor or an offset; None where it changes nothing."""
    return None if values is None or (values == neutral).all() else np.atleast_1d(values)


def _one_axis(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    left, right = operation.params["dimension_numbers"][0]
    if len(left) != 1:
        raise unsupported(operation, "a product over several axes")
    return left, right


def _epsilon(jaxpr: Any) -> float | None:
    """What a normalisation adds to the variance: the constant that is added to the argument of its rsqrt."""
    numbers = {equation.outvars[0]: equation for equation in jaxpr.eqns}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "rsqrt" and (total := numbers.get(equation.invars[0])) is not None and total.primitive.name == "add":
            for atom in total.invars:
                if hasattr(atom, "val"):
                    return float(atom.val)
                if (filled := numbers.get(atom)) is not None and hasattr(filled.invars[0], "val"):
                    return float(filled.invars[0].val)
    return None
