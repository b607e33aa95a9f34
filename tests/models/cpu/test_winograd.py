"""3x3 convolutions by Winograd's transforms against the plain convolution in float64: maps of any size, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imgclf.models import layers
from imgclf.models.cpu import winograd

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def direct(x: np.ndarray, kernel: np.ndarray, padding: winograd.Edges) -> np.ndarray:
    """Nine shifted products, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    h, w = x.shape[1] - 2, x.shape[2] - 2
    return sum(x[:, i : i + h, j : j + w] @ kernel[i, j].astype(np.float64) for i in range(3) for j in range(3))


def plain(x: jax.Array, kernel: jax.Array, padding: winograd.Edges) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def error(ours: jax.Array, expected: np.ndarray) -> float:
    return np.abs(np.asarray(ours, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("size", "padding"), [((7, 10), ((1, 1), (1, 1))), ((8, 5), ((2, 1), (0, 2))), ((1, 3), ((1, 1), (1, 1)))], ids=["odd", "uneven", "row"]
)
def test_equals_the_plain_convolution(size, padding):
    x, kernel = normal(3, *size, 16), normal(3, 3, 16, 24)
    ours = jax.jit(lambda x, k: winograd.conv2d(x, k, padding))(x, kernel)
    assert error(ours, direct(x, kernel, padding)) < 1e-6


def test_gradients_equal_the_plain_convolutions():
    padding = ((1, 1), (0, 1))
    x, kernel, weight = normal(2, 7, 6, 8), normal(3, 3, 8, 12), normal(2, 7, 5, 12)

    def gradients(conv2d):
        return jax.jit(jax.grad(lambda x, k: jnp.sum(weight * conv2d(x, k, padding)), (0, 1)))(x, kernel)

    for ours, expected in zip(gradients(winograd.conv2d), gradients(plain), strict=True):
        assert error(ours, np.asarray(expected, np.float64)) < 2e-6


def test_rounded_products_are_near():
    x, kernel, padding = np.maximum(normal(4, 12, 12, 128), 0), normal(3, 3, 128, 128), ((1, 1), (1, 1))
    ours = jax.jit(lambda x, k: layers.conv2d(x, k, padding=padding, bf16_products=True))(x, kernel)
    expected = direct(x, kernel, padding)
    assert ours.dtype == jnp.float32
    assert 1e-4 < np.sqrt(np.mean((ours - expected) ** 2)) / expected.std() < 5e-3
    weight = normal(*expected.shape)
    (x_grad,) = jax.jit(lambda x, grad: jax.vjp(lambda x: winograd.conv2d(x, kernel, padding, jnp.bfloat16), x)[1](grad))(x, weight)
    around = direct(weight, kernel[::-1, ::-1].swapaxes(2, 3), padding)
    assert 1e-4 < np.sqrt(np.mean((x_grad - around) ** 2)) / around.std() < 5e-3


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "chosen"),
    [
        ((16, 14, 14, 256), (3, 3, 256, 256), 1, True),
        ((16, 56, 56, 64), (3, 3, 64, 64), 1, False),
        ((4, 56, 56, 64), (3, 3, 64, 64), 1, True),
        ((16, 14, 14, 256), (3, 3, 256, 256), 2, False),
        ((16, 14, 14, 256), (1, 1, 256, 256), 1, False),
        ((16, 14, 14, 128), (3, 3, 128, 32), 1, False),
        ((2, 8, 8, 256), (3, 3, 256, 256), 1, False),
    ],
)
def test_is_chosen_where_it_is_faster(x, kernel, stride, chosen):
    arrays = jax.ShapeDtypeStruct(x, jnp.float32), jax.ShapeDtypeStruct(kernel, jnp.float32)
    assert winograd.suits(*arrays, stride, ((1, 1), (1, 1))) is chosen


def test_is_chosen_for_larger_maps_where_products_are_rounded():
    x, kernel = jax.ShapeDtypeStruct((16, 56, 56, 64), jnp.float32), jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
    assert winograd.suits(x, kernel, 1, ((1, 1), (1, 1)), jnp.bfloat16)
    assert not winograd.suits(x, kernel, 1, ((1, 1), (1, 1)))
