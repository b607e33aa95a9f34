"""Convolution, batch normalisation and pooling, each in an implementation that is fast on the platform at hand.

The implementations agree up to float32 rounding. `forms.by_platform` picks one when a program is lowered, and leaves nothing of
the others in it. Images and maps are [B,H,W,C]; kernels are [kh,kw,C_in,C_out].
"""

import math
from typing import Literal, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from imgclf.models import float32_gradients, forms
from imgclf.models.cpu import bfloat16, chosen, convolution, depthwise, grouped, linear, winograd
from imgclf.models.initializers import HE_NORMAL, Initializer
from imgclf.models.normalization import batch_norm, batch_norm_of_groups, scale_and_shift

Padding = convolution.Edges  # zeros before and behind, of height and width


def same_padding(kernel: int | tuple[int, int]) -> Padding:
    """Padding that keeps the size at stride 1, as Keras's "same" does; for odd kernels it is torch's symmetric `padding=k // 2`."""
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    return ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2)


def same_edges(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and behind an axis under TensorFlow's "same": ceil(size / stride) outputs, the odd pixel behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def explicit_padding(padding: Padding | Literal["same"], maps: jax.Array, kernel: jax.Array, stride: int) -> Padding:
    """The padding in numbers; "same" is TensorFlow's, which depends on the size of the maps."""
    if not isinstance(padding, str):
        return padding
    height, width = (same_edges(size, side, stride) for size, side in zip(maps.shape[1:3], kernel.shape[:2], strict=True))
    return height, width


def pad_same(x: jax.Array, kernel: int, stride: int, value: float = 0.0) -> jax.Array:
    """Pads maps as TensorFlow's "same" does for a window, which needs no padding of its own then (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).

    `value` is −inf before max-pooling.
    """
    edges = [(*same_edges(size, kernel, stride), 0) for size in x.shape[1:3]]
    return lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def part(x: jax.Array, *places: slice) -> jax.Array:
    """Returns x[:, *places], also of a symbolic number of images, for which jnp's own indexing gathers."""
    everywhere = (*places, *(slice(None),) * (x.ndim - 1 - len(places)))
    taken = [range(size)[place] for size, place in zip(x.shape[1:], everywhere, strict=True)]
    if all(axis == range(size) for axis, size in zip(taken, x.shape[1:], strict=True)):
        return x
    starts, stops, strides = ([getattr(axis, name) for axis in taken] for name in ("start", "stop", "step"))
    return lax.slice(x, (0, *starts), (x.shape[0], *stops), (1, *strides))


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
    *,
    groups: int = 1,
    bf16_products: bool = False,
    f32_gradients: bool = False,
) -> jax.Array:
    """Cross-correlates maps with a kernel, as every deep-learning library's convolution does.

    With several `groups`, the kernel is [kh,kw,C_in / groups,C_out], and each group of output channels reads its own group of input
    channels. With `bf16_products`, operands are rounded to bfloat16 on the CPU where that is faster; sums and result are in `x`'s float32.
    With `f32_gradients`, narrower maps leave the kernel's gradient in float32, see float32_gradients.py.
    """

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if f32_gradients and x.dtype != jnp.float32:
            return float32_gradients.conv2d(x, kernel, stride, padding, groups)
        kernel = kernel.astype(x.dtype)
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    def dense_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        products = jnp.bfloat16 if bf16_products else jnp.float32
        if forms.on_one_cpu() and (measured := chosen.forms_of(x, kernel, stride, padding, rounded=bf16_products)):
            return chosen.conv2d(x, kernel.astype(x.dtype), stride, padding, bf16_products, measured)
        if not forms.is_portable() and winograd.suits(x, kernel, stride, padding, products):
            return winograd.conv2d(x, kernel.astype(x.dtype), padding, products)
        if bf16_products:
            return bfloat16.conv2d(x, kernel, stride, padding)
        return convolution.conv2d(x, kernel.astype(x.dtype), stride, padding)

    def grouped_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return grouped.conv2d(x, kernel, groups, dense_on_cpu)

    return forms.by_platform(x, kernel, cpu=dense_on_cpu if groups == 1 else grouped_on_cpu, default=plain)


