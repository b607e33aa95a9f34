"""Puts a graph of ONNX together, with as few transpositions and passes over the maps as the operations allow.

JAX's maps are [B,H,W,C], ONNX's convolutions read [B,C,H,W]. So a tensor of the graph keeps the order of axes that the operation before
it gave, with a note of which axes these are; only who needs another order transposes. In the same way a factor and an offset per channel,
such as batch normalisation's, are noted, and become part of the kernel of the convolution before them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from imgclf.exports.straight import Constant, Shape

OPSET = 17
_TYPES = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph.

    Attributes:
      name: of the graph's value; axis i of that is axis `order[i]` of JAX's array.
      shape: of JAX's array.
      order: see `name`.
      loose: axes of JAX's array that have size 1 in the graph, and stand for all their places.
      scale, shift: JAX's array is the graph's value times `scale` plus `shift`: float32 [C] or [1], of the last axis; None = 1 and 0.
    """

    name: str
    shape: Shape
    order: tuple[int, ...]
    loose: frozenset[int] = frozenset()
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None

    @property
    def is_pending(self) -> bool:
        """Whether a factor or an offset is still to be applied."""
        return self.scale is not None or self.shift is not None

    @property
    def plain(self) -> tuple[int, ...]:
        """The order of axes that JAX has."""
        return tuple(range(len(self.shape)))


