"""Architectures: shapes, the contract with the training loop, and bad configs."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import warm_start
from converted import compile_quickly
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from networks import created

from imgclf import models
from imgclf.config import Config, default_config
from imgclf.errors import UserError
from imgclf.training.state import make_apply_fn, path_name, split_model


def config_of(name: str, size: tuple[int, int] = (32, 32)) -> Config:
    config = default_config()
    config.model.name = name
    config.data.image_size = size
    return config


def openimages_cnn() -> Config:
    config = config_of("cnn", (128, 128))
    config.model.output = "sigmoid"
    cnn = config.model.cnn
    cnn.widths, cnn.padding, cnn.norm, cnn.flatten, cnn.dense, cnn.dropout = (32, 32, 64), "valid", "none", True, (64,), 0.5
    return config


def sports_cnn() -> Config:
    config = config_of("cnn", (224, 224))
    cnn = config.model.cnn
    cnn.widths, cnn.padding, cnn.norm, cnn.flatten, cnn.dense, cnn.maps_dropout = (32, 32, 64), "same", "none", True, (128,), 0.4
    return config


def parameter_shapes(config: Config, classes: int) -> dict[str, tuple[int, ...]]:
    model = nnx.eval_shape(lambda: created(config, classes))
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(split_model(model)[1])}


def size(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def test_openimages_cnn_has_the_layers_of_the_published_keras_model():
    # 128 -3x3-> 126 -pool-> 63 -> 61 -> 30 -> 28 -> 14, and 14 · 14 · 64 = 12,544
    assert parameter_shapes(openimages_cnn(), 2) == {
        "backbone/conv0/kernel": (3, 3, 3, 32),
        "backbone/conv0/bias": (32,),
        "backbone/conv1/kernel": (3, 3, 32, 32),
        "backbone/conv1/bias": (32,),
        "backbone/conv2/kernel": (3, 3, 32, 64),
        "backbone/conv2/bias": (64,),
        "head/dense0/kernel": (12_544, 64),
        "head/dense0/bias": (64,),
        "head/logits/kernel": (64, 1),
        "head/logits/bias": (1,),
    }
    assert size(parameter_shapes(openimages_cnn(), 2)) == 896 + 9_248 + 18_496 + 802_880 + 65


def test_sports_cnn_has_the_layers_of_the_published_keras_model():
    shapes = parameter_shapes(sports_cnn(), 2)  # 224 -> 112 -> 56 -> 28, and 28 · 28 · 64 = 50,176
    assert shapes["head/dense0/kernel"] == (50_176, 128)
    assert size(shapes) == 896 + 9_248 + 18_496 + 6_422_656 + 258


def test_the_stride_of_a_bottleneck_stands_in_its_3x3_convolution():
    block = getattr(nnx.eval_shape(lambda: created(config_of("resnet50"), 10)).backbone.stage2, "0")
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride, block.downsample.conv.stride] == [1, 2, 1, 2]


def evaluate(model: models.Network, image: jax.Array):
    """Maps, pooled features and logits in evaluation mode, compiled at once."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, image):
        model = nnx.merge(graphdef, state)
        return model.backbone(image), model.features(image), model(image)

    return run(state, image)


@pytest.mark.parametrize("name", ["cnn", "resnet_tiny", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_a_model_trains(name):
    """ResNet-20 is slow to compile; it is resnet_tiny's class with basic blocks, and its trained weights are in test_real_weights."""
    graphdef, params, stats = split_model(created(config_of(name, (40, 32)), 3))  # also shows that there are no other variables
    image = jnp.asarray(np.random.default_rng(0).normal(size=(4, 40, 32, 3)), jnp.float32)
    apply = make_apply_fn(graphdef)

    def step(params, stats):
        def loss(params):
            logits, new_stats = apply(params, stats, image, train=True)
            return -jax.nn.log_softmax(logits)[jnp.arange(4), jnp.asarray([0, 1, 2, 0])].mean(), new_stats

        (value, new_stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients), new_stats, value

    step, losses = compile_quickly(step, params, stats), []
    for _ in range(8):
        params, stats, value = step(params, stats)
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(stats))


@pytest.mark.parametrize("name", ["cnn", "resnet_tiny", "resnet20"])
@pytest.mark.parametrize("size", [(40, 32), (33, 47)])
def test_maps_have_the_size_that_the_model_states(name, size):
    backbone = nnx.eval_shape(lambda: created(config_of(name, size), 3)).backbone
    maps = nnx.eval_shape(lambda backbone: backbone(jnp.zeros((2, *size, 3))), backbone)
    assert maps.shape == (2, *backbone.map_size(*size), backbone.features)


@pytest.mark.parametrize(("precision", "dtype"), [("f32", "float32"), ("bf16", "float32"), ("auto", "float32")])
def test_precision_is_of_activations_only_and_features_are_averages(precision, dtype):
    config = config_of("cnn")
    config.model.precision = precision
    model = created(config, 3)
    _, params, stats = split_model(model)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {jnp.dtype("float32")}
    maps, features, logits = evaluate(model, jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32))
    assert maps.dtype == jnp.dtype(dtype)
    assert features.dtype == logits.dtype == jnp.float32
    np.testing.assert_allclose(features, maps.astype(jnp.float32).mean((1, 2)), atol=1e-5)


