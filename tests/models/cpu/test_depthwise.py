"""Depthwise convolution in both forms, forward and gradients; TensorFlow's padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from networks import described

from imgclf.models import forms, layers

few = settings(deadline=None, derandomize=True, max_examples=5)


def maps(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def forward_and_gradients(fn, x, kernel):
    def loss(x, kernel):
        y = fn(x, kernel)
        return jnp.sum(y * maps(*y.shape, seed=9)), y

    (_, y), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)
    return y, *gradients


@few
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    channels=st.integers(1, 4),
    multiplier=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
)
@example(size=(7, 6), channels=3, multiplier=1, kernel=(5, 5), stride=1, padding=((2, 2), (2, 2)))
@example(size=(8, 7), channels=3, multiplier=1, kernel=(5, 5), stride=2, padding=((1, 2), (2, 2)))
def test_both_forms_agree_with_their_gradients(size, channels, multiplier, kernel, stride, padding):
    x, weights = maps(2, *size, channels), maps(*kernel, 1, channels * multiplier, seed=1)

    def grouped(x, weights):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, weights, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=channels)

    def ours(x, weights):
        return layers.depthwise_conv2d(x, weights, stride, padding)

    both = jax.jit(lambda *arguments: [forward_and_gradients(fn, *arguments) for fn in (ours, grouped)])
    for mine, theirs in zip(*both(x, weights), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_grouped_convolution_is_for_accelerators_only(platform):
    fn = jax.jit(forms.on_devices_of(described(platform))(layers.depthwise_conv2d))
    text = fn.trace(maps(1, 5, 5, 4), maps(3, 3, 1, 4)).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == (platform != "cpu")


@few
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.integers(1, 5), stride=st.integers(1, 3))
def test_same_padding_is_laxs(size, kernel, stride):
    x, weights = maps(1, *size, 2), maps(kernel, kernel, 1, 2, seed=1)
    numbers = ("NHWC", "HWIO", "NHWC")

    @jax.jit
    def run(x, weights):
        conv = layers.DepthwiseConv(2, kernel, stride=stride, padding="same", rngs=nnx.Rngs(0))
        conv.kernel.set_value(weights)
        padded = layers.depthwise_conv2d(layers.pad_same(x, kernel, stride), weights, stride)
        return (
            lax.conv_general_dilated(x, weights, (stride, stride), "SAME", dimension_numbers=numbers, feature_group_count=2),
            conv(x),
            padded,
        )

    expected, as_layer, padded = run(x, weights)
    np.testing.assert_allclose(as_layer, expected, atol=1e-5)
    np.testing.assert_allclose(padded, expected, atol=1e-5)


def test_bfloat16_is_summed_in_float32():
    x, weights = jnp.ones((1, 3, 3, 1), jnp.bfloat16), jnp.full((3, 3, 1, 1), 2.0**-7, jnp.bfloat16).at[0, 0].set(2)
    y = jax.jit(layers.depthwise_conv2d)(x, weights)
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0, 0]) == float(jnp.bfloat16(2 + 8 * 2.0**-7))