def depthwise_conv2d(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0)), *, f32_gradients: bool = False
) -> jax.Array:
    """Cross-correlates each channel with its own kernels: [B,H,W,C] and [kh,kw,1,C·m] to [B,h,w,C·m]; `f32_gradients` as in `conv2d`."""

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if f32_gradients and x.dtype != jnp.float32:
            return float32_gradients.conv2d(x, kernel, stride, padding, x.shape[-1])
        kernel = kernel.astype(x.dtype)
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
        )

    def on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return depthwise.conv2d(x, kernel.astype(x.dtype), stride, padding)

    return forms.by_platform(x, kernel, cpu=on_cpu, default=plain)


def plus_bias(x: jax.Array, bias: jax.Array, *, f32_gradients: bool) -> jax.Array:
    """x, [...,C], plus a layer's bias, float32 [C], in `x`'s dtype; `f32_gradients` as in `conv2d`."""
    if f32_gradients and x.dtype != jnp.float32:
        return float32_gradients.add_bias(x, bias)
    return x + bias.astype(x.dtype)


class Conv(nnx.Module):
    """Convolution: parameters `kernel` [kh,kw,C_in / groups,C_out] and, where asked for, `bias` [C_out], float32; computes in `dtype`.

    `kernel` is (kh, kw), or one number for both; `padding` is explicit, or "same" as in TensorFlow; by default it keeps the size at
    stride 1.
    """

    bf16_products = False  # a static attribute; `use_bf16_products` sets it for an instance
    f32_gradients = False  # likewise, `use_f32_gradients`

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        in_features: int,
        out_features: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        padding: Padding | Literal["same"] | None = None,
        use_bias: bool = False,
        kernel_init: Initializer = HE_NORMAL,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if in_features % groups or out_features % groups:
            raise ValueError(f"{in_features} and {out_features} channels can't be divided into {groups} groups")
        self.stride, self.groups = stride, groups
        self.padding = same_padding(kernel) if padding is None else padding
        self.dtype = dtype
        kernel_size = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.kernel = nnx.Param(kernel_init(rngs.params(), (*kernel_size, in_features // groups, out_features), jnp.float32))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32))
        self.use_bias = use_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        padding = explicit_padding(self.padding, x, kernel, self.stride)
        options = {"bf16_products": self.bf16_products, "f32_gradients": self.f32_gradients}
        x = conv2d(x.astype(self.dtype), kernel, self.stride, padding, groups=self.groups, **options)
        return plus_bias(x, self.bias[...], f32_gradients=self.f32_gradients) if self.use_bias else x

    def max_pool_relu(self, x: jax.Array) -> jax.Array:
        """Returns relu(max_pool(self(x), 2, 2)), computed faster than one after the other; for convolutions of stride 1 with bias."""
        if self.f32_gradients and self.dtype != jnp.float32:
            return jax.nn.relu(max_pool(self(x), 2, 2))
        x, bias, kernel = x.astype(self.dtype), self.bias[...].astype(self.dtype), self.kernel[...]
        return conv_max_pool_bias_relu(x, kernel, bias, explicit_padding(self.padding, x, kernel, 1), bf16_products=self.bf16_products)


class DepthwiseConv(nnx.Module):
    """Square depthwise convolution: parameters `kernel` [k,k,1,C·m] and, where asked for, `bias` [C·m], float32; computes in `dtype`.

    `padding` is explicit, or "same" as in TensorFlow; by default symmetric, as torch's `padding=k // 2`.
    """

    f32_gradients = False  # a static attribute; `use_f32_gradients` sets it for an instance

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        features: int,
        kernel: int,
        *,
        multiplier: int = 1,
        stride: int = 1,
        padding: Padding | Literal["same"] | None = None,
        use_bias: bool = False,
        kernel_init: Initializer = HE_NORMAL,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = same_padding(kernel) if padding is None else padding
        self.dtype = dtype
        self.kernel = nnx.Param(kernel_init(rngs.params(), (kernel, kernel, 1, features * multiplier), jnp.float32))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(features * multiplier, jnp.float32))
        self.use_bias = use_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        padding = explicit_padding(self.padding, x, kernel, self.stride)
        x = depthwise_conv2d(x.astype(self.dtype), kernel, self.stride, padding, f32_gradients=self.f32_gradients)
        return plus_bias(x, self.bias[...], f32_gradients=self.f32_gradients) if self.use_bias else x


class Linear(nnx.Module):
    """A linear layer of the last axis: parameters `kernel` [in,out] and, by default, `bias` [out], float32; computes in `dtype`."""

    bf16_products = False  # a static attribute; `use_bf16_products` sets it for an instance
    f32_gradients = False  # likewise, `use_f32_gradients`

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Initializer = HE_NORMAL,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.out_features, self.use_bias, self.dtype = out_features, use_bias, dtype
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, out_features), jnp.float32))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32))

    def __call__(self, x: jax.Array, columns: slice = slice(None)) -> jax.Array:
        """Returns these of the outputs, by default all of them."""
        x, kernel = x.astype(self.dtype), self.kernel[:, columns]
        if self.f32_gradients and self.dtype != jnp.float32:
            x = float32_gradients.matmul(x, kernel)
            return plus_bias(x, self.bias[columns], f32_gradients=True) if self.use_bias else x
        on_cpu = bfloat16.linear if self.bf16_products else linear.product
        x = forms.by_platform(x, kernel.astype(self.dtype), cpu=on_cpu, default=jnp.matmul)
        if not self.use_bias:
            return x
        return forms.by_platform(x, self.bias[columns].astype(self.dtype), cpu=linear.add_bias, default=jnp.add)


