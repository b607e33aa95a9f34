"""ResNeXt: sizes, groups, that it learns, and that its files aren't taken for ResNet's, whose names they have. Equality: test_golden.py."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import compile_quickly, normal
from flax import nnx

from imgclf.models import resnext
from imgclf.models.weights import pretrained

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def test_any_size_has_the_maps_it_says():
    abstract = nnx.eval_shape(lambda: resnext.resnext50_32x4d(rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), 2048)


def test_the_3x3_convolutions_have_32_groups_of_4_to_32_channels():
    backbone = nnx.eval_shape(lambda: resnext.resnext50_32x4d(rngs=nnx.Rngs(0)))
    blocks = [getattr(getattr(backbone, f"stage{stage}"), "0") for stage in range(1, 5)]
    assert [block.conv2.kernel.shape for block in blocks] == [(3, 3, 4, 128), (3, 3, 8, 256), (3, 3, 16, 512), (3, 3, 32, 1024)]
    assert {block.conv2.groups for block in blocks} == {32}
    assert [block.conv2.stride for block in blocks] == [1, 2, 2, 2]


@pytest.mark.slow  # a ResNet's; test_layers.py has the gradients of convolutions with groups
def test_gradients_reach_every_parameter():
    abstract = nnx.eval_shape(lambda: resnext.resnext_tiny(rngs=nnx.Rngs(0)))
    graphdef, *states = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    numbers = np.random.default_rng(0)
    params, stats = (normal(state, numbers) for state in states)
    image = numbers.normal(size=(4, 40, 48, 3)).astype(np.float32)

    def loss(params, stats):
        return (nnx.merge(graphdef, nnx.State(params), nnx.State(stats))(image, train=True) ** 2).sum()

    grads = compile_quickly(jax.grad(loss), params, stats)(params, stats)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(("file", "model"), [("timm_resnext50_32x4d.a1h_in1k", "resnext50_32x4d"), ("timm_resnet50.a1_in1k", "resnet50")])
def test_files_of_either_family_are_told_apart(file, model):
    shapes = {name: tuple(shape) for name, shape in json.loads((GOLDEN / f"{file}.json").read_text())["tensors"].items()}
    assert pretrained.looks_like(shapes) == model