def small_openimages_cnn() -> models.Network:
    config = openimages_cnn()
    config.data.image_size, config.model.cnn.widths = (32, 32), (4, 4, 4)
    return created(config, 2)


def test_a_sigmoid_unit_gives_two_logits_of_which_the_first_is_zero():
    _, _, logits = evaluate(small_openimages_cnn(), jnp.ones((3, 32, 32, 3)))
    assert logits.shape == (3, 2)
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_allclose(jax.nn.softmax(logits)[:, 1], jax.nn.sigmoid(logits[:, 1]), rtol=1e-6)


def test_dropout_follows_its_key_and_is_off_in_evaluation():
    graphdef, params, stats = split_model(small_openimages_cnn())
    apply, image = jax.jit(make_apply_fn(graphdef), static_argnames="train"), jnp.ones((3, 32, 32, 3))

    def logits(train, seed):
        return apply(params, stats, image, train=train, key=jax.random.key(seed))[0]

    np.testing.assert_array_equal(logits(True, 0), logits(True, 0))
    assert np.any(logits(True, 0) != logits(True, 1))
    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    with pytest.raises(ValueError, match="key"):
        apply(params, stats, image, train=True)


def test_the_seed_decides_the_initialisation():
    def first_kernel(seed):
        config = config_of("cnn")
        config.seed = seed
        return created(config, 2).backbone.conv0.kernel[...]

    np.testing.assert_array_equal(first_kernel(0), first_kernel(0))
    assert np.any(first_kernel(0) != first_kernel(1))


def test_initialisation_is_normal_and_the_same_inside_and_outside_of_jit():
    config = config_of("cnn")
    config.model.cnn.widths = (8, 300)
    config.model.cnn.dense = (400,)  # 120,000 numbers: two blocks
    outside, inside = created(config, 2), jax.jit(lambda: split_model(created(config, 2))[1])()
    jax.tree.map(np.testing.assert_array_equal, split_model(outside)[1], inside)
    kernel = np.asarray(outside.head.dense0.kernel[...])
    assert kernel.std() == pytest.approx((2 / 300) ** 0.5, rel=0.01)
    assert len(np.unique(kernel)) > 0.98 * kernel.size


@pytest.mark.parametrize("size", [(16, 16), (12, 40)])
def test_other_pool_sizes_and_kernels_work(size):
    config = config_of("cnn", size)
    config.model.cnn.pool, config.model.cnn.kernel, config.model.cnn.widths = 3, 2, (4, 4)
    maps, _, logits = evaluate(created(config, 5), jnp.ones((2, *size, 3)))
    assert maps.shape == (2, size[0] // 9, size[1] // 9, 4)
    assert np.isfinite(logits).all()


def test_bad_configs_are_told_with_the_way_out():
    with pytest.raises(UserError, match=r"resnet51.*resnet5"):
        created(config_of("resnet51"), 2)
    with pytest.raises(UserError, match=r"sigmoid.*3.*softmax"):
        created(openimages_cnn(), 3)
    small = openimages_cnn()
    small.data.image_size = (16, 128)
    with pytest.raises(UserError, match=r"image_size=\(16, 128\).*larger"):
        created(small, 2)


def compare_devices() -> None:
    """In a process of its own: the step's results on four devices and on one."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    jax.config.update("jax_platforms", "cpu")
    config = config_of("cnn")
    config.model.cnn.widths = (4, 8)
    graphdef, params, stats = split_model(created(config, 3))
    image = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32) + np.arange(8, dtype=np.float32)[:, None, None, None]
    apply = make_apply_fn(graphdef)

    def results(params, image):
        def loss(params):
            logits, new_stats = apply(params, stats, image, train=True)
            return (logits**2).sum(), new_stats

        return jax.grad(loss, has_aux=True)(params)

    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    one = jax.jit(results)(params, image)
    split = jax.device_put(image, NamedSharding(mesh, PartitionSpec("data")))
    many = jax.jit(results)(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), split)
    worst = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max() / (np.abs(a).max() + 1e-6), one, many)
    print(json.dumps({"devices": jax.device_count(), "worst": float(max(jax.tree.leaves(worst)))}))


def test_batch_norm_statistics_and_gradients_are_of_the_global_batch():
    code, said = warm_start.finish(*warm_start.start(compare_devices))
    assert code == 0, said
    result = json.loads(said.splitlines()[-1])
    assert result["devices"] == 4
    assert result["worst"] < 1e-3


def test_what_a_network_is_like_is_found_once_and_nobody_can_change_it_for_others():
    config = default_config()
    config.model.name, config.data.image_size, config.model.head.kind = "mobilenet_v2_tiny", (32, 32), "linear"
    config.data.mean, config.data.std, config.model.variant = (0.5,) * 3, (0.5,) * 3, ""
    one = models.abstract(config, 3)
    fresh = nnx.eval_shape(lambda: models.create(config, 3))
    assert nnx.graphdef(one) == nnx.graphdef(fresh)
    assert jax.tree.map(jnp.shape, nnx.state(one)) == jax.tree.map(jnp.shape, nnx.state(fresh))
    del one.head
    again = models.abstract(config, 3)
    assert nnx.graphdef(again) == nnx.graphdef(fresh)
    assert models.abstract(config, 4).head.logits.out_features == 4
    config.data.image_size = (0, 0)
    with pytest.raises(UserError, match="too small"):
        models.abstract(config, 3)
