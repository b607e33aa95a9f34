"""ConvNeXt: sizes, and that it learns. Equality with the originals: test_golden.py, test_keras_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import compile_quickly
from flax import nnx

from imgclf.models import convnext
from imgclf.models.classifier import Classifier


def build(builder, **options):
    rngs = nnx.Rngs(0)
    backbone = builder(**options, rngs=rngs)
    return Classifier(backbone, convnext.head((7, 7), backbone.features, 1000, rngs=rngs))


@pytest.mark.parametrize(
    ("builder", "count"),
    [(convnext.convnext_tiny, 28_589_128), (convnext.convnext_small, 50_223_688), (convnext.convnext_base, 88_591_464)],
)
def test_parameters_are_those_of_timm(builder, count):
    params = nnx.state(nnx.eval_shape(lambda: build(builder)), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_any_size_has_the_maps_it_says():
    abstract = nnx.eval_shape(lambda: convnext.convnext_tiny(rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), abstract.features)


def test_gradients_reach_every_parameter():
    graphdef, params = nnx.split(nnx.eval_shape(lambda: build(convnext.convnext_micro)))
    numbers = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: numbers.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(params))
    image = numbers.normal(size=(2, 16, 24, 3)).astype(np.float32)

    def loss(params):
        return nnx.merge(graphdef, nnx.State(params))(image, train=True)[:, 0].sum() ** 2

    grads = compile_quickly(jax.grad(loss), params)(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_in_bfloat16_parameters_stay_float32():
    model = nnx.eval_shape(lambda: build(convnext.convnext_micro, dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    maps = nnx.eval_shape(lambda model, x: model.backbone(x), model, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert maps.dtype == jnp.bfloat16
