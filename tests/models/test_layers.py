"""Every layer against flax's own, forward and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from networks import described

from imgclf.models import forms, layers, normalization
from imgclf.training.state import split_model

few = settings(deadline=None, derandomize=True, max_examples=5)


def maps(*shape: int, seed: int = 0, ties: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return np.round(values) if ties else values


def forward_and_gradients(fn, *arguments):
    """The value and the gradients of sum(weights · fn), with random weights."""

    def loss(*arguments):
        y = fn(*arguments)
        return jnp.sum(y * maps(*y.shape, seed=9)), y

    (_, y), gradients = jax.value_and_grad(loss, argnums=tuple(range(len(arguments))), has_aux=True)(*arguments)
    return y, *gradients


def assert_close(ours, flax, tolerance: float = 2e-5) -> None:
    for mine, theirs in zip(jax.device_get(ours), jax.device_get(flax), strict=True):
        assert mine.shape == theirs.shape
        scale = max(1.0, float(np.abs(theirs).max()))
        np.testing.assert_allclose(mine / scale, theirs / scale, atol=tolerance, rtol=0)


def assert_agree(ours, flax, *arguments, tolerance: float = 2e-5) -> None:
    """Forward and gradients, compiled at once."""
    both = jax.jit(lambda *arguments: (forward_and_gradients(ours, *arguments), forward_and_gradients(flax, *arguments)))
    assert_close(*both(*arguments), tolerance)


@few
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    channels=st.integers(1, 5),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    bias=st.booleans(),
    valid=st.booleans(),
)
def test_conv_is_flaxs(size, channels, kernel, stride, bias, valid):
    padding = ((0, 0), (0, 0)) if valid else layers.same_padding(kernel)
    ours = layers.Conv(channels, 6, kernel, stride=stride, padding=padding, use_bias=bias, rngs=nnx.Rngs(0))
    zeros = nnx.initializers.zeros  # compiles less than random numbers
    flax = nnx.Conv(channels, 6, (kernel, kernel), strides=stride, padding=padding, use_bias=bias, kernel_init=zeros, rngs=nnx.Rngs(1))
    flax.kernel.set_value(ours.kernel[...])
    if bias:
        for conv in (ours, flax):
            conv.bias.set_value(jnp.asarray(maps(6, seed=2)))
    assert_agree(ours, flax, maps(2, *size, channels))


@settings(few, max_examples=6)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.sampled_from((3, 6)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)
def test_convolutions_and_their_gradients_are_laxs(size, channels, kernel, stride, padding):
    def plain(x, weights):
        return lax.conv_general_dilated(x, weights, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, weights = maps(2, *size, channels), maps(*kernel, channels, 5, seed=1)
    assert_agree(lambda x, weights: layers.conv2d(x, weights, stride, padding), plain, x, weights)


@settings(few, max_examples=6)
@given(
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    groups=st.integers(1, 6),
    widths=st.tuples(st.sampled_from((1, 4, 40)), st.integers(1, 3)),
    kernel=st.sampled_from((1, 3)),
    stride=st.integers(1, 2),
)
def test_grouped_convolutions_and_their_gradients_are_laxs(size, groups, widths, kernel, stride):
    padding = layers.same_padding(kernel)

    def plain(x, weights):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, weights, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups)

    x, weights = maps(2, *size, groups * widths[0]), maps(kernel, kernel, widths[0], groups * widths[1], seed=1)
    assert_agree(lambda x, weights: layers.conv2d(x, weights, stride, padding, groups=groups), plain, x, weights)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_on_the_cpu_no_convolution_has_groups(platform):
    fn = jax.jit(forms.on_devices_of(described(platform))(lambda x, weights: layers.conv2d(x, weights, groups=4)))
    text = fn.trace(maps(1, 5, 5, 8), maps(3, 3, 2, 8)).lower(lowering_platforms=(platform,)).as_text()
    assert ("feature_group_count = 4" in text) == (platform != "cpu")


def test_channels_that_cant_be_divided_into_groups_are_refused():
    with pytest.raises(ValueError, match="6 and 8 channels can't be divided into 4 groups"):
        layers.Conv(6, 8, 3, groups=4, rngs=nnx.Rngs(0))


def test_he_initialisation_has_variance_two_over_the_inputs_of_a_unit():
    kernel = layers.Conv(32, 128, 3, rngs=nnx.Rngs(0)).kernel[...]
    assert float(kernel.var()) == pytest.approx(2 / (9 * 32), rel=0.05)


@few
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(3, 9), st.integers(3, 9), st.integers(1, 4)),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    ties=st.booleans(),
)
def test_max_pool_is_flaxs_also_where_values_are_equal(shape, window, stride, padding, ties):
    padding = min(padding, window // 2)

    def flax(x):
        return nnx.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)

    assert_agree(lambda x: layers.max_pool(x, window, stride, padding), flax, maps(*shape, ties=ties), tolerance=1e-6)


def test_max_pool_keeps_nan():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 1, 1, 0] = np.nan
    for y in jax.jit(lambda x: (layers.max_pool(x, 2, 2), layers.max_pool_bias_relu(x, jnp.zeros(1))))(x):
        y = np.asarray(y)
        assert np.isnan(y[0, 0, 0, 0])
        assert np.isfinite(y[0, 1, 1, 0])


@few
@given(shape=st.tuples(st.integers(1, 3), st.integers(2, 7), st.integers(2, 7), st.integers(1, 9)), ties=st.booleans())
def test_max_pool_bias_relu_is_relu_of_the_pooled_sum(shape, ties):
    x, bias = maps(*shape, ties=ties), maps(shape[-1], seed=1)

    def flax(x, bias):
        return nnx.max_pool(jax.nn.relu(x + bias), (2, 2), (2, 2))

    assert_agree(layers.max_pool_bias_relu, flax, x, bias, tolerance=1e-5)


@few
@given(
    size=st.tuples(st.integers(6, 11), st.integers(6, 11)),
    channels=st.sampled_from((1, 3, 4, 8)),
    kernel=st.integers(1, 5),
    valid=st.booleans(),
)
def test_conv_max_pool_bias_relu_is_the_three_in_turn(size, channels, kernel, valid):
    padding = ((0, 0), (0, 0)) if valid else layers.same_padding(kernel)
    x, weights, bias = maps(2, *size, channels), maps(kernel, kernel, channels, 5, seed=1), maps(5, seed=2)

    def flax(x, weights, bias):
        y = lax.conv_general_dilated(x, weights, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return nnx.max_pool(jax.nn.relu(y + bias), (2, 2), (2, 2))

    assert_agree(lambda *arguments: layers.conv_max_pool_bias_relu(*arguments, padding), flax, x, weights, bias)


def batch_norms(features: int, **options) -> tuple[layers.BatchNorm, nnx.BatchNorm]:
    ours = layers.BatchNorm(features, rngs=nnx.Rngs(0), **options)
    flax = nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    for norm in (ours, flax):
        for variable, seed in ((norm.scale, 1), (norm.bias, 2)):
            variable.set_value(jnp.asarray(maps(features, seed=seed)))
    return ours, flax


@few
@given(shape=st.tuples(st.integers(1, 4), st.integers(2, 6), st.integers(1, 6), st.integers(1, 5)))
def test_batch_norm_is_flaxs_in_training(shape):
    x = 3 * maps(*shape) + 2

    def training(norm, **mode):
        graphdef, params, stats = split_model(norm)

        def loss(x, params):
            merged = nnx.merge(graphdef, nnx.State(params), nnx.State(stats))
            y = merged(x, **mode)
            return jnp.sum(y * maps(*y.shape, seed=9)), (y, merged.mean[...], merged.var[...])

        def run(x, params):
            (_, out), (x_grad, params_grad) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, params)
            return *out, x_grad, params_grad["scale"], params_grad["bias"]

        return run, params

    ours, flax = batch_norms(shape[-1], unbiased=False)
    (run, params), (flax_run, flax_params) = training(ours, train=True), training(flax, use_running_average=False)
    both = jax.jit(lambda x, params, flax_params: (run(x, params), flax_run(x, flax_params)))
    assert_close(*both(x, params, flax_params), 1e-4)


def test_batch_norm_is_flaxs_in_evaluation():
    ours, flax = batch_norms(5)
    for norm in (ours, flax):
        norm.mean[...], norm.var[...] = maps(5, seed=3), np.abs(maps(5, seed=4))
    x = maps(2, 3, 3, 5)
    assert_close([ours(x)], [flax(x, use_running_average=True)])


@settings(few, max_examples=3)
@given(groups=st.integers(1, 4), group=st.integers(2, 4), channels=st.integers(1, 5))
def test_grouped_batch_norm_is_that_of_each_group_by_itself(groups, group, channels):
    x = 3 * maps(groups * group, 3, 2, channels) + 2
    norm = layers.BatchNorm(channels, rngs=nnx.Rngs(0))
    layers.group_batch_norms(norm, group)
    graphdef, _, stats = split_model(norm)

    def ours(x, scale, bias):
        merged = nnx.merge(graphdef, nnx.State({"scale": scale, "bias": bias}), nnx.State(stats))
        return merged(x, train=True), merged.mean[...], merged.var[...]

    def plain(x, scale, bias):
        parts = x.reshape(groups, -1, channels)
        mean, var = parts.mean(1), parts.var(1)
        y = (parts - mean[:, None]) / jnp.sqrt(var[:, None] + 1e-5) * scale + bias
        return y.reshape(x.shape), 0.1 * mean.mean(0), 0.9 + 0.1 * parts.var(1, ddof=1).mean(0)

    def run(fn, *arguments):
        def loss(*arguments):
            y, *running = fn(*arguments)
            return jnp.sum(y * maps(*x.shape, seed=9)), (y, *running)

        (_, out), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*arguments)
        return *out, *gradients

    arguments = x, maps(channels, seed=1), maps(channels, seed=2)
    assert_close(*jax.jit(lambda *arguments: (run(ours, *arguments), run(plain, *arguments)))(*arguments), 1e-4)


def test_images_that_dont_divide_into_groups_are_refused():
    norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
    layers.group_batch_norms(norm, 4)
    with pytest.raises(ValueError, match="6 images can't be divided into groups of 4"):
        norm(maps(6, 2, 2, 3), train=True)


def test_one_update_of_the_running_statistics_is_torchs_by_default():
    norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
    x = maps(2, 4, 4, 3)
    norm(x, train=True)
    values = np.asarray(x, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(norm.mean[...], 0.1 * values.mean(0), atol=1e-6)  # torch: momentum 0.1
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * values.var(0, ddof=1), atol=1e-6)  # torch: n − 1


def test_batch_norm_keeps_its_statistics_in_float32_for_bfloat16_maps():
    norm = layers.BatchNorm(3, rngs=nnx.Rngs(0))
    y = norm((1000 + maps(4, 16, 16, 3)).astype(jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    assert float(jnp.abs(norm.mean[...] - 100).max()) < 0.1


def test_column_sums_are_exact_over_a_million_rows():
    x = np.random.default_rng(0).uniform(size=(16, 256, 256, 4)).astype(np.float32)
    exact = x.astype(np.float64).sum((0, 1, 2))
    sums = normalization.column_sums(jnp.asarray(x), jnp.asarray(-2 * x))
    np.testing.assert_allclose(sums[0], exact, rtol=2e-6)
    np.testing.assert_allclose(sums[1], -2 * exact, rtol=2e-6)


def test_one_form_is_left_in_the_program_and_the_convolutions_stay_in_its_entry():
    """A conditional, or a convolution in a computation of its own, would lose XLA:CPU's fast path (jax-ml/jax#12868)."""

    def loss(kernel, x, bias):
        return jnp.sum(layers.max_pool(layers.conv_max_pool_bias_relu(x, kernel, bias, layers.same_padding(3)), 3, 2))

    text = jax.jit(jax.grad(loss)).lower(maps(3, 3, 8, 8), maps(2, 16, 16, 8), maps(8)).compile().as_text()
    before, entry = text.split("\nENTRY ")
    assert "conditional(" not in text
    assert " convolution(" in entry
    assert " convolution(" not in before
