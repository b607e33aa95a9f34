"""VGG, DenseNet, Xception and Inception: shapes, pooling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imgclf.models import densenet, inception_v3, vgg, xception
from imgclf.models.heads import DenseHead
from imgclf.models.network import Network
from imgclf.models.weights.conversion import flatten
from imgclf.training.state import split_model

TINY = {
    "vgg": vgg.vgg_tiny,
    "densenet": densenet.densenet_tiny,
    "xception": xception.xception_tiny,
    "inception": inception_v3.inception_v3_tiny,
}
# LLVM's optimisation takes longer than the few multiplications it would speed up.
QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def abstract(builder, head=DenseHead, size=(224, 224), outputs=1000, **options) -> tuple[dict, dict]:
    """Paths and shapes of parameters and statistics, without computing any."""

    def build():
        rngs = nnx.Rngs(0)
        backbone = builder(**options, rngs=rngs)
        return Network(backbone, head(backbone.map_size(*size), backbone.features, outputs, rngs=rngs))

    _, params, stats = split_model(nnx.eval_shape(build))
    return tuple({path: leaf.shape for path, leaf in flatten(tree).items()} for tree in (params, stats))


def count(shapes: dict[str, tuple[int, ...]], start: str = "") -> int:
    return sum(int(np.prod(shape)) for path, shape in shapes.items() if path.startswith(start))


@pytest.mark.parametrize(
    ("builder", "options", "published"),
    [
        (densenet.densenet121, {}, 8_062_504),  # Keras counts moving averages too
        (inception_v3.inception_v3, {"use_scale": False}, 23_851_784),
        (xception.xception, {}, 22_910_480),
    ],
)
def test_with_the_statistics_it_is_kerass(builder, options, published):
    assert sum(map(count, abstract(builder, **options))) == published


def test_blocks_1_to_4_of_vgg16_are_the_first_15_layers_of_kerass():
    shapes = abstract(vgg.vgg16)[0]
    assert sum(count(shapes, f"backbone/block{i}/") for i in range(1, 5)) == 7_635_264
    assert sum(path.endswith("kernel") for path in shapes if "/block5/" not in path and path.startswith("backbone/")) == 10


@pytest.mark.parametrize(
    ("builder", "image", "maps"),
    [
        (vgg.vgg16, (150, 200), (4, 6)),
        (densenet.densenet121, (224, 200), (7, 6)),
        (xception.xception, (299, 299), (10, 10)),
        (xception.xception, (150, 200), (5, 7)),
        (inception_v3.inception_v3, (299, 299), (8, 8)),
        (inception_v3.inception_v3, (75, 139), (1, 3)),
    ],
)
def test_the_size_of_the_maps_is_known_beforehand(builder, image, maps):
    def run():
        backbone = builder(rngs=nnx.Rngs(0))
        return jnp.zeros(backbone.map_size(*image)), backbone(jnp.zeros((1, *image, 3)))

    stated, shape = nnx.eval_shape(run)
    assert stated.shape == shape.shape[1:3] == maps


@pytest.mark.parametrize("family", TINY)
def test_images_can_be_too_small(family):
    assert min(nnx.eval_shape(lambda: TINY[family](rngs=nnx.Rngs(0))).map_size(3, 3)) < 1


@pytest.mark.parametrize("family", ["vgg", "densenet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("xception", "inception"))])
def test_a_tiny_variant_trains(family):
    backbone = TINY[family](rngs=nnx.Rngs(0))
    graphdef, params, stats = split_model(backbone)  # also shows that there are no other variables
    image = jnp.asarray(np.random.default_rng(0).normal(size=(4, 96, 80, 3)), jnp.float32)

    def step(params):
        def loss(params):
            model = nnx.merge(graphdef, nnx.State(params), nnx.State(stats))
            maps = model(image, train=True)
            return jnp.square(maps - 1).mean(), (maps, split_model(model)[2])

        (value, (maps, new_stats)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        length = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradients)))
        return value, maps, new_stats, gradients, jax.tree.map(lambda p, g: p - 0.02 * g / length, params, gradients)

    step = jax.jit(step).lower(params).compile(QUICK_TO_COMPILE)
    before, maps, new_stats, gradients, params = step(params)
    assert maps.shape == (4, *backbone.map_size(96, 80), backbone.features)
    assert not [path for path, gradient in flatten(gradients).items() if not np.any(gradient)]
    assert not [path for path, leaf in flatten(new_stats).items() if np.array_equal(leaf, flatten(stats)[path])]
    assert step(params)[0] < before


@pytest.mark.parametrize(("size", "bins"), [((2, 3), (7, 7)), ((9, 14), (7, 7)), ((7, 7), (7, 7)), ((5, 8), (3, 2))])
def test_adaptive_pooling_averages_torchs_bins(size, bins):
    maps = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    expected = np.empty((2, *bins, 3), np.float32)
    for i in range(bins[0]):
        for j in range(bins[1]):
            rows = slice(i * size[0] // bins[0], -(-(i + 1) * size[0] // bins[0]))
            columns = slice(j * size[1] // bins[1], -(-(j + 1) * size[1] // bins[1]))
            expected[:, i, j] = maps[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(vgg.adaptive_average_pool(jnp.asarray(maps), bins), expected, atol=1e-6)


@pytest.mark.parametrize("counts_padding", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (4, 5)])
def test_average_pooling_at_the_edge_is_torchs_or_tensorflows(size, counts_padding):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    expected = nnx.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=counts_padding)
    np.testing.assert_allclose(inception_v3.average_pool(x, counts_padding), expected, atol=1e-6)


def test_the_published_vgg_head_drops_out_in_training_and_knows_a_sigmoid():
    head = vgg.VGGHead((3, 2), 4, 1, pool_size=(2, 2), hidden=16, rngs=nnx.Rngs(0))
    maps = jnp.ones((5, 3, 2, 4))
    logits = head(maps)
    assert logits.shape == (5, 2)
    assert not np.any(logits[:, 0])
    assert not np.array_equal(head(maps, train=True, key=jax.random.key(0)), logits)
    with pytest.raises(ValueError, match="key"):
        head(maps, train=True)
