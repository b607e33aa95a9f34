"""Heads, against their formulas in numpy, and their place in the whole model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import created

from imgclf.config import Config, default_config
from imgclf.errors import UserError
from imgclf.models.heads import DenseHead
from imgclf.models.squeezenet import SqueezeNetHead
from imgclf.models.weights import conversion

MAPS = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype(np.float32)


def layer(module: nnx.Module) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(module.kernel[...]), np.asarray(module.bias[...])


def dense(x: np.ndarray, module: nnx.Module) -> np.ndarray:
    kernel, bias = layer(module)
    return x @ kernel + bias


def test_avgmax_reads_average_and_maximum():
    head = DenseHead((2, 3), 4, 5, pool="avgmax", rngs=nnx.Rngs(0))
    pooled = np.concatenate([MAPS.mean((1, 2)), MAPS.max((1, 2))], -1)
    np.testing.assert_allclose(head(jnp.asarray(MAPS)), dense(pooled, head.logits), atol=1e-5)


def test_the_gradient_of_a_maximum_goes_to_one_place():
    head = DenseHead((2, 3), 4, 5, pool="avgmax", rngs=nnx.Rngs(0))
    kernel = layer(head.logits)[0]
    expected = np.zeros_like(MAPS) + kernel[:4, 1] / 6
    for image, channel in np.ndindex(6, 4):
        row, column = np.unravel_index(MAPS[image, ..., channel].argmax(), (2, 3))
        expected[image, row, column, channel] += kernel[4 + channel, 1]
    np.testing.assert_allclose(jax.grad(lambda maps: head(maps)[:, 1].sum())(jnp.asarray(MAPS)), expected, atol=1e-6)


@pytest.mark.parametrize("pool", ["flatten", "average"])
def test_mlp_is_dense_relu_batch_norm(pool):
    head = DenseHead((2, 3), 4, 5, pool=pool, dense=(7,), norm=True, rngs=nnx.Rngs(0))
    x = MAPS.reshape(6, -1) if pool == "flatten" else MAPS.mean((1, 2))
    hidden = np.maximum(dense(x, head.dense0), 0)
    normalised = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-3)  # Keras's epsilon
    np.testing.assert_allclose(head(jnp.asarray(MAPS)), dense(hidden / np.sqrt(1 + 1e-3), head.logits), atol=1e-5)
    np.testing.assert_allclose(head(jnp.asarray(MAPS), train=True), dense(normalised, head.logits), atol=1e-4)
    np.testing.assert_allclose(head.bn0.mean[...], 0.01 * hidden.mean(0), atol=1e-6)  # Keras's momentum, 0.99


def test_squeezenets_head_is_a_convolution_relu_average():
    head = SqueezeNetHead((2, 3), 4, 5, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(head(jnp.asarray(MAPS)), np.maximum(dense(MAPS, head.logits), 0).mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("make", [lambda: DenseHead((2, 3), 4, 5, features_dropout=0.5, rngs=nnx.Rngs(0)),
                                  lambda: DenseHead((2, 3), 4, 5, dense=(7,), norm=True, dropout=0.5, rngs=nnx.Rngs(0)),
                                  lambda: SqueezeNetHead((2, 3), 4, 5, dropout=0.5, rngs=nnx.Rngs(0))])  # fmt: skip
def test_dropout_is_of_training_only_and_follows_its_key(make):
    head, maps = make(), jnp.asarray(MAPS)
    keys = jax.random.split(jax.random.key(0))
    assert (head(maps, train=True, key=keys[0]) == head(maps, train=True, key=keys[0])).all()
    assert (head(maps, train=True, key=keys[0]) != head(maps, train=True, key=keys[1])).any()
    assert (head(maps) == head(maps)).all()
    with pytest.raises(ValueError, match="needs a key"):
        head(maps, train=True)


def config_of(kind: str, name: str = "squeezenet_tiny") -> Config:
    config = default_config()
    config.model.name, config.model.head.kind, config.data.image_size = name, kind, (33, 40)
    return config


def head_shapes(config: Config, classes: int) -> dict[str, tuple[int, ...]]:
    model = nnx.eval_shape(lambda: created(config, classes))
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))["head"]
    return {path: leaf.shape for path, leaf in conversion.flatten(state).items()}


def test_config_chooses_the_head():
    assert head_shapes(config_of("auto"), 3) == {"logits/kernel": (32, 3), "logits/bias": (3,)}
    assert head_shapes(config_of("avgmax"), 3)["logits/kernel"] == (64, 3)
    mlp = config_of("mlp")
    mlp.model.head.flatten = True
    assert head_shapes(mlp, 3)["dense0/kernel"] == (4 * 4 * 32, 256)
    assert head_shapes(mlp, 3)["bn0/scale"] == (256,)
    mlp.model.head.norm, mlp.model.head.flatten, mlp.model.head.dense = "none", False, (16, 8)
    shapes = head_shapes(mlp, 3)
    assert (shapes["dense0/kernel"], shapes["dense1/kernel"], shapes["logits/kernel"]) == ((32, 16), (16, 8), (8, 3))
    assert not [path for path in shapes if path.startswith("bn")]


def test_the_published_head_has_no_sigmoid():
    config = config_of("family")
    config.model.output = "sigmoid"
    with pytest.raises(UserError, match=r"head\.kind='linear'"):
        created(config, 2)
