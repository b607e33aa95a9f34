"""config.model.precision: bfloat16 products on the CPU against float32, exact products elsewhere, and evaluation in small batches."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from networks import created, described

from imgclf import models
from imgclf.config import default_config
from imgclf.models import forms, layers, network
from imgclf.models.cpu import bfloat16
from imgclf.training.state import make_apply_fn, split_model

RNG = np.random.default_rng(0)
SIZE = (96, 80)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(jnp.bfloat16).astype(np.float32)


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: bfloat16.Edges) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("most_bytes", [bfloat16._MOST_BYTES, 1], ids=["dots", "float32"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 7), (5, 2)])
@pytest.mark.parametrize(
    ("stride", "padding"),
    [(1, ((0, 0), (0, 0))), (1, ((1, 2), (0, 3))), (2, ((1, 1), (1, 1))), (3, ((0, 1), (2, 0)))],
)
def test_products_are_those_of_rounded_operands_summed_in_float32(monkeypatch, kernel, stride, padding, most_bytes):
    monkeypatch.setattr(bfloat16, "_MOST_BYTES", most_bytes)
    x, k = normal(2, 9, 8, 16), normal(*kernel, 16, 6)
    operands = (rounded(x), rounded(k)) if most_bytes > 1 or kernel == (1, 1) else (x, k)

    @jax.jit
    def both(x, k, *operands):
        return bfloat16.conv2d(x, k, stride, padding), convolve(*operands, stride, padding)

    ours, expected = both(x, k, *operands)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, atol=3e-5)


def test_gradients_of_larger_rounded_kernels_are_float32s():
    x, k, weight, padding = normal(2, 6, 5, 16), normal(3, 3, 16, 4), normal(2, 6, 5, 4), ((1, 1), (1, 1))

    def gradients(conv2d):
        return jax.grad(lambda x, k: jnp.sum(weight * conv2d(x, k, 1, padding)), (0, 1))(x, k)

    for ours, expected in zip(*jax.jit(lambda: [gradients(bfloat16.conv2d), gradients(convolve)])(), strict=True):
        np.testing.assert_allclose(ours, expected, atol=3e-5)


@pytest.mark.parametrize(("channels", "features", "stride"), [(16, 24, 1), (24, 16, 2)], ids=["widening", "narrowing, stride 2"])
def test_gradients_of_1x1_kernels_are_products_of_rounded_operands(channels, features, stride):
    x, k, weight = normal(2, 6, 5, channels), normal(1, 1, channels, features), normal(2, -(-6 // stride), -(-5 // stride), features)

    def gradients(conv2d, x, k, weight):
        return jax.vjp(lambda x, k: conv2d(x, k, stride, ((0, 0), (0, 0))), x, k)[1](weight)

    ours, expected = jax.jit(lambda: (gradients(bfloat16.conv2d, x, k, weight), gradients(convolve, *map(rounded, (x, k, weight)))))()
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def model_of(precision: str, name: str = "resnet_tiny") -> models.Network:
    config = default_config()
    config.model.name, config.model.precision, config.data.image_size = name, precision, SIZE
    return created(config, 3)


def logits_of(model: models.Network, image: jax.Array) -> jax.Array:
    return jax.jit(lambda model, image: model(image))(model, image)


@pytest.mark.parametrize("name", ["vgg_tiny", "inception_v3_tiny"])
def test_bf16_is_near_f32_and_not_it(name):
    image = normal(2, *SIZE, 3)
    exact, near = (logits_of(model_of(precision, name), image) for precision in ("f32", "bf16"))
    assert 1e-5 < jnp.linalg.norm(near - exact) / jnp.linalg.norm(exact) < 0.03


def test_f32_asks_for_exact_products_on_every_platform():
    graphdef, params, stats = split_model(model_of("f32"))
    apply = make_apply_fn(graphdef)
    jaxpr = jax.make_jaxpr(lambda *args: apply(*args, train=True)[0])(params, stats, jnp.zeros((2, *SIZE, 3)))
    precisions = re.findall(r"precision=(.*)", str(jaxpr))
    assert precisions
    assert all("HIGHEST" in found for found in precisions), set(precisions)


@pytest.mark.parametrize("kind", ["linear", "mlp", "norm"])
def test_logits_are_exact_of_bfloat16_maps_too(kind):
    config = default_config()
    config.model.name, config.model.precision, config.model.head.kind, config.data.image_size = "resnet_tiny", "bf16", kind, SIZE
    with forms.on_devices_of(described("tpu")):
        graphdef, params, stats = split_model(nnx.eval_shape(lambda: created(config, 7)))
        apply = make_apply_fn(graphdef)
        jaxpr = jax.make_jaxpr(lambda *args: apply(*args)[0])(params, stats, jnp.zeros((2, *SIZE, 3)))
    (of_logits,) = (equation for equation in jaxpr.jaxpr.eqns if "f32[2,7] = dot_general" in str(equation))
    assert of_logits.params["precision"] == (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


@pytest.mark.parametrize(("precision", "batch"), [("f32", 6), ("f32", 7), ("bf16", 6)])
def test_small_batches_change_nothing(monkeypatch, precision, batch):
    model, image = model_of(precision), normal(batch, *SIZE, 3)
    whole = logits_of(model, image)
    monkeypatch.setattr(network, "_PIXELS", 3 * SIZE[0] * SIZE[1])  # 6 = 3 + 3, 7 = 1 + 1 + …
    np.testing.assert_allclose(logits_of(model, image), whole, atol=1e-5)


def test_kernels_of_few_channels_are_not_rounded():
    convs = nnx.List([layers.Conv(3, 16, 3, rngs=nnx.Rngs(0)), layers.Conv(16, 4, 3, rngs=nnx.Rngs(0))])
    layers.use_bf16_products(convs)
    assert [conv.bf16_products for conv in convs] == [False, True]
