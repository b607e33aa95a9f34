"""EfficientNet and its second version: sizes, and that it learns. Equality with the originals: test_golden.py, test_keras_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import compile_quickly, normal
from flax import nnx

from imgclf.models import efficientnet, efficientnet_v2
from imgclf.models.blocks import InvertedResidualNet, InvertedResidualStage


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("builder", [efficientnet.efficientnet_tiny, efficientnet_v2.efficientnet_v2_tiny])
def test_any_size_has_the_maps_it_says(builder, padding):
    abstract = nnx.eval_shape(lambda: builder(padding=padding, rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), abstract.features)


def test_wider_and_deeper_by_the_papers_compound_scaling():
    def channels_and_depths(size):
        return [(stage.features, stage.depth) for stage in efficientnet.stages(size)]

    assert channels_and_depths("b1") == [(16, 2), (24, 3), (40, 3), (80, 4), (112, 4), (192, 5), (320, 2)]
    assert channels_and_depths("b4") == [(24, 2), (32, 4), (56, 4), (112, 6), (160, 6), (272, 8), (448, 2)]


@pytest.mark.slow  # test_mobilenet_v4 has these blocks, too
def test_gradients_reach_every_parameter():
    """Of blocks of all kinds: fused with and without expansion, and not fused."""
    stages = [(1, 8, 1, 1, 3, True), (4, 16, 1, 2, 3, True), (1, 16, 1, 1), (6, 24, 2, 2, 5)]
    stages = [InvertedResidualStage(*stage) for stage in stages]
    abstract = nnx.eval_shape(lambda: InvertedResidualNet(8, stages, 64, **efficientnet.SHARED, rngs=nnx.Rngs(0)))
    graphdef, *states = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    numbers = np.random.default_rng(0)
    params, stats = (normal(state, numbers) for state in states)
    image = numbers.normal(size=(4, 16, 24, 3)).astype(np.float32)

    def loss(params, stats):
        return (nnx.merge(graphdef, nnx.State(params), nnx.State(stats))(image, train=True) ** 2).sum()

    grads = compile_quickly(jax.grad(loss), params, stats)(params, stats)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_in_bfloat16_parameters_stay_float32():
    model = nnx.eval_shape(lambda: efficientnet.efficientnet_tiny(dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    maps = nnx.eval_shape(lambda model, x: model(x), model, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert maps.dtype == jnp.bfloat16
