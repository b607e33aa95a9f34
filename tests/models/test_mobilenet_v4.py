"""MobileNetV4: sizes, kinds of blocks, that it learns. Equality with the originals: test_golden.py."""

import jax
import jax.numpy as jnp
import numpy as np
from converted import compile_quickly, normal
from flax import nnx

from imgclf.models import mobilenet_v4


def test_any_size_has_the_maps_it_says():
    abstract = nnx.eval_shape(lambda: mobilenet_v4.mobilenet_v4_conv_small(rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), abstract.features)
    assert abstract.features == 960


def test_gradients_reach_every_parameter_of_all_kinds_of_blocks():
    def build():
        rngs = nnx.Rngs(0)
        backbone = mobilenet_v4.mobilenet_v4_tiny(rngs=rngs)
        return backbone, mobilenet_v4.HEAD(backbone.map_size(24, 40), backbone.features, 3, units=20, rngs=rngs)

    graphdef, *states = nnx.split(nnx.eval_shape(build), nnx.Param, nnx.BatchStat)
    numbers = np.random.default_rng(0)
    params, stats = (normal(state, numbers) for state in states)
    image = numbers.normal(size=(8, 24, 40, 3)).astype(np.float32)

    def loss(params, stats):
        backbone, head = nnx.merge(graphdef, nnx.State(params), nnx.State(stats))
        value = (head(backbone(image, train=True), train=True) ** 2).sum()
        return value, nnx.to_pure_dict(nnx.state((backbone, head), nnx.BatchStat))

    grads, new_stats = compile_quickly(jax.grad(loss, has_aux=True), params, stats)(params, stats)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    assert not any(np.array_equal(old, new) for old, new in zip(jax.tree.leaves(stats), jax.tree.leaves(new_stats), strict=True))