class Dense(nnx.Linear):
    """flax's layer, as heads and gates have it; its parameters' gradients are float32 where those of the other layers are."""

    f32_gradients = False  # a static attribute; `use_f32_gradients` sets it for an instance

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # no sharding of the output
        if not self.f32_gradients or self.dtype == jnp.float32:
            return super().__call__(x)
        x = float32_gradients.matmul(x.astype(self.dtype), self.kernel[...])
        return x if self.bias is None else plus_bias(x, self.bias[...], f32_gradients=True)


def residual_sum(x: jax.Array, y: jax.Array) -> jax.Array:
    """x + y, where a block adds to its input."""
    return forms.by_platform(x, y, cpu=linear.residual_sum, default=lax.add)


def use_bf16_products(module: nnx.Module) -> None:
    """Has the layers in `module` round their operands on the CPU; convolutions of few channels don't, as they are faster without."""
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, Linear) or (isinstance(layer, Conv) and layer.groups == 1 and layer.kernel.shape[2] >= 16):
            layer.bf16_products = True


class NormOptions(TypedDict, total=False):
    """Options of BatchNorm that a network has for all its layers."""

    epsilon: float
    momentum: float
    unbiased: bool


class BatchNorm(nnx.Module):
    """Batch normalisation with running averages: parameters `scale`, `bias`; statistics `mean`, `var`; all float32 [C].

    In training, statistics are of the global batch, also where that is spread over devices; with the attribute `group`, of so many images
    in a row. Running = momentum · running + (1 − momentum) · batch: torch's momentum 0.1 is 0.9 here. `unbiased` averages the variance over
    n − 1, as torch does; flax and Keras average it over n. `use_scale=False` leaves out the scale. Where the attribute `frozen` is set,
    training normalises by the running averages, too, and leaves them as they are (Keras's `trainable = False`, torch's `eval()`).
    """

    frozen = False  # a static attribute; freezing sets it for an instance
    group = 0  # likewise; `group_batch_norms` sets it

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        unbiased: bool = True,
        use_scale: bool = True,
        zero_scale: bool = False,
        rngs: nnx.Rngs,
    ):
        del rngs  # nothing is random
        self.momentum, self.epsilon, self.unbiased, self.use_scale = momentum, epsilon, unbiased, use_scale
        if use_scale:
            self.scale = nnx.Param((jnp.zeros if zero_scale else jnp.ones)(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        scale, bias = self.scale[...] if self.use_scale else jnp.ones_like(self.bias[...]), self.bias[...]
        if not train or self.frozen:
            multiplier = lax.rsqrt(self.var[...] + self.epsilon) * scale
            if train:
                return scale_and_shift(x, self.mean[...], multiplier, bias)
            return ((x.astype(jnp.float32) - self.mean[...]) * multiplier + bias).astype(x.dtype)
        if self.group:
            y, mean, variance = batch_norm_of_groups(x, scale, bias, self.epsilon, self.group)
        else:
            y, mean, variance = batch_norm(x, scale, bias, self.epsilon)
        if self.unbiased:
            count = (self.group or len(x)) * math.prod(x.shape[1:-1])
            variance = variance * (count / max(count - 1, 1))
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * variance
        return y


def use_f32_gradients(module: nnx.Module) -> None:
    """Has the layers in `module` that compute in bfloat16 leave their parameters' gradients in float32, see float32_gradients.py."""
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, Conv | DepthwiseConv | Linear | Dense):
            layer.f32_gradients = True


def group_batch_norms(module: nnx.Module, group: int) -> None:
    """Has every BatchNorm in `module` normalise so many images in a row by their own statistics; 0 = the global batch."""
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, BatchNorm) and group:
            layer.group = group


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Largest value of each window, [B,H,W,C] to [B,(H + 2·padding − window) // stride + 1,…,C]; the padding never wins.

    The gradient goes to the first of equal values in a window, as flax's does.
    """

    def by_window(x: jax.Array) -> jax.Array:
        lowest = -jnp.inf
        edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        return lax.reduce_window(x, lowest, lax.max, (1, window, window, 1), (1, stride, stride, 1), edges)

    def by_slices(x: jax.Array) -> jax.Array:
        return convolution.max_pool(x, window, stride, padding)

    return forms.by_platform(x, cpu=by_slices, default=by_window)


def average_pool_2x2(x: jax.Array) -> jax.Array:
    """Means of blocks of 2x2 pixels, [B,H,W,C] to [B,ceil(H / 2),ceil(W / 2),C]; at an odd edge, of the pixels that there are."""
    _, height, width, _ = x.shape
    if height % 2 or width % 2:
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    first, second = slice(None, None, 2), slice(1, None, 2)
    total = part(x, first, first) + part(x, second, first) + part(x, first, second) + part(x, second, second)
    return total * jnp.asarray(0.25, x.dtype)


def max_pool_bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """relu(max_pool(x, 2, 2) + bias), which equals pooling relu(x + bias), at a quarter of the work."""

    def plain(x: jax.Array, bias: jax.Array) -> jax.Array:
        return jax.nn.relu(max_pool(x, 2, 2) + bias)

    return forms.by_platform(x, bias, cpu=convolution.max_pool_bias_relu, default=plain)


def conv_max_pool_bias_relu(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, padding: Padding, *, bf16_products: bool = False
) -> jax.Array:
    """relu(max_pool(conv2d(x, kernel), 2, 2) + bias): a block of a plain CNN."""

    def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return max_pool_bias_relu(conv2d(x, kernel, padding=padding, bf16_products=bf16_products), bias)

    def by_patches(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return convolution.conv_max_pool_bias_relu(x, kernel.astype(x.dtype), bias, padding)

    few_channels = x.shape[-1] <= 4
    return forms.by_platform(x, kernel, bias, cpu=by_patches if few_channels else plain, default=plain)
