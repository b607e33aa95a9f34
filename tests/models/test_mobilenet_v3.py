"""MobileNetV3: sizes, the paper's table, that it learns, and the head after the average. Equality with the originals: test_golden.py."""

import jax
import jax.numpy as jnp
import numpy as np
from converted import compile_quickly, normal
from flax import nnx

from imgclf.models import mobilenet_v3


def test_any_size_has_the_maps_it_says():
    abstract = nnx.eval_shape(lambda: mobilenet_v3.mobilenet_v3_large(rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), abstract.features)
    assert abstract.features == 960


def test_the_inner_width_of_a_gate_is_a_quarter_of_the_blocks_own():
    abstract = nnx.eval_shape(lambda: mobilenet_v3.mobilenet_v3_large(rngs=nnx.Rngs(0)))
    blocks = [getattr(abstract.blocks, str(i)) for i in range(15)]
    inner = [block.se.reduce.kernel.shape[1] for block in blocks if block.squeezes]
    assert inner == [24, 32, 32, 120, 168, 168, 240, 240]  # in multiples of 8


def test_gradients_reach_every_parameter():
    def build():
        rngs = nnx.Rngs(0)
        backbone = mobilenet_v3.mobilenet_v3_tiny(rngs=rngs)
        return backbone, mobilenet_v3.HEAD(backbone.map_size(16, 24), backbone.features, 3, rngs=rngs)

    graphdef, *states = nnx.split(nnx.eval_shape(build), nnx.Param, nnx.BatchStat)
    numbers = np.random.default_rng(0)
    params, stats = (normal(state, numbers) for state in states)
    image = numbers.normal(size=(8, 16, 24, 3)).astype(np.float32)

    def loss(params, stats):
        backbone, head = nnx.merge(graphdef, nnx.State(params), nnx.State(stats))
        return (head(backbone(image, train=True), train=True) ** 2).sum()

    grads = compile_quickly(jax.grad(loss), params, stats)(params, stats)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_the_head_averages_before_its_hidden_layer():
    head = mobilenet_v3.HEAD((2, 3), 4, 5, units=6, rngs=nnx.Rngs(0))
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 4)), jnp.float32)
    averaged = jnp.broadcast_to(maps.mean((1, 2), keepdims=True), maps.shape)
    np.testing.assert_allclose(head(maps), head(averaged), atol=1e-5)
    hidden = jax.nn.hard_swish(head.hidden(maps.mean((1, 2))))
    np.testing.assert_allclose(head(maps), head.logits(hidden), atol=1e-5)
