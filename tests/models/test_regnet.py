"""RegNetY and ResNet-D: sizes, that they learn, and that files are told from their relatives'. Equality: test_golden.py."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import compile_quickly, normal
from flax import nnx

from imgclf.models import layers, regnet, resnet
from imgclf.models.weights import conversion, pretrained

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TINY = {"regnet": regnet.regnet_tiny, "resnet_d": resnet.MODELS["resnet_d_tiny"].build}


@pytest.mark.parametrize("build", [regnet.regnet_y_4gf, resnet.MODELS["resnet18d"].build])
def test_any_size_has_the_maps_it_says(build):
    abstract = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), abstract.features)


@pytest.mark.parametrize("family", ["regnet", pytest.param("resnet_d", marks=pytest.mark.slow)])  # a ResNet but for its stem and pooling
def test_gradients_reach_every_parameter(family):
    abstract = nnx.eval_shape(lambda: TINY[family](rngs=nnx.Rngs(0)))
    graphdef, *states = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    numbers = np.random.default_rng(0)
    params, stats = (normal(state, numbers) for state in states)
    params = conversion.nest(
        {
            path: leaf + 20 * path.endswith("reduce/bias")  # else half of those units are off for all images, whose averages are alike
            for path, leaf in conversion.flatten(params).items()
        }
    )
    image = numbers.normal(size=(4, 40, 56, 3)).astype(np.float32)

    def loss(params, stats):
        return (nnx.merge(graphdef, nnx.State(params), nnx.State(stats))(image, train=True) ** 2).sum()

    grads = compile_quickly(jax.grad(loss), params, stats)(params, stats)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (4, 3), (1, 1)])
def test_pooling_in_blocks_averages_the_pixels_that_there_are(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    expected = np.stack(
        [np.stack([x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in range(0, size[1], 2)], 1) for i in range(0, size[0], 2)], 1
    )
    np.testing.assert_allclose(layers.average_pool_2x2(jnp.asarray(x)), expected, atol=1e-6)


@pytest.mark.parametrize(("file", "model"), [("timm_resnet50d.ra2_in1k", "resnet50d"), ("timm_resnet50.a1_in1k", "resnet50")])
def test_files_of_relatives_are_told_apart(file, model):
    shapes = {name: tuple(shape) for name, shape in json.loads((GOLDEN / f"{file}.json").read_text())["tensors"].items()}
    assert pretrained.looks_like(shapes) == model
