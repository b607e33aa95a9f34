"""A convolution of which each part, forward, its input's gradient and its kernel's, has the form that was measured to be fastest.

Which form that is depends on the CPU; `tuning` finds it. Forms agree up to rounding. A network whose attribute `forms` is set uses them in
training; everywhere else, and for layers that the table doesn't have, the forms are those of `layers.conv2d`.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from imgclf.models.cpu import bfloat16, convolution, onednn, winograd
from imgclf.models.cpu.convolution import Edges


class Layer(NamedTuple):
    """What decides how fast a convolution's forms are: its shapes, and whether operands are rounded to bfloat16."""

    maps: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    padding: Edges
    rounded: bool

    @property
    def outputs(self) -> tuple[int, ...]:
        """Of what shape the convolution is."""
        return (self.maps[0], *convolution.output_size(self.maps[1:3], self.kernel[:2], self.stride, self.padding), self.kernel[3])

    def __str__(self) -> str:
        batch, height, width, channels = self.maps
        kh, kw, _, features = self.kernel
        strides = f" / {self.stride}" if self.stride > 1 else ""
        return f"{kh}x{kw}{strides}, {batch} x {height}x{width}, {channels} → {features}{', bf16' if self.rounded else ''}"


class Forms(NamedTuple):
    """The names of the forms of a layer's parts: "plain", "winograd", "onednn", or, of what is rounded, "float32"."""

    forward: str
    input_gradient: str
    kernel_gradient: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The forms of a network's layers."""

    rows: tuple[tuple[Layer, Forms], ...]

    @functools.cached_property
    def by_layer(self) -> dict[Layer, Forms]:
        return dict(self.rows)

    @property
    def needs_onednn(self) -> bool:
        """Whether any of them is oneDNN's."""
        return any("onednn" in forms for _, forms in self.rows)

    def to_json(self) -> list[dict[str, Any]]:
        """What `from_json` makes the table of."""
        return [layer._asdict() | {"forms": forms._asdict()} for layer, forms in self.rows]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "Table":
        """The table that `to_json` was of, also after a journey through a file."""
        made = []
        for row in rows:
            padding = tuple(tuple(edges) for edges in row["padding"])
            layer = Layer(tuple(row["maps"]), tuple(row["kernel"]), row["stride"], padding, row["rounded"])  # type: ignore[arg-type]
            made.append((layer, Forms(**row["forms"])))
        return cls(tuple(made))


_table: contextvars.ContextVar[Table | None] = contextvars.ContextVar("table", default=None)
_seen: contextvars.ContextVar[dict[Layer, None] | None] = contextvars.ContextVar("seen", default=None)


@contextlib.contextmanager
def using(table: Table | None) -> Iterator[None]:
    """Convolutions that are traced in the block have these forms."""
    token = _table.set(table)
    try:
        yield
    finally:
        _table.reset(token)


@contextlib.contextmanager
def noting() -> Iterator[dict[Layer, None]]:
    """Yields a dictionary whose keys are, in the end, the convolutions that were traced in the block, in their order."""
    seen: dict[Layer, None] = {}
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def forms_of(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, *, rounded: bool) -> Forms | None:
    """The forms that a convolution has by the table in use; None where that says nothing of it."""
    table, seen = _table.get(), _seen.get()
    if (table is None and seen is None) or x.dtype != jnp.float32:
        return None
    layer = Layer(tuple(x.shape), tuple(kernel.shape), stride, padding, rounded)
    if seen is not None:
        seen[layer] = None
    return table.by_layer.get(layer) if table is not None else None


def usual(layer: Layer) -> Forms:
    """The forms that `layers.conv2d` gives a layer."""
    maps, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (layer.maps, layer.kernel))
    dtype = jnp.bfloat16 if layer.rounded else jnp.float32
    of_maps = "winograd" if winograd.suits(maps, kernel, layer.stride, layer.padding, dtype) else "plain"  # type: ignore[arg-type]
    return Forms(of_maps, of_maps, "plain")


def candidates(layer: Layer) -> dict[str, list[str]]:
    """The forms that each part of a layer can have on this machine, the usual one first."""
    kh, kw, *channels = layer.kernel
    pads_little = all(max(edges) < side for side, edges in zip((kh, kw), layer.padding, strict=True))
    possible = ["plain"]
    if (kh, kw, layer.stride) == (3, 3, 1) and pads_little and min(channels) >= 16:
        possible.append("winograd")
    if layer.rounded and (kh, kw) != (1, 1):
        possible.append("float32")
    of_kernel = ["plain"]
    if pads_little and onednn.missing() is None:
        possible.append("onednn")
        of_kernel.append("onednn")
    return {
        part: [form, *(other for other in (of_kernel if part == "kernel_gradient" else possible) if other != form)]
        for part, form in usual(layer)._asdict().items()
    }


def _by(form: str, stride: int, padding: Edges, rounded: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The convolution in a form that is written in JAX, with a gradient."""
    if form == "winograd":
        return lambda x, kernel: winograd.conv2d(x, kernel, padding, jnp.bfloat16 if rounded else jnp.float32)
    if rounded and form == "plain":
        return lambda x, kernel: bfloat16.conv2d(x, kernel, stride, padding)
    return lambda x, kernel: convolution.conv2d(x, kernel, stride, padding)


def _rounded_once(x: jax.Array) -> jax.Array:
    """In bfloat16, not computed anew for each of its users."""
    return convolution.not_inlined(lambda x: lax.convert_element_type(x, jnp.bfloat16))(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def conv2d(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, rounded: bool, forms: Forms) -> jax.Array:
    """The convolution, float32, of float32 maps [B,H,W,C] with a kernel [kh,kw,C,K], in these forms.

    Args:
      stride, padding: as everywhere.
      rounded: whether operands of products are rounded to bfloat16, where the form does so.
      forms: of which `candidates` has all.
    """
    return _residuals(x, kernel, stride, padding, rounded, forms)[0]


def _residuals(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Edges, rounded: bool, forms: Forms
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    narrow = _rounded_once(x) if rounded and "onednn" in (forms.forward, forms.kernel_gradient) else x
    if forms.forward == "onednn":
        y = onednn.conv2d(narrow, kernel, stride, padding)
    else:
        y = _by(forms.forward, stride, padding, rounded)(x, kernel)
    return y, (narrow if forms.kernel_gradient == "onednn" else x, kernel)


def _gradients(
    stride: int, padding: Edges, rounded: bool, forms: Forms, residuals: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    narrow = _rounded_once(grad) if rounded and "onednn" in forms[1:] else grad
    if forms.input_gradient == "onednn":
        x_grad = onednn.input_gradient(narrow, kernel, (x.shape[1], x.shape[2]), stride, padding)
    else:
        # the maps themselves don't enter the gradient, as a convolution is linear in them: what is computed of zeros is left out
        zeros, by = jnp.zeros(x.shape, jnp.float32), _by(forms.input_gradient, stride, padding, rounded)
        (x_grad,) = jax.vjp(lambda x: by(x, kernel), zeros)[1](grad)
    if forms.kernel_gradient == "onednn":
        return x_grad, onednn.kernel_gradient(x, narrow, kernel.shape, stride, padding)
    by = _by("plain", stride, padding, rounded)
    (kernel_grad,) = jax.vjp(lambda kernel: by(x, kernel), kernel)[1](grad)
    return x_grad, kernel_grad


conv2d.defvjp(_residuals, _gradients)
