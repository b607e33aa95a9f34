"""LayerNorm, GELU and layer scale: values and gradients against flax's and JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.models import pixelwise

NUMBERS = np.random.default_rng(0)


def assert_equal_with_gradients(ours, theirs, *arguments, tolerance=2e-5):
    """Compares two functions' values, and the gradients of a sum of them that weighs each value differently."""
    out, backward = jax.vjp(ours, *arguments)
    expected, expected_backward = jax.vjp(theirs, *arguments)
    cotangent = jnp.asarray(NUMBERS.normal(size=out.shape), out.dtype)
    for mine, reference in zip((out, *backward(cotangent)), (expected, *expected_backward(cotangent)), strict=True):
        assert mine.dtype == reference.dtype
        mine, reference = (np.asarray(x, np.float32) for x in (mine, reference))
        np.testing.assert_allclose(mine, reference, atol=tolerance * max(1.0, np.abs(reference).max()))


def test_gelu_is_the_exact_one():
    x = jnp.linspace(-9, 9, 720).reshape(1, 3, 240, 1)
    assert_equal_with_gradients(pixelwise.gelu, lambda x: jax.nn.gelu(x, approximate=False), x, tolerance=1e-6)
    assert pixelwise.gelu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@settings(max_examples=3, deadline=None)
@given(st.sampled_from([(2, 3, 4, 5), (7, 16), (1, 1, 2, 1)]), st.floats(0.01, 100), st.floats(-10, 10))
def test_layer_norm_is_flaxs(shape, spread, centre):
    x = jnp.asarray(centre + spread * NUMBERS.normal(size=shape), jnp.float32)
    scale, bias = (jnp.asarray(NUMBERS.normal(size=shape[-1]), jnp.float32) for _ in range(2))
    module = nnx.LayerNorm(shape[-1], epsilon=1e-6, use_fast_variance=False, rngs=nnx.Rngs(0))
    graphdef, _ = nnx.split(module)

    def flaxs(x, scale, bias):
        return nnx.merge(graphdef, nnx.State({"scale": nnx.Param(scale), "bias": nnx.Param(bias)}))(x)

    assert_equal_with_gradients(lambda *arguments: pixelwise.layer_norm(*arguments, 1e-6), flaxs, x, scale, bias, tolerance=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_scale_multiplies_each_channel(dtype):
    x, scale = jnp.asarray(NUMBERS.normal(size=(2, 3, 4, 5)), dtype), jnp.asarray(NUMBERS.normal(size=5), jnp.float32)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    assert_equal_with_gradients(pixelwise.scale_channels, lambda x, scale: x * scale.astype(x.dtype), x, scale, tolerance=tolerance)


def test_the_layers_hold_the_parameters_of_flaxs():
    layer = pixelwise.LayerNorm(6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert {path[0]: leaf.dtype for path, leaf in nnx.to_flat_state(nnx.state(layer))} == {"scale": jnp.float32, "bias": jnp.float32}
    assert layer(jnp.ones((2, 3, 6))).dtype == jnp.bfloat16
