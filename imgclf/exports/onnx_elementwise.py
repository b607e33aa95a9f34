"""Which operations of ONNX stand for JAX's elementwise ones, and for functions that ONNX has whole, such as softmax."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from imgclf.exports.onnx_graph import Tensor
from imgclf.exports.onnx_values import Values
from imgclf.exports.straight import Constant, Operand, Operation, uniform, unsupported

UNARY = {
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
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow"}
COMPARISONS = {"eq": "Equal", "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual"}


class Elementwise(Values):
    """The rules of operations that work place by place. A method `_NAME` is the rule of JAX's operation NAME."""

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
        self._elementwise(operation, BINARY[operation.name], operation.inputs)

    def _comparison(self, operation: Operation) -> None:
        self._elementwise(operation, COMPARISONS.get(operation.name, "Equal"), operation.inputs)
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


def _unless(values: Any, neutral: float) -> np.ndarray | None:
    """A factor or an offset; None where it changes nothing."""
    return None if values is None or (values == neutral).all() else np.atleast_1d(values)


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
