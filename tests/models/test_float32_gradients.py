"""Gradients that stay in float32 are those of the rounded operands, for every shape of a convolution; and those of today otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from networks import created, described

from imgclf.config import default_config
from imgclf.models import float32_gradients, forms
from imgclf.training.state import path_name, split_model


def rounded(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers that bfloat16 holds exactly, in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(jnp.bfloat16).astype(np.float32)


def gradients(fn, x, *params):
    y, back = jax.vjp(fn, x, *params)
    return back(jnp.asarray(rounded(*y.shape, seed=9), y.dtype))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [(1, 2, (0, 0), 2), (3, 1, (1, 1), 1), (3, 2, (0, 1), 3), (2, 3, (1, 0), 1), (4, 1, (3, 3), 1)],
)
def test_a_convolutions_are_those_of_float32(kernel, stride, padding, groups):
    padding = (padding, padding[::-1])
    x, weights = rounded(2, 6, 7, 2 * groups), rounded(kernel, kernel, 2, 4 * groups, seed=1)

    def exact(x, weights):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, weights, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups)

    def ours(x, weights):
        return float32_gradients.conv2d(x, weights, stride, padding, groups)

    x_grad, kernel_grad = jax.jit(lambda *args: gradients(ours, *args))(jnp.asarray(x, jnp.bfloat16), weights)
    expected_x, expected = jax.jit(lambda *args: gradients(exact, *args))(x, weights)
    assert (x_grad.dtype, kernel_grad.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(kernel_grad, expected, atol=1e-4)
    np.testing.assert_allclose(x_grad.astype(jnp.float32), expected_x, atol=0.1)


def test_a_linear_layers_are_those_of_float32():
    x, kernel, bias = rounded(3, 5, 4), rounded(4, 6, seed=1), rounded(6, seed=2)

    def ours(x, kernel, bias):
        return float32_gradients.add_bias(float32_gradients.matmul(x, kernel), bias)

    _, *found = gradients(ours, jnp.asarray(x, jnp.bfloat16), kernel, bias)
    _, *expected = gradients(lambda x, kernel, bias: x @ kernel + bias, x, kernel, bias)
    for mine, exact in zip(found, expected, strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, exact, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet_tiny", pytest.param("vit_tiny", marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_no_parameters_gradient_is_rounded_before_devices_add_it_up(name, precision):
    config = default_config()
    config.model.name, config.model.precision, config.model.gradient_precision = name, "bf16", precision
    config.data.image_size = (32, 32)
    with forms.on_devices_of(described("tpu")):
        graphdef, params, stats = split_model(nnx.eval_shape(lambda: created(config, 3)))

        def loss(params, stats, image):
            return nnx.merge(graphdef, nnx.State(params), nnx.State(stats))(image, train=True).sum()

        jaxpr = jax.make_jaxpr(jax.grad(loss))(params, stats, jnp.zeros((4, 32, 32, 3)))
    kernels = [path_name(path).endswith("kernel") for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    gradients_of_kernels = {out for out, is_kernel in zip(jaxpr.jaxpr.outvars, kernels, strict=True) if is_kernel}
    widened = [equation for equation in jaxpr.jaxpr.eqns if widens(equation) and equation.outvars[0] in gradients_of_kernels]
    assert bool(widened) == (precision == "bf16")


def widens(equation) -> bool:
    """Whether it makes float32 of bfloat16."""
    (operand, *_) = equation.invars
    return equation.primitive.name == "convert_element_type" and operand.aval.dtype == jnp.bfloat16