class Graph:
    """The nodes and constants of a graph under construction."""

    def __init__(self, batch: Any) -> None:
        """`batch` is the symbolic number of images."""
        self._size_of_batch = batch
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._made: dict[tuple[Any, ...], Tensor] = {}
        self._batch = ""

    def node(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node, and returns the name of its output, or of its outputs."""
        names = [f"{kind.lower()}_{len(self.nodes)}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=names[0], **attributes)
        self.nodes.append(node)
        self._producers |= dict.fromkeys(names, node)
        return names[0] if outputs == 1 else names

    def constant(self, array: np.ndarray) -> str:
        """Adds an array, and returns its name; equal small ones are the same."""
        array = np.ascontiguousarray(array) if array.ndim else array
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 4096 else (id(array), len(self.initializers))
        if key not in self._names:
            self._names[key] = f"constant_{len(self.initializers)}"
            self.initializers[self._names[key]] = array
        return self._names[key]

    def named(self, name: str, output: str) -> None:
        """Calls a value of the graph by the name of an output."""
        self.nodes.append(helper.make_node("Identity", [name], [output], name=output))

    def integers(self, *values: int) -> str:
        """Adds a vector of whole numbers."""
        return self.constant(np.array(values, np.int64))

    def kernel(self, tensor: Tensor) -> onnx.NodeProto | None:
        """The convolution with a constant kernel that gives this tensor; None where something else does."""
        node = self._producers.get(tensor.name)
        return node if node is not None and node.op_type == "Conv" and node.input[1] in self.initializers else None

    def settled(self, tensor: Tensor, *, alone: bool = False) -> Tensor:
        """The tensor with its factor and offset applied.

        Args:
          alone: whether nothing else reads the graph's value, so that a convolution that gives it may change.
        """
        if not tensor.is_pending:
            return tensor
        key = ("settled", id(tensor))
        if key not in self._made:
            done = dataclasses.replace(tensor, scale=None, shift=None)
            conv = self.kernel(tensor)
            if conv is not None and alone:
                self._fold(conv, tensor)
            else:
                done = dataclasses.replace(done, name=self._affine(tensor))
            self._made[key] = done
            self._made[("keep", id(tensor))] = tensor  # so that its id stays its own
        return self._made[key]

    def _fold(self, conv: onnx.NodeProto, tensor: Tensor) -> None:
        """Puts a factor and an offset into the kernel and the bias of a convolution."""
        weight = self.initializers[conv.input[1]]
        features = len(weight)
        scale = np.ones(features) if tensor.scale is None else np.broadcast_to(tensor.scale, features).astype(np.float64)
        shift = np.zeros(features) if tensor.shift is None else np.broadcast_to(tensor.shift, features).astype(np.float64)
        bias = self.initializers[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else np.zeros(features)
        kernel = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        names = [self.constant(kernel), self.constant((bias * scale + shift).astype(np.float32))]
        del conv.input[1:]
        conv.input.extend(names)

    def _affine(self, tensor: Tensor) -> str:
        """Adds the nodes for a factor and an offset."""
        channels = tensor.shape[-1]
        scale, shift = tensor.scale, tensor.shift
        maps = tensor.order == _CHANNELS_FIRST and not tensor.loose
        if maps and scale is not None and shift is not None and max(scale.size, shift.size) > 1:
            vectors = [np.broadcast_to(value, channels) for value in (scale, shift)] + [np.zeros(channels), np.ones(channels)]
            names = [self.constant(vector.astype(np.float32)) for vector in vectors]
            return self.node("BatchNormalization", [tensor.name, *names], epsilon=0.0)
        name = tensor.name
        for kind, value in (("Mul", scale), ("Add", shift)):
            if value is not None:
                name = self.node(kind, [name, self.constant(self._along_last(value, tensor))])
        return name

    @staticmethod
    def _along_last(value: np.ndarray, tensor: Tensor) -> np.ndarray:
        """A vector of the last axis in the graph's order of axes."""
        if value.size == 1:
            return value.astype(np.float32).reshape(())
        place = tensor.order.index(len(tensor.shape) - 1)
        return value.astype(np.float32).reshape([-1, *[1] * (len(tensor.order) - 1 - place)])

    def ordered(self, tensor: Tensor, order: tuple[int, ...] | None = None) -> Tensor:
        """The tensor, which must be settled, in an order of axes; None = JAX's."""
        order = tensor.plain if order is None else order
        if tensor.order == order:
            return tensor
        key = ("ordered", tensor.name, tensor.shape, tensor.order, order)
        if key not in self._made:
            sizes = self.sizes(tensor)
            long = [axis for axis in range(len(tensor.shape)) if sizes[axis] != 1]
            same = [axis for axis in tensor.order if axis in long] == [axis for axis in order if axis in long]
            if same and sum(not isinstance(sizes[axis], int) for axis in long) <= 1:  # axes of one place only move
                name = self.node("Reshape", [tensor.name, self.integers(*(_size(sizes[axis]) for axis in order))])
            else:
                name = self.node("Transpose", [tensor.name], perm=[tensor.order.index(axis) for axis in order])
            self._made[key] = dataclasses.replace(tensor, name=name, order=order)
        return self._made[key]

    @staticmethod
    def sizes(tensor: Tensor) -> Shape:
        """JAX's sizes, 1 where the graph has one place for all."""
        return tuple(1 if axis in tensor.loose else size for axis, size in enumerate(tensor.shape))

    def filled(self, tensor: Tensor) -> Tensor:
        """The tensor, in its order, with all places of all axes there."""
        if not tensor.loose:
            return tensor
        shape = [tensor.shape[axis] for axis in tensor.order]
        name = self.node("Expand", [tensor.name, self._shape(shape)])
        return dataclasses.replace(tensor, name=name, loose=frozenset())

    def _shape(self, shape: Sequence[Any]) -> str:
        """A vector of sizes, of which one may be the number of images, or a multiple of it."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(*shape)
        parts = []
        for size in shape:
            factor = 1 if isinstance(size, int) else int(size // self._size_of_batch)
            number = self.integers(size) if isinstance(size, int) else self._images()
            parts.append(number if factor == 1 else self.node("Mul", [number, self.integers(factor)]))
        return str(self.node("Concat", parts, axis=0))

    def _images(self) -> str:
        """The number of images, as a vector of one."""
        if not self._batch:
            whole = self.node("Shape", ["image"])
            self._batch = self.node("Slice", [whole, self.integers(0), self.integers(1)])
        return self._batch

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The tensor, settled, in another shape, read in JAX's order."""
        source = self.ordered(self.filled(tensor))
        symbolic = sum(not isinstance(size, int) for size in shape)
        target = self.integers(*map(_size, shape)) if symbolic <= 1 else self._shape(shape)
        return Tensor(self.node("Reshape", [source.name, target]), shape, tuple(range(len(shape))))

    def of_constant(self, constant: Constant, order: tuple[int, ...] | None = None, dtype: Any = None) -> Tensor:
        """A constant as a tensor, in an order of axes, without the places that are equal."""
        order = tuple(range(len(constant.shape))) if order is None else order
        array = constant.array if dtype is None else constant.array.astype(dtype)
        loose = frozenset(axis for axis, (has, size) in enumerate(zip(array.shape, constant.shape, strict=True)) if has == 1 and size != 1)
        return Tensor(self.constant(array.transpose(order) if array.ndim else array), constant.shape, order, loose)

    def model(
        self, inputs: list[tuple[str, str, list[Any]]], outputs: list[tuple[str, list[Any]]], metadata: dict[str, str]
    ) -> onnx.ModelProto:
        """The finished model.

        Args:
          inputs: name, dtype and shape of each; a text in a shape is the name of a size.
          outputs: name and shape of each, float32.
          metadata: what the file says of itself.
        """
        read = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "imgclf",
            [helper.make_tensor_value_info(name, _TYPES[dtype], shape) for name, dtype, shape in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.initializers.items() if name in read],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="imgclf", ir_version=8)
        helper.set_model_props(model, metadata)
        return model

    def cast(self, name: str, dtype: np.dtype) -> str:
        """Adds a conversion to another type."""
        return str(self.node("Cast", [name], to=_TYPES[dtype.name]))


def _size(size: Any) -> int:
    """A size as Reshape takes it: -1 for the symbolic one."""
    return size if isinstance(size, int) else -1
